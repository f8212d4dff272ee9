//! The access log: one line of JSON a request, and one for each connection or message that was
//! refused. Secrets stay out of it: no header values, and no query unless asked for.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use portreeve_policy::TrafficDirection;

use portreeve_protocols::http2::grpc;
use portreeve_protocols::kafka::error_name;

use super::record::{
    ConnectionRecord, GrpcCall, HttpRecord, KafkaRecord, Party, RefusedRecord, RequestId,
};

/// Which requests are logged, and where to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessLogConfig {
    /// Which requests.
    pub mode: AccessLogMode,
    /// Where to.
    pub sink: Sink,
    /// Whether paths are logged with their query, which may hold secrets.
    pub query: bool,
}

/// Which requests are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogMode {
    /// None.
    Off,
    /// All of them.
    #[default]
    All,
    /// Those denied, and those that a policy in audit mode would deny.
    Denied,
}

impl AccessLogMode {
    /// `off`, `all`, `denied`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::All => "all",
            Self::Denied => "denied",
        }
    }

    /// The mode of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Off, Self::All, Self::Denied].into_iter().find(|mode| mode.as_str() == name)
    }
}

/// Where the log is written to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sink {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to; opened again on request, for rotation.
    File(PathBuf),
}

/// The mode, changeable while the proxy runs.
#[derive(Debug)]
pub(super) struct Switch(AtomicU8);

impl Switch {
    pub(super) fn new(mode: AccessLogMode) -> Self {
        Self(AtomicU8::new(mode as u8))
    }

    pub(super) fn get(&self) -> AccessLogMode {
        match self.0.load(Ordering::Relaxed) {
            0 => AccessLogMode::Off,
            1 => AccessLogMode::All,
            _ => AccessLogMode::Denied,
        }
    }

    pub(super) fn set(&self, mode: AccessLogMode) {
        self.0.store(mode as u8, Ordering::Relaxed);
    }
}

/// Writes a request's line.
pub(super) fn write_http(
    out: &mut Vec<u8>,
    endpoint: Option<&str>,
    record: &HttpRecord<'_>,
    query: bool,
) {
    let mut line = Line::begin(out, endpoint, record.time, "http", record.direction);
    line.text("verdict", record.verdict.as_str());
    line.parties(&record.source, &record.destination);
    line.bytes("method", record.method);
    line.bytes("host", record.host);
    line.bytes("path", if query { record.path } else { without_query(record.path) });
    line.text("protocol", record.version.as_str());
    line.number("status", record.status.into());
    line.raw("local", if record.local { "true" } else { "false" });
    if let Some(call) = &record.grpc {
        line.grpc(record.path, call);
    }
    line.text("policy", record.policy);
    line.text("rule", record.rule);
    line.text("reason", record.reason);
    line.number("request_bytes", record.request_bytes);
    line.number("response_bytes", record.response_bytes);
    line.millis("duration_ms", record.duration);
    if let Some(time) = record.time_to_first_byte {
        line.millis("first_byte_ms", time);
    }
    line.request_id(&record.request_id);
    line.number("revision", record.revision);
    line.end();
}

/// Writes the line of a connection that was denied, or would have been.
pub(super) fn write_connection(
    out: &mut Vec<u8>,
    endpoint: Option<&str>,
    record: &ConnectionRecord<'_>,
) {
    let mut line = Line::begin(out, endpoint, record.time, "connection", record.direction);
    let redirected = record.by_kernel.is_some_and(|by| by.redirected);
    line.text("verdict", if redirected { "redirect" } else { record.verdict.as_str() });
    line.parties(&record.source, &record.destination);
    if let Some(by) = &record.by_kernel {
        line.text("decided_by", "kernel");
        line.text("protocol", &by.protocol.to_string());
        if let Some(service) = by.service {
            line.text("service", &service.to_string());
        }
    }
    line.text("policy", record.policy);
    line.text("rule", record.rule);
    line.text("reason", record.reason);
    line.number("revision", record.revision);
    line.end();
}

/// Writes how many of the kernel's decisions have no line, because they were too many.
pub(super) fn write_left_out(out: &mut Vec<u8>, time: SystemTime, count: u64) {
    let time = humantime::format_rfc3339_micros(time);
    let _ = writeln!(
        out,
        "{{\"time\":\"{time}\",\"type\":\"left_out\",\"decided_by\":\"kernel\",\"count\":{count}}}"
    );
}

