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
use crate::telemetry::{GrpcCall, HttpVersion, MethodCounters, Refused, Verdict};
use crate::view::View;

/// Methods whose counters a connection keeps at hand; further ones are looked up again.
const METHODS: usize = 16;

/// Policy and telemetry of one HTTP/2 connection.
pub(super) struct Http2Session {
    policy: HttpPolicy,
    /// The path that names each, and its counters.
    methods: Vec<(Box<[u8]>, Arc<MethodCounters>)>,
}

/// What is remembered of a request until it is over.
pub(super) struct Ticket {
    exchange: Exchange,
    /// Of a gRPC call.
    method: Option<Arc<MethodCounters>>,
}

impl Http2Session {
    pub(super) fn new(policy: HttpPolicy) -> Self {
        Self { policy, methods: Vec::new() }
    }

    pub(super) fn worker(&self) -> &Worker {
        self.policy.connection.worker()
    }

    fn opened(&mut self, request: &View<'_>, verdict: Verdict) -> Option<Arc<MethodCounters>> {
        if !request.0.grpc {
            return None;
        }
        let path = request.path();
        let known = self.methods.iter().find(|(known, _)| **known == *path);
        if let Some((_, counters)) = known {
            return Some(counters.clone());
        }
        let counters = self.policy.connection.telemetry().grpc_method(path, verdict);
        if self.methods.len() < METHODS {
            self.methods.push((path.into(), counters.clone()));
        }
        Some(counters)
    }
}

impl Judge for Http2Session {
    type Ticket = Ticket;

    fn decide(&mut self, request: &Request<'_>, edits: &mut Edits) -> (Decision, Ticket) {
        let view = View(request);
        let judged = self.policy.judge(&view, &mut |edit| edits.note(edit));
        let verdict = verdict(judged.outcome());
        let exchange = self.policy.opened(&view, verdict, Some(&judged));
        let ticket = Ticket { exchange, method: self.opened(&view, verdict) };
        (if verdict == Verdict::Deny { Decision::Deny } else { Decision::Allow }, ticket)
    }

    fn answered_unasked(&mut self, request: &Request<'_>) -> Ticket {
        let view = View(request);
        let exchange = self.policy.opened(&view, Verdict::Deny, None);
        Ticket { exchange, method: self.opened(&view, Verdict::Deny) }
    }

    fn responded(&mut self, ticket: &mut Ticket) {
        self.policy.responded(&mut ticket.exchange);
    }

    fn finished(&mut self, ticket: Ticket, passed: &Passed) {
        let Ticket { exchange, method } = ticket;
        let grpc = passed.grpc.map(|grpc| GrpcCall {
            status: grpc.status,
            request_messages: grpc.request_messages,
            response_messages: grpc.response_messages,
        });
        if let (Some(method), Some(call)) = (method, &grpc) {
            let took = self.policy.connection.now.saturating_duration_since(exchange.began);
            method.count(self.policy.connection.direction(), exchange.verdict, call, took);
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
}

impl Asked for View<'_> {
    fn version(&self) -> HttpVersion {
        HttpVersion::Http2
    }
}
