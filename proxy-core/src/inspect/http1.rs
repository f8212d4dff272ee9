//! The session of an inspected HTTP/1.1 connection: what the gate asks, answered by policy.

use std::sync::Arc;

use portreeve_policy::{Action, HeaderEdit, HttpRequest, HttpRules};
use portreeve_protocols::http1::{
    self, Decision, Exchange as Exchanged, Handler, HeadEdits, Refusal, Request,
};

use super::Connection;
use super::http::{Answered, Asked, HttpPolicy, verdict};
use super::in_flight::InFlight;
use super::session::Inspect;
use crate::telemetry::{HttpVersion, Refused, Verdict};

/// Policy and telemetry of one HTTP/1.1 connection.
pub(super) struct HttpSession {
    policy: HttpPolicy,
    in_flight: InFlight,
}

impl HttpSession {
    pub(super) fn new(connection: Connection, rules: Option<Arc<HttpRules>>) -> Self {
        Self { policy: HttpPolicy::new(connection, rules), in_flight: InFlight::default() }
    }

    /// For a connection that turns out to speak another version.
    pub(super) fn into_policy(self) -> HttpPolicy {
        self.policy
    }
}

impl Handler for HttpSession {
    fn decide(&mut self, request: &Request<'_>, edits: &mut HeadEdits) -> Decision {
        let view = View(request);
        let judged = self.policy.judge(&view, &mut |edit| match edit {
            HeaderEdit::Add { name, value } => edits.add(name, value.as_bytes()),
            HeaderEdit::Remove { name } => edits.remove(name),
            HeaderEdit::Replace { name, value } => edits.replace(name, value.as_bytes()),
        });
        let verdict = verdict(judged.outcome());
        self.in_flight.push(self.policy.opened(&view, verdict, Some(&judged)));
        if verdict == Verdict::Deny { Decision::Deny } else { Decision::Allow }
    }

    fn answered_unasked(&mut self, request: &Request<'_>, _: u16) {
        self.in_flight.push(self.policy.opened(&View(request), Verdict::Deny, None));
    }

    fn responded(&mut self, _: u16) {
        if let Some(exchange) = self.in_flight.front() {
            self.policy.responded(exchange);
        }
    }

    fn finished(&mut self, exchanged: &Exchanged) {
        if let Some(exchange) = self.in_flight.pop() {
            let Exchanged { status, local, request_bytes, response_bytes } = *exchanged;
            let answered = Answered { status, local, request_bytes, response_bytes, grpc: None };
            self.policy.report(&exchange, &answered);
        }
    }

    fn refused(&mut self, refusal: Refusal) {
        self.policy.refused(Refused::Http1(refusal));
    }
}

impl Inspect for HttpSession {
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
        self.in_flight.held()
    }

    fn give_up(&mut self) {
        while let Some(exchange) = self.in_flight.pop() {
            let cut = Answered {
                status: 0,
                local: false,
                request_bytes: 0,
                response_bytes: 0,
                grpc: None,
            };
            self.policy.report(&exchange, &cut);
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

impl Asked for View<'_> {
    fn version(&self) -> HttpVersion {
        if self.0.minor_version == 0 { HttpVersion::Http10 } else { HttpVersion::Http11 }
    }
}