/// Writes the line of a message that was not accepted.
pub(super) fn write_refused(out: &mut Vec<u8>, endpoint: Option<&str>, record: &RefusedRecord<'_>) {
    let mut line = Line::begin(out, endpoint, record.time, "refused", record.direction);
    line.text("verdict", "deny");
    line.parties(&record.source, &record.destination);
    line.text("side", record.refused.side());
    line.text("reason", record.refused.name());
    line.end();
}

/// Writes the line of a Kafka request.
pub(super) fn write_kafka(out: &mut Vec<u8>, endpoint: Option<&str>, record: &KafkaRecord<'_>) {
    let mut line = Line::begin(out, endpoint, record.time, "kafka", record.direction);
    line.text("verdict", record.verdict.as_str());
    line.parties(&record.source, &record.destination);
    line.text("api", record.api);
    line.number("version", u64::from(record.version.unsigned_abs()));
    line.text("role", record.role.as_str());
    line.bytes("client_id", record.client_id);
    line.signed("correlation_id", record.correlation_id);
    if !record.group.is_empty() {
        line.bytes("group", record.group);
    }
    for (name, denied) in [("topics", false), ("denied_topics", true)] {
        line.list(name, record.topics.which(denied));
    }
    if record.more_topics > 0 {
        line.number("more_topics", record.more_topics);
    }
    line.raw("filtered", if record.filtered { "true" } else { "false" });
    match record.error {
        Some(code) => {
            line.signed("error_code", code.into());
            line.text("error", error_name(code));
        }
        None => line.raw("error_code", "null"),
    }
    line.raw("local", if record.local { "true" } else { "false" });
    line.text("policy", record.policy);
    line.text("rule", record.rule);
    line.text("reason", record.reason);
    line.number("request_bytes", record.request_bytes);
    line.number("response_bytes", record.response_bytes);
    line.millis("duration_ms", record.duration);
    line.number("revision", record.revision);
    line.end();
}

/// The path alone; that there was a query is shown, what it said isn't.
fn without_query(path: &[u8]) -> &[u8] {
    match path.iter().position(|byte| *byte == b'?') {
        Some(at) => &path[..=at],
        None => path,
    }
}

/// One JSON object under way. Writing to a vector can't fail.
struct Line<'a>(&'a mut Vec<u8>);

impl<'a> Line<'a> {
    fn begin(
        out: &'a mut Vec<u8>,
        endpoint: Option<&str>,
        time: SystemTime,
        kind: &'static str,
        direction: TrafficDirection,
    ) -> Self {
        let _ = write!(out, "{{\"time\":\"{}\"", humantime::format_rfc3339_micros(time));
        let mut line = Self(out);
        line.text("type", kind);
        // Whose policy it was, where the proxy has many.
        if let Some(endpoint) = endpoint {
            line.text("endpoint", endpoint);
        }
        line.text("direction", direction.as_str());
        line
    }

    fn key(&mut self, name: &str) {
        let _ = write!(self.0, ",\"{name}\":");
    }

    fn raw(&mut self, name: &str, json: &str) {
        self.key(name);
        self.0.extend_from_slice(json.as_bytes());
    }

    fn text(&mut self, name: &str, value: &str) {
        self.key(name);
        let _ = serde_json::to_writer(&mut *self.0, value);
    }

    fn bytes(&mut self, name: &str, value: &[u8]) {
        match std::str::from_utf8(value) {
            Ok(value) => self.text(name, value),
            Err(_) => self.text(name, &String::from_utf8_lossy(value)),
        }
    }

    fn number(&mut self, name: &str, value: u64) {
        self.key(name);
        let _ = write!(self.0, "{value}");
    }

    fn signed(&mut self, name: &str, value: i32) {
        self.key(name);
        let _ = write!(self.0, "{value}");
    }

