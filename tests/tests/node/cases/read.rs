//! Cases as data.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    endpoints: Vec<Workload>,
    cases: Vec<RawCase>,
}

#[derive(Deserialize)]
struct RawCase {
    id: String,
    #[serde(default)]
    config: Config,
    endpoints: Option<Vec<Workload>>,
    #[serde(default)]
    policies: Vec<Value>,
    load: Option<String>,
    #[serde(default)]
    queries: Vec<Query>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    policy_enforcement: Option<String>,
    allow_localhost: Option<String>,
    host_firewall: bool,
    node_selector_labels: bool,
    extended_ip_protocols: bool,
}

/// Somebody of a case.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Workload {
    pub(super) name: String,
    #[serde(default)]
    pub(super) namespace: String,
    pub(super) labels: Vec<String>,
    pub(super) ips: Vec<IpAddr>,
    #[serde(default)]
    pub(super) named_ports: Vec<Value>,
}

/// A question.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Query {
    pub(super) direction: String,
    pub(super) subject: String,
    pub(super) peer: Peer,
    #[serde(default = "tcp")]
    pub(super) protocol: String,
    #[serde(default)]
    pub(super) port: u16,
    pub(super) icmp_type: Option<u8>,
    pub(super) l7: Option<Request>,
    expect: String,
}

fn tcp() -> String {
    "TCP".to_owned()
}

/// Who asks, or is asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Peer {
    pub(super) endpoint: Option<String>,
    pub(super) entity: Option<String>,
    pub(super) ip: Option<IpAddr>,
    dns_names: Option<Vec<String>>,
}

/// What is said on a connection.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Request {
    pub(super) http: Option<Http>,
    pub(super) kafka: Option<Kafka>,
    tls: Option<Value>,
    dns: Option<Value>,
    cassandra: Option<Value>,
    memcached: Option<Value>,
    r2d2: Option<Value>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Http {
    #[serde(default = "get")]
    pub(super) method: String,
    /// As rules see it.
    path: Option<String>,
    /// As it is sent.
    raw_path: Option<String>,
    #[serde(default)]
    pub(super) host: String,
    #[serde(default)]
    pub(super) headers: Vec<(String, String)>,
}

impl Http {
    pub(super) fn target(&self) -> &str {
        self.raw_path.as_ref().or(self.path.as_ref()).map_or("/", String::as_str)
    }
}

fn get() -> String {
    "GET".to_owned()
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Kafka {
    pub(super) api_key: i16,
    pub(super) api_version: i16,
    pub(super) client_id: String,
    pub(super) topics: Vec<String>,
    pub(super) group: String,
}

/// What the daemon is told of a case in its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Settings {
    pub(super) enforcement: &'static str,
    pub(super) allow_localhost: bool,
}

/// What is to become of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It arrived.
    Arrived,
    /// It was refused at once, as a connection or datagram, and nothing arrived.
    Refused,
    /// There was a connection, and the request was answered with a refusal and did not arrive.
    RequestRefused,
}

/// A case.
pub(super) struct Case {
    pub(super) id: String,
    pub(super) settings: Settings,
    pub(super) endpoints: Vec<Workload>,
    pub(super) policies: Vec<Value>,
    pub(super) queries: Vec<Query>,
    /// Why nothing of it can be asked.
    unaskable: Option<&'static str>,
}

/// All cases that ask something.
pub(super) fn all() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy-model/tests/cases");
    let files = fs::read_dir(folder).expect("the cases");
    let mut files: Vec<_> = files.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let mut cases = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).expect("a file");
        let file: File = serde_saphyr::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let File { endpoints, cases: raw } = file;
        let asking = raw.into_iter().filter(|case| !case.queries.is_empty());
        cases.extend(asking.map(|case| Case::of(case, &endpoints)));
    }
    cases
}

impl Case {
    fn of(raw: RawCase, shared: &[Workload]) -> Self {
        let RawCase { id, config, endpoints, policies, load, queries } = raw;
        let unaskable = match config {
            _ if load.is_some_and(|load| load != "ok") => Some("its policies do not load"),
            Config { host_firewall: true, .. } => Some("policies for hosts are not carried out"),
            Config { node_selector_labels: true, .. } => Some("nodes are not selected by labels"),
            Config { extended_ip_protocols: true, .. } => Some("protocols without ports"),
            _ => None,
        };
        let settings = Settings {
            enforcement: match config.policy_enforcement.as_deref() {
                Some("always") => "always",
                Some("never") => "never",
                _ => "default",
            },
            allow_localhost: config.allow_localhost.as_deref() == Some("always"),
        };
        let endpoints = endpoints.unwrap_or_else(|| shared.to_vec());
        Self { id, settings, endpoints, policies, queries, unaskable }
    }

    /// Those whose policies are asked about.
    pub(super) fn subjects(&self) -> Vec<&str> {
        let mut subjects: Vec<&str> = self.queries.iter().map(|q| q.subject.as_str()).collect();
        subjects.sort_unstable();
        subjects.dedup();
        subjects
    }

    pub(super) fn endpoint(&self, name: &str) -> &Workload {
        self.endpoints.iter().find(|endpoint| endpoint.name == name).expect("it is in the case")
    }

    /// Why a question can't be asked on a wire.
    pub(super) fn unaskable(&self, query: &Query) -> Option<&'static str> {
        if self.unaskable.is_some() {
            return self.unaskable;
        }
        if self.endpoint(&query.subject).labels.iter().any(|label| label.starts_with("reserved:")) {
            return Some("its subject is no workload with labels of its own");
        }
        if query.peer.dns_names.is_some() {
            return Some("names are not learnt from DNS answers");
        }
        let says = |key| self.policies.iter().any(|policy| policy.to_string().contains(key));
        if says(r#""mode":"required""#) {
            return Some("nobody proves who it is");
        }
        if ["serverNames", "listener", "terminatingTLS"].into_iter().any(says) {
            return Some("TLS and other listeners");
        }
        let request = query.l7.as_ref()?;
        let Request { http, tls, dns, cassandra, memcached, r2d2, .. } = request;
        if [tls, dns, cassandra, memcached, r2d2].iter().any(|request| request.is_some()) {
            return Some("the proxy reads HTTP and Kafka, and what it can't read is refused");
        }
        let path = http.as_ref().and_then(|http| http.path.as_deref()).unwrap_or_default();
        ["#", "//"]
            .iter()
            .any(|part| path.contains(part))
            .then_some("its path is another on the wire")
    }
}

impl Query {
    /// What is to become of it.
    pub(super) fn expected(&self) -> Fate {
        match self.expect.as_str() {
            "allow" | "redirect" | "l7-allow" => Fate::Arrived,
            "l7-deny" => Fate::RequestRefused,
            "deny" => Fate::Refused,
            other => panic!("what is `{other}`?"),
        }
    }

    /// The subject's policy reads the connection, and nothing is said on it.
    pub(super) fn is_only_opened(&self) -> bool {
        self.expect == "redirect"
    }
}
