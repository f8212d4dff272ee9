//! HTTP requests as policy queries and as reports, whatever their version.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portreeve_policy::{
    Action, HeaderEdit, HttpRequest, HttpRules, Outcome, RequestVerdict, RuleId,
};

use super::Connection;
use super::in_flight::{ByFar, Exchange, Record};
use super::reading::{self, Ruled};
use crate::snapshot::Snapshot;
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

/// What the policies of a connection say of one of its requests.
pub(super) struct Judged {
    near: RequestVerdict,
    /// `None`: there is no other end with a policy, or it was not asked any more.
    far: Option<RequestVerdict>,
}

impl Judged {
    /// What comes of it: denied if either denies.
    pub(super) fn outcome(&self) -> Outcome {
        let Some(far) = &self.far else { return self.near.outcome };
        match (self.near.outcome, far.outcome) {
            (Outcome::Deny, _) | (_, Outcome::Deny) => Outcome::Deny,
            (Outcome::Audit, _) | (_, Outcome::Audit) => Outcome::Audit,
            (Outcome::Allow, Outcome::Allow) => Outcome::Allow,
        }
    }
}

impl From<RequestVerdict> for Judged {
    fn from(near: RequestVerdict) -> Self {
        Self { near, far: None }
    }
}

/// Policy and telemetry of one HTTP connection.
pub(super) struct HttpPolicy {
    pub(super) connection: Connection,
    /// The near policy's; `None`: it allows the connection without looking inside.
    rules: Option<Arc<HttpRules>>,
    requests: u64,
}

impl HttpPolicy {
    pub(super) fn new(connection: Connection, rules: Option<Arc<HttpRules>>) -> Self {
        Self { connection, rules, requests: 0 }
    }