    fn list<'b>(&mut self, name: &str, values: impl Iterator<Item = &'b [u8]>) {
        self.key(name);
        self.0.push(b'[');
        for (index, value) in values.enumerate() {
            if index > 0 {
                self.0.push(b',');
            }
            let _ = serde_json::to_writer(&mut *self.0, &String::from_utf8_lossy(value));
        }
        self.0.push(b']');
    }

    fn grpc(&mut self, path: &[u8], call: &GrpcCall) {
        let names = std::str::from_utf8(path).ok().and_then(grpc::names);
        let (service, method) = names.unwrap_or_default();
        self.text("grpc_service", service);
        self.text("grpc_method", method);
        match call.status {
            Some(code) => {
                self.number("grpc_status", code.into());
                self.text("grpc_status_name", grpc::status_name(code));
            }
            None => self.raw("grpc_status", "null"),
        }
        self.number("request_messages", call.request_messages);
        self.number("response_messages", call.response_messages);
    }

    fn millis(&mut self, name: &str, duration: Duration) {
        self.key(name);
        let micros = duration.as_micros();
        let _ = write!(self.0, "{}.{:03}", micros / 1000, micros % 1000);
    }

    fn parties(&mut self, source: &Party<'_>, destination: &Party<'_>) {
        for (name, party) in [("source", source), ("destination", destination)] {
            self.key(name);
            let _ = match party.address {
                Some(address) => write!(self.0, "{{\"address\":\"{address}\""),
                None => write!(self.0, "{{\"address\":null"),
            };
            let _ = write!(self.0, ",\"identity\":{},\"labels\":", party.identity);
            let _ = serde_json::to_writer(&mut *self.0, party.labels);
            self.0.push(b'}');
        }
    }

    fn request_id(&mut self, id: &RequestId<'_>) {
        match id {
            RequestId::Given(id) => self.bytes("request_id", id),
            RequestId::Numbered { worker, connection, request } => {
                self.key("request_id");
                let _ = write!(self.0, "\"{worker:x}-{connection:x}-{request:x}\"");
            }
        }
    }

    fn end(self) {
        self.0.extend_from_slice(b"}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::record::{HttpVersion, Verdict};

    #[test]
    fn a_line_is_json_with_every_field_and_without_the_query() {
        let party =
            |address: &str, labels| Party { address: address.parse().ok(), identity: 256, labels };
        let record = HttpRecord {
            time: SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456),
            direction: TrafficDirection::Ingress,
            verdict: Verdict::Deny,
            source: party("10.0.0.1:5", "k8s:app=a"),
            destination: party("[2001:db8::1]:80", "k8s:app=\"b\""),
            method: b"GET",
            host: b"shop",
            path: b"/a\"b?token=secret",
            version: HttpVersion::Http11,
            status: 403,
            local: true,
            grpc: None,
            rule: "",
            policy: "",
            reason: "no_rule_allows",
            request_bytes: 10,
            response_bytes: 20,
            duration: Duration::from_micros(1234),
            time_to_first_byte: Some(Duration::from_micros(34)),
            request_id: RequestId::Numbered { worker: 1, connection: 255, request: 2 },
            revision: 3,
        };
        let mut out = Vec::new();
        write_http(&mut out, None, &record, false);
        let expected = concat!(
            "{\"time\":\"2023-11-14T22:13:20.123456Z\",\"type\":\"http\",\"direction\":\"ingress\",",
            "\"verdict\":\"deny\",\"source\":{\"address\":\"10.0.0.1:5\",\"identity\":256,",
            "\"labels\":\"k8s:app=a\"},\"destination\":{\"address\":\"[2001:db8::1]:80\",",
            "\"identity\":256,\"labels\":\"k8s:app=\\\"b\\\"\"},\"method\":\"GET\",\"host\":\"shop\",",
            "\"path\":\"/a\\\"b?\",\"protocol\":\"HTTP/1.1\",\"status\":403,\"local\":true,",
            "\"policy\":\"\",\"rule\":\"\",\"reason\":\"no_rule_allows\",\"request_bytes\":10,",
            "\"response_bytes\":20,\"duration_ms\":1.234,\"first_byte_ms\":0.034,",
            "\"request_id\":\"1-ff-2\",\"revision\":3}\n"
        );
        assert_eq!(String::from_utf8(out).expect("text"), expected);

        let mut out = Vec::new();
        write_http(&mut out, Some("pod-\"a\""), &record, false);
        let of_a_node = expected
            .replace("\"type\":\"http\",", "\"type\":\"http\",\"endpoint\":\"pod-\\\"a\\\"\",");
        assert_eq!(String::from_utf8(out).expect("text"), of_a_node);
    }
}
