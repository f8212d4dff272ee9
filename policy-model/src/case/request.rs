//! Requests of every protocol, as questions have them.

use crate::compiled::{HttpRequest, KafkaRequest, TlsInspection};
use crate::generic::{GenericMatch, GenericRequest};
use crate::verdict::{Inspection, Outcome, RequestVerdict};

/// What is said on a connection.
#[derive(Clone, Debug, Default)]
pub struct L7Request {
    /// HTTP, or gRPC.
    pub http: Option<HttpQuestion>,
    /// Kafka.
    pub kafka: Option<KafkaQuestion>,
    /// The name that a DNS question is about.
    pub dns: Option<String>,
    /// The server name of a TLS connection; empty: none.
    pub tls: Option<String>,
    /// Cassandra: opcode, action, table.
    pub cassandra: Option<[String; 3]>,
    /// memcached: command and keys.
    pub memcached: Option<(String, Vec<String>)>,
    /// r2d2: command and file.
    pub r2d2: Option<[String; 2]>,
}

/// An HTTP request.
#[derive(Clone, Debug)]
pub struct HttpQuestion {
    /// The method.
    pub method: String,
    /// As rules see it; or, as an error, as it is on the wire.
    pub path: Result<String, String>,
    /// `Host`.
    pub host: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
}

/// A Kafka request.
#[derive(Clone, Debug, Default)]
pub struct KafkaQuestion {
    /// The API's number.
    pub api_key: i16,
    /// The version of the request.
    pub api_version: i16,
    /// The client's own name for itself.
    pub client_id: String,
    /// The topics that it is about.
    pub topics: Vec<String>,
    /// The consumer group.
    pub group: Option<String>,
}

/// What becomes of a request target on its way to the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Normalised {
    /// Rules see this.
    Path(String),
    /// It is answered with a redirect to its clean form.
    Redirect,
    /// It is refused.
    Refused,
}

/// The HTTP gate's way to bring a request target into normal form: how a target on the wire is
/// written is not this crate's affair.
pub type Normalise<'a> = &'a dyn Fn(&str) -> Normalised;

/// What became of a request.
pub(crate) enum Asked {
    Judged(RequestVerdict),
    Redirected,
    /// It isn't what the port is read as.
    NotUnderstood,
}

impl HttpQuestion {
    /// The path as rules see it.
    pub(crate) fn normalised(&self, normalise: Normalise<'_>) -> Normalised {
        match &self.path {
            Ok(path) => Normalised::Path(path.clone()),
            Err(raw) => normalise(raw),
        }
    }
}

impl L7Request {
    pub(crate) fn is_empty(&self) -> bool {
        let Self { http, kafka, dns, tls, cassandra, memcached, r2d2 } = self;
        http.is_none()
            && kafka.is_none()
            && dns.is_none()
            && tls.is_none()
            && cassandra.is_none()
            && memcached.is_none()
            && r2d2.is_none()
    }

    /// The request in a few words.
    pub(super) fn describe(&self) -> String {
        let mut parts = Vec::new();
        if let Some(sni) = &self.tls {
            parts.push(format!("TLS for `{sni}`"));
        }
        if let Some(http) = &self.http {
            let (Ok(path) | Err(path)) = &http.path;
            let mut text = format!("{} {path}", http.method);
            if !http.host.is_empty() {
                text.push_str(&format!(" at {}", http.host));
            }
            for (name, value) in &http.headers {
                text.push_str(&format!(", {name}: {value}"));
            }
            parts.push(text);
        }
        if let Some(kafka) = &self.kafka {
            let topics = kafka.topics.join(", ");
            let (key, version) = (kafka.api_key, kafka.api_version);
            let group = kafka.group.as_ref().map(|group| format!(", group {group}"));
            let group = group.unwrap_or_default();
            parts.push(format!("Kafka API {key} v{version}, topics [{topics}]{group}"));
        }
        if let Some(name) = &self.dns {
            parts.push(format!("DNS {name}"));
        }
        if let Some([opcode, action, table]) = &self.cassandra {
            parts.push(format!("CQL {opcode} {action} {table}"));
        }
        if let Some((command, keys)) = &self.memcached {
            parts.push(format!("memcached {command} {}", keys.join(" ")));
        }
        if let Some([command, file]) = &self.r2d2 {
            parts.push(format!("r2d2 {command} {file}"));
        }
        parts.join(", ")
    }

