//! The session of an inspected HTTP/2 connection: what the pairing asks, answered by policy, and calls
//! counted by gRPC method.

use std::sync::Arc;

use portreeve_policy::{Action, HttpRequest};
use portreeve_protocols::http1;
use portreeve_protocols::http2::{Refusal, Request};

use super::Connection;
use super::http::{Answered, Asked, HttpPolicy, verdict};
use super::in_flight::Exchange;
use super::session::Inspect;
use crate::http2::{Decision, Edits, Judge, Passed};
use crate::runtime::Worker;
use crate::telemetry::{GrpcCall, HttpVersion, MethodCounters, Refused, Verdict, WorkerTelemetry};
use crate::view::View;

/// Methods whose counters a connection keeps at hand; further ones are looked up again.
const METHODS: usize = 16;

/// Longest path that is kept with them: both names of the longest that get a series.
const LONGEST_PATH: usize = 512;

/// Policy and telemetry of one HTTP/2 connection.
pub(super) struct Http2Session {
    policy: HttpPolicy,
    /// The path that names each, and its counters.
    methods: Vec<(Box<[u8]>, Arc<MethodCounters>)>,
    /// Those of the other end, if that is an endpoint, too.
    far_methods: Vec<(Box<[u8]>, Arc<MethodCounters>)>,
    /// Bytes that are kept for the log of the requests under way.
    kept: usize,
}

/// What is remembered of a request until it is over.
pub(super) struct Ticket {
    exchange: Exchange,
    /// Of a gRPC call.
    method: Option<Arc<MethodCounters>>,
    /// The same of the other end, if that was asked.
    far_method: Option<Arc<MethodCounters>>,
}

impl Http2Session {
    pub(super) fn new(policy: HttpPolicy) -> Self {
        Self { policy, methods: Vec::new(), far_methods: Vec::new(), kept: 0 }
    }

    pub(super) fn worker(&self) -> &Worker {
        self.policy.connection.worker()
    }

    fn ticket(&mut self, request: &View<'_>, verdict: Verdict, exchange: Exchange) -> Ticket {
        self.kept += exchange.kept();
        if !request.0.grpc {
            return Ticket { exchange, method: None, far_method: None };
        }
        let (path, connection) = (request.path(), &self.policy.connection);
        let near = method(&mut self.methods, path, verdict, connection.telemetry());
        let far_method =
            exchange.far.as_ref().zip(connection.far()).map(|(by, far)| {
                method(&mut self.far_methods, path, by.verdict, far.side.telemetry())
            });
        Ticket { exchange, method: Some(near), far_method }
    }
}

/// The counters of a method, from those at hand if they are there.
fn method(
    at_hand: &mut Vec<(Box<[u8]>, Arc<MethodCounters>)>,
    path: &[u8],
    verdict: Verdict,
    telemetry: &WorkerTelemetry,
) -> Arc<MethodCounters> {
    let known = at_hand.iter().find(|(known, _)| **known == *path);
    if let Some((_, counters)) = known {
        return counters.clone();
    }
    let counters = telemetry.grpc_method(path, verdict);
    // Of denied ones clients can make up as many as they like.
    if verdict != Verdict::Deny && at_hand.len() < METHODS && path.len() <= LONGEST_PATH {
        at_hand.push((path.into(), counters.clone()));
    }
    counters
}

impl Judge for Http2Session {
    type Ticket = Ticket;

    fn decide(&mut self, request: &Request<'_>, edits: &mut Edits) -> (Decision, Ticket) {
        let view = View(request);
        let judged = self.policy.judge(&view, &mut |edit| edits.note(edit));
        let verdict = verdict(judged.outcome());
        let exchange = self.policy.opened(&view, verdict, Some(&judged));
        let ticket = self.ticket(&view, verdict, exchange);
        (if verdict == Verdict::Deny { Decision::Deny } else { Decision::Allow }, ticket)
    }

    fn answered_unasked(&mut self, request: &Request<'_>) -> Ticket {
        let view = View(request);
        let exchange = self.policy.opened(&view, Verdict::Deny, None);
        self.ticket(&view, Verdict::Deny, exchange)
    }

    fn responded(&mut self, ticket: &mut Ticket) {
        self.policy.responded(&mut ticket.exchange);
    }

    fn finished(&mut self, ticket: Ticket, passed: &Passed) {
        let Ticket { exchange, method, far_method } = ticket;
        self.kept -= exchange.kept();
        let grpc = passed.grpc.map(|grpc| GrpcCall {
            status: grpc.status,
            request_messages: grpc.request_messages,
            response_messages: grpc.response_messages,
        });
        let connection = &self.policy.connection;
        let took = || connection.now.saturating_duration_since(exchange.began);
        if let (Some(method), Some(call)) = (method, &grpc) {
            method.count(connection.direction(), exchange.verdict, call, took());
        }
        if let (Some(method), Some(by), Some(far), Some(call)) =
            (far_method, &exchange.far, connection.far(), &grpc)
        {
            method.count(far.side.direction, by.verdict, call, took());
        }
        let Passed { status, local, request_bytes, response_bytes, .. } = *passed;
        let answered = Answered { status, local, request_bytes, response_bytes, grpc };
        self.policy.report(&exchange, &answered);
    }

    fn refused_head(&mut self, refusal: http1::Refusal) {
        self.policy.refused(Refused::Http2Head(refusal));
    }

    fn refused(&mut self, refusal: Refusal) {
        self.policy.refused(Refused::Http2(refusal));
    }
}

impl Inspect for Http2Session {
    fn connection(&self) -> &Connection {
        &self.policy.connection
    }

    fn connection_mut(&mut self) -> &mut Connection {
        &mut self.policy.connection
    }

    fn adopt(&mut self, action: Action) -> bool {
        self.policy.adopt(action)
    }

    fn suits(far: &Action) -> bool {
        HttpPolicy::suits(far)
    }

    fn held(&self) -> usize {
        self.kept
    }
}

impl Asked for View<'_> {
    fn version(&self) -> HttpVersion {
        HttpVersion::Http2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::Observing;
    use crate::telemetry::{AccessLogConfig, AccessLogMode, Telemetry};

    #[test]
    fn methods_that_were_denied_or_have_long_names_are_not_kept() {
        let config = AccessLogConfig { mode: AccessLogMode::Off, ..Default::default() };
        let telemetry = Telemetry::new(&config, Observing::default()).expect("no file").worker();
        let mut methods = Vec::new();
        method(&mut methods, b"/made.Up/Name", Verdict::Deny, &telemetry);
        method(&mut methods, &[b'a'; LONGEST_PATH + 1], Verdict::Allow, &telemetry);
        assert_eq!(methods.len(), 0);
        let first = method(&mut methods, b"/shop.Orders/Get", Verdict::Allow, &telemetry);
        assert!(Arc::ptr_eq(&methods[0].1, &first));
    }
}
