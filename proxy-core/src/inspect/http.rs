//! HTTP requests as policy queries and as reports, whatever their version.

use std::sync::Arc;
use std::time::SystemTime;

use portreeve_policy::{
    Action, HeaderEdit, HttpRequest, HttpRules, Inspection, Outcome, RequestVerdict,
};

use super::Connection;
use super::in_flight::{Exchange, Record};
use crate::telemetry::{
    GrpcCall, HttpRecord, HttpVersion, Method, Refused, RefusedRecord, RequestId, Verdict,
};

/// What policy and telemetry need of a request, besides what the engine asks for.
pub(super) trait Asked: HttpRequest {
    /// Its version.
    fn version(&self) -> HttpVersion;
}

/// What became of a request.
pub(super) struct Answered {
    /// 0: there was no answer.
    pub(super) status: u16,
    pub(super) local: bool,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) grpc: Option<GrpcCall>,
}

/// Policy and telemetry of one HTTP connection.
pub(super) struct HttpPolicy {
    pub(super) connection: Connection,
    /// `None`: policy has come to allow the connection without looking inside.
    rules: Option<Arc<HttpRules>>,
    requests: u64,
}

impl HttpPolicy {
    pub(super) fn new(connection: Connection, rules: Arc<HttpRules>) -> Self {
        Self { connection, rules: Some(rules), requests: 0 }
    }

    /// Judges by the policy in force now, which may be newer than the connection.
    pub(super) fn judge(
        &mut self,
        request: &impl HttpRequest,
        edit: &mut impl FnMut(HeaderEdit<'_>),
    ) -> RequestVerdict {
        if self.connection.outdated() {
            let action = self.connection.renew().action;
            let goes_on = self.adopt(action);
            self.connection.revoked |= !goes_on;
        }
        if self.connection.revoked {
            return RequestVerdict::denied_connection();
        }
        match &self.rules {
            None => RequestVerdict::allowed_connection(),
            Some(rules) => rules.decide(request, edit),
        }
    }

    /// Takes on what a new policy says of the connection; `false`: that it may not go on.
    pub(super) fn adopt(&mut self, action: Action) -> bool {
        match action {
            Action::Allow => self.rules = None,
            Action::Inspect(Inspection::Http(rules)) => self.rules = Some(rules),
            // Denied, or to be read in another protocol than this connection speaks.
            _ => return false,
        }
        true
    }

    /// A request has been judged; `by` is `None` for what the proxy answers whatever policy says.
    pub(super) fn opened(
        &mut self,
        request: &impl Asked,
        verdict: Verdict,
        by: Option<&RequestVerdict>,
    ) -> Exchange {
        self.requests += 1;
        let telemetry = &self.connection.worker().telemetry;
        let snapshot = self.connection.snapshot();
        let rule = by.and_then(|by| by.rule);
        telemetry.http_decided(self.connection.direction(), verdict);
        if let Some(rule) = rule {
            snapshot.count(rule);
        }
        let record = telemetry.wants(verdict).then(|| Record::new(request, snapshot.clone()));
        Exchange {
            began: self.connection.now,
            first_byte: None,
            verdict,
            method: Method::from(request.method()),
            rule,
            reason: by.map_or("answered_by_proxy", |by| by.reason.as_str()),
            sequence: self.requests,
            version: request.version(),
            record,
        }
    }

    /// The head of its answer is on its way.
    pub(super) fn responded(&self, exchange: &mut Exchange) {
        exchange.first_byte = Some(self.connection.now.saturating_duration_since(exchange.began));
    }

    /// It is over.
    pub(super) fn report(&self, exchange: &Exchange, answered: &Answered) {
        let telemetry = &self.connection.worker().telemetry;
        let duration = self.connection.now.saturating_duration_since(exchange.began);
        let direction = self.connection.direction();
        telemetry.http_answered(
            direction,
            exchange.verdict,
            exchange.method,
            answered.status,
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
            version: exchange.version,
            status: answered.status,
            local: answered.local,
            grpc: answered.grpc,
            rule: rule.map_or("", |rule| rule.section()),
            policy: rule.map_or("", |rule| rule.policy()),
            reason: exchange.reason,
            request_bytes: answered.request_bytes,
            response_bytes: answered.response_bytes,
            duration,
            time_to_first_byte: exchange.first_byte,
            request_id: match record.request_id() {
                [] => RequestId::Numbered { worker, connection, request: exchange.sequence },
                id => RequestId::Given(id),
            },
            revision: record.snapshot.revision,
        });
    }

    /// A message that was not accepted.
    pub(super) fn refused(&self, refused: Refused) {
        let (source, destination) = self.connection.parties();
        self.connection.worker().telemetry.refused(&RefusedRecord {
            time: SystemTime::now(),
            direction: self.connection.direction(),
            source,
            destination,
            refused,
        });
        tracing::debug!(client = %self.connection.client(), side = refused.side(), "{}", refused.name());
    }
}

/// What the log says of an outcome.
pub(super) fn verdict(outcome: Outcome) -> Verdict {
    match outcome {
        Outcome::Allow => Verdict::Allow,
        Outcome::Audit => Verdict::Audit,
        Outcome::Deny => Verdict::Deny,
    }
}