    /// Asks the rules of a connection.
    pub(crate) fn ask(&self, inspection: &Inspection, normalise: Normalise<'_>) -> Asked {
        match inspection {
            Inspection::Http(rules) => {
                let Some(http) = &self.http else { return Asked::NotUnderstood };
                let path = match http.normalised(normalise) {
                    Normalised::Path(path) => path,
                    Normalised::Redirect => return Asked::Redirected,
                    Normalised::Refused => return Asked::NotUnderstood,
                };
                let request = View { question: http, path: &path };
                Asked::Judged(rules.decide(&request, &mut |_| {}))
            }
            Inspection::Kafka(rules) => match &self.kafka {
                Some(kafka) => Asked::Judged(rules.decide(kafka)),
                None => Asked::NotUnderstood,
            },
            Inspection::Dns(rules) => match &self.dns {
                Some(name) => Asked::Judged(rules.decide(name)),
                None => Asked::NotUnderstood,
            },
            Inspection::Generic(rules) => self.generic(|request| rules.decide(request)),
            Inspection::Tls(tls) => self.in_tls(tls, normalise),
            Inspection::Listener(_) => Asked::NotUnderstood,
        }
    }

    /// The server name first, then what is said inside.
    fn in_tls(&self, inspection: &TlsInspection, normalise: Normalise<'_>) -> Asked {
        let name = self.tls.as_ref().map(|name| inspection.server_names.decide(name));
        let said = Self { tls: None, ..self.clone() };
        match (name, &inspection.inner) {
            (Some(verdict), _) if verdict.outcome == Outcome::Deny => Asked::Judged(verdict),
            (Some(verdict), None) => Asked::Judged(verdict),
            (Some(verdict), Some(_)) if said.is_empty() => Asked::Judged(verdict),
            (_, Some(inner)) => said.ask(inner, normalise),
            (None, None) => Asked::NotUnderstood,
        }
    }

    fn generic(&self, decide: impl Fn(&GenericRequest<'_>) -> RequestVerdict) -> Asked {
        self.with_generic(decide).map_or(Asked::NotUnderstood, Asked::Judged)
    }

    /// Whether a rule of a protocol that policies name by word allows this; `None`: it is no request
    /// of such a protocol.
    pub(crate) fn generic_allows(&self, rule: &GenericMatch) -> Option<bool> {
        self.with_generic(|request| rule.allows(request))
    }

    fn with_generic<T>(&self, ask: impl Fn(&GenericRequest<'_>) -> T) -> Option<T> {
        if let Some([opcode, action, table]) = &self.cassandra {
            return Some(ask(&GenericRequest::Cassandra { opcode, action, table }));
        }
        if let Some((command, keys)) = &self.memcached {
            let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
            return Some(ask(&GenericRequest::Memcache { command, keys: &keys }));
        }
        let [command, file] = self.r2d2.as_ref()?;
        Some(ask(&GenericRequest::R2d2 { command, file }))
    }
}

/// A request with its path as rules see it.
pub(crate) struct View<'a> {
    pub(crate) question: &'a HttpQuestion,
    pub(crate) path: &'a str,
}

impl HttpRequest for View<'_> {
    fn method(&self) -> &[u8] {
        self.question.method.as_bytes()
    }

    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }

    fn host(&self) -> &[u8] {
        self.question.host.as_bytes()
    }

    fn header_values<'v>(&'v self, name: &'v str) -> impl Iterator<Item = &'v [u8]> {
        let named = move |(own, _): &&(String, String)| own.eq_ignore_ascii_case(name);
        self.question.headers.iter().filter(named).map(|(_, value)| value.as_bytes())
    }
}

impl KafkaRequest for KafkaQuestion {
    fn api_key(&self) -> i16 {
        self.api_key
    }

    fn api_version(&self) -> i16 {
        self.api_version
    }

    fn client_id(&self) -> &[u8] {
        self.client_id.as_bytes()
    }

    fn topics(&self) -> impl Iterator<Item = &[u8]> {
        self.topics.iter().map(String::as_bytes)
    }

    fn group(&self) -> Option<&[u8]> {
        self.group.as_deref().map(str::as_bytes)
    }
}