    /// Judges by the policy in force now, which may be newer than the connection. Where both ends have
    /// one, both judge what the client has sent: the near one first, the far one only what that allows.
    pub(super) fn judge(
        &mut self,
        request: &impl HttpRequest,
        edit: &mut impl FnMut(HeaderEdit<'_>),
    ) -> Judged {
        if self.connection.outdated() {
            let action = self.connection.renew().action;
            let near = self.adopt(action);
            let far = self.connection.far().is_none_or(|far| Self::suits(&far.verdict.action));
            self.connection.goes_on(near, far);
        }
        if self.connection.near_revoked() {
            return RequestVerdict::denied_connection().into();
        }
        let near = match &self.rules {
            None => RequestVerdict::allowed_connection(),
            Some(rules) => rules.decide(request, edit),
        };
        match self.connection.far() {
            Some(far) if near.outcome != Outcome::Deny => {
                let far = match reading::http(&far.verdict.action) {
                    _ if far.side.revoked => RequestVerdict::denied_connection(),
                    Ruled::Freely => RequestVerdict::allowed_connection(),
                    Ruled::By(rules) => rules.decide(request, edit),
                    Ruled::Not => RequestVerdict::denied_connection(),
                };
                Judged { near, far: Some(far) }
            }
            _ => near.into(),
        }
    }

    /// Takes on what a new near policy says of the connection; `false`: that it may not go on.
    pub(super) fn adopt(&mut self, action: Action) -> bool {
        match reading::http(&action) {
            Ruled::Freely => self.rules = None,
            Ruled::By(rules) => self.rules = Some(rules.clone()),
            Ruled::Not => return false,
        }
        true
    }

    /// Whether it may go on with what a far policy says of it.
    pub(super) fn suits(far: &Action) -> bool {
        !matches!(reading::http(far), Ruled::Not)
    }

    /// A request has been judged; `by` is `None` for what the proxy answers whatever policy says.
    pub(super) fn opened(
        &mut self,
        request: &impl Asked,
        verdict: Verdict,
        by: Option<&Judged>,
    ) -> Exchange {
        self.requests += 1;
        let near = by.map(|by| &by.near);
        let verdict = near.map_or(verdict, |near| self::verdict(near.outcome));
        let telemetry = self.connection.telemetry();
        let snapshot = self.connection.snapshot();
        let rule = near.and_then(|by| by.rule);
        telemetry.http_decided(self.connection.direction(), verdict);
        if let Some(rule) = rule {
            snapshot.count(rule);
        }
        let far = by.and_then(|by| by.far).and_then(|by| self.opened_far(&by));
        let wanted = telemetry.wants(verdict)
            || far.as_ref().is_some_and(|far| telemetry.wants(far.verdict));
        let record = wanted.then(|| Record::new(request, snapshot.clone()));
        Exchange {
            began: self.connection.now,
            first_byte: None,
            verdict,
            method: Method::from(request.method()),
            rule,
            reason: near.map_or("answered_by_proxy", |by| by.reason.as_str()),
            sequence: self.requests,
            version: request.version(),
            record,
            far,
        }
    }

    fn opened_far(&self, by: &RequestVerdict) -> Option<ByFar> {
        let side = &self.connection.far()?.side;
        let verdict = verdict(by.outcome);
        side.telemetry().http_decided(side.direction, verdict);
        if let Some(rule) = by.rule {
            side.snapshot.count(rule);
        }
        let snapshot = side.snapshot.clone();
        Some(ByFar { verdict, rule: by.rule, reason: by.reason.as_str(), snapshot })
    }

    /// The head of its answer is on its way.
    pub(super) fn responded(&self, exchange: &mut Exchange) {
        exchange.first_byte = Some(self.connection.now.saturating_duration_since(exchange.began));
    }

    /// It is over: each endpoint that judged it reports it, with its own verdict.
    pub(super) fn report(&self, exchange: &Exchange, answered: &Answered) {
        let telemetry = self.connection.telemetry();
        let direction = self.connection.direction();
        let (verdict, method) = (exchange.verdict, exchange.method);
        let duration = self.connection.now.saturating_duration_since(exchange.began);
        telemetry.http_answered(direction, verdict, method, answered.status, duration);
        if let Some(record) = &exchange.record {
            let mut entry = self.entry(exchange, record, answered, duration);
            entry.name(&record.snapshot, exchange.rule);
            telemetry.http_logged(&entry);
        }
        if let Some(by) = &exchange.far {
            self.report_far(exchange, by, answered, duration);
        }
    }

    fn report_far(&self, exchange: &Exchange, by: &ByFar, answered: &Answered, took: Duration) {
        let Some(far) = self.connection.far() else { return };
        let (telemetry, direction) = (far.side.telemetry(), far.side.direction);
        telemetry.http_answered(direction, by.verdict, exchange.method, answered.status, took);
        let Some(record) = &exchange.record else { return };
        let mut entry = self.entry(exchange, record, answered, took);
        (entry.direction, entry.verdict, entry.reason) = (direction, by.verdict, by.reason);
        (entry.source, entry.destination) = self.connection.far_parties_in(far, &by.snapshot);
        entry.name(&by.snapshot, by.rule);
        telemetry.http_logged(&entry);
    }

    /// What the log says of it, as the near side sees it, but for the rule.
    fn entry<'a>(
        &'a self,
        exchange: &Exchange,
        record: &'a Record,
        answered: &Answered,
        duration: Duration,
    ) -> HttpRecord<'a> {
        let (source, destination) = self.connection.parties_in(&record.snapshot);
        let (worker, connection) = self.connection.number();
        HttpRecord {
            time: SystemTime::now(),
            direction: self.connection.direction(),
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
            rule: "",
            policy: "",
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
        }
    }

    /// A message that was not accepted.
    pub(super) fn refused(&self, refused: Refused) {
        let (source, destination) = self.connection.parties();
        self.connection.telemetry().refused(&RefusedRecord {
            time: SystemTime::now(),
            direction: self.connection.direction(),
            source,
            destination,
            refused,
        });
        tracing::debug!(client = %self.connection.client(), side = refused.side(), "{}", refused.name());
    }
}

impl<'a> HttpRecord<'a> {
    /// Names the rule that decided, and the policy that it is of.
    fn name(&mut self, snapshot: &'a Snapshot, rule: Option<RuleId>) {
        if let Some(rule) = rule.map(|rule| snapshot.policy.rule(rule)) {
            (self.rule, self.policy) = (rule.section(), rule.policy());
        }
        self.revision = snapshot.revision;
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
