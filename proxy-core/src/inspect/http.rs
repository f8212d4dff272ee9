//! HTTP requests as policy queries: the session of an inspected HTTP connection.

use std::sync::Arc;
use std::time::SystemTime;

use portreeve_policy::{
    Action, HeaderEdit, HttpRequest, HttpRules, Inspection, Outcome, RequestVerdict,
};
use portreeve_protocols::http1::{
    self, Decision, Exchange as Exchanged, Handler, HeadEdits, Refusal, Request,
};

use super::Connection;
use super::in_flight::{Exchange, InFlight, Record};
use super::session::Inspect;
use crate::relay::Session;
use crate::telemetry::{HttpRecord, Method, Refused, RefusedRecord, RequestId, Verdict};

/// Policy and telemetry of one HTTP/1.1 connection.
pub(super) struct HttpSession {
    connection: Connection,
    /// `None`: policy has come to allow the connection without looking inside.
    rules: Option<Arc<HttpRules>>,
    in_flight: InFlight,
    requests: u64,
}

impl HttpSession {
    pub(super) fn new(connection: Connection, rules: Arc<HttpRules>) -> Self {
        Self { connection, rules: Some(rules), in_flight: InFlight::default(), requests: 0 }
    }

    /// Judges by the policy in force now, which may be newer than the connection.
    fn judge(&mut self, request: &Request<'_>, edits: &mut HeadEdits) -> RequestVerdict {
        if self.connection.outdated() {
            self.review();
        }
        if self.connection.revoked {
            return RequestVerdict::denied_connection();
        }
        match &self.rules {
            None => RequestVerdict::allowed_connection(),
            Some(rules) => rules.decide(&View(request), &mut |edit| match edit {
                HeaderEdit::Add { name, value } => edits.add(name, value.as_bytes()),
                HeaderEdit::Remove { name } => edits.remove(name),
                HeaderEdit::Replace { name, value } => edits.replace(name, value.as_bytes()),
            }),
        }
    }

    fn opened(&mut self, request: &Request<'_>, verdict: Verdict, by: Option<&RequestVerdict>) {
        self.requests += 1;
        let telemetry = &self.connection.worker().telemetry;
        let snapshot = self.connection.snapshot();
        let rule = by.and_then(|by| by.rule);
        telemetry.http_decided(self.connection.direction(), verdict);
        if let Some(rule) = rule {
            snapshot.count(rule);
        }
        let record = telemetry.wants(verdict).then(|| Record::new(request, snapshot.clone()));
        self.in_flight.push(Exchange {
            began: self.connection.now,
            first_byte: None,
            verdict,
            method: Method::from(request.method),
            rule,
            reason: by.map_or("answered_by_proxy", |by| by.reason.as_str()),
            sequence: self.requests,
            minor_version: request.minor_version,
            record,
        });
    }

    fn report(&self, exchange: &Exchange, passed: &Exchanged) {
        let telemetry = &self.connection.worker().telemetry;
        let duration = self.connection.now.saturating_duration_since(exchange.began);
        let direction = self.connection.direction();
        telemetry.http_answered(
            direction,
            exchange.verdict,
            exchange.method,
            passed.status,
            duration,
        );
        let Some(record) = &exchange.record else { return };
        let rule = exchange.rule.map(|rule| record.snapshot.policy.rule(rule));
        let (source, destination) = self.connection.parties_in(&record.snapshot);
        let (worker, connection) = self.connection.number();
        telemetry.http_logged(&HttpRecord {
            time: SystemTime::now(),
            direction,
            verdict: exchange.verdict,
            source,
            destination,
            method: record.method(),
            host: record.host(),
            path: record.path(),
            minor_version: exchange.minor_version,
            status: passed.status,
            local: passed.local,
            rule: rule.map_or("", |rule| rule.section()),
            policy: rule.map_or("", |rule| rule.policy()),
            reason: exchange.reason,
            request_bytes: passed.request_bytes,
            response_bytes: passed.response_bytes,
            duration,
            time_to_first_byte: exchange.first_byte,
            request_id: match record.request_id() {
                [] => RequestId::Numbered { worker, connection, request: exchange.sequence },
                id => RequestId::Given(id),
            },
            revision: record.snapshot.revision,
        });
    }
}

impl Handler for HttpSession {
    fn decide(&mut self, request: &Request<'_>, edits: &mut HeadEdits) -> Decision {
        let judged = self.judge(request, edits);
        let (verdict, decision) = match judged.outcome {
            Outcome::Allow => (Verdict::Allow, Decision::Allow),
            Outcome::Audit => (Verdict::Audit, Decision::Allow),
            Outcome::Deny => (Verdict::Deny, Decision::Deny),
        };
        self.opened(request, verdict, Some(&judged));
        decision
    }

    fn answered_unasked(&mut self, request: &Request<'_>, _: u16) {
        self.opened(request, Verdict::Deny, None);
    }

    fn responded(&mut self, _: u16) {
        let now = self.connection.now;
        if let Some(exchange) = self.in_flight.front() {
            exchange.first_byte = Some(now.saturating_duration_since(exchange.began));
        }
    }

    fn finished(&mut self, exchanged: &Exchanged) {
        if let Some(exchange) = self.in_flight.pop() {
            self.report(&exchange, exchanged);
        }
    }

    fn refused(&mut self, refusal: Refusal) {
        let (source, destination) = self.connection.parties();
        let telemetry = &self.connection.worker().telemetry;
        telemetry.refused(&RefusedRecord {
            time: SystemTime::now(),
            direction: self.connection.direction(),
            source,
            destination,
            refused: Refused::Http1(refusal),
        });
        tracing::debug!(client = %source.address, by_server = refusal.by_server(), "{refusal}");
    }
}

impl Inspect for HttpSession {
    fn connection(&self) -> &Connection {
        &self.connection
    }

    fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    fn adopt(&mut self, action: Action) -> bool {
        match action {
            Action::Allow => self.rules = None,
            Action::Inspect(Inspection::Http(rules)) => self.rules = Some(rules),
            // Denied, or to be read in another protocol than this connection speaks.
            _ => return false,
        }
        true
    }

    fn give_up(&mut self) {
        while let Some(exchange) = self.in_flight.pop() {
            let cut = Exchanged { status: 0, local: false, request_bytes: 0, response_bytes: 0 };
            self.report(&exchange, &cut);
        }
    }
}

/// A parsed request as the policy engine sees it.
struct View<'a>(&'a http1::Request<'a>);

impl HttpRequest for View<'_> {
    fn method(&self) -> &[u8] {
        self.0.method.as_bytes()
    }

    fn path(&self) -> &[u8] {
        self.0.path.as_bytes()
    }

    fn host(&self) -> &[u8] {
        self.0.host.as_bytes()
    }

    fn header_values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.0.headers.values(name)
    }
}
