//! The server's side of a pair: the upstream connection, and those that are going away.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Pair, State};
use crate::http2::Judge;
use crate::http2::ready::{BACK, STREAMS};
use crate::http2::upstream::{Connect, Event, RETIRED, Upstream};
use crate::relay::End;

impl<F, C, J> Pair<F, C, J>
where
    F: AsyncRead + AsyncWrite + Send + Unpin,
    C: Connect,
    J: Judge,
{
    /// Carries the upstream connections on.
    pub(super) fn poll_back(&mut self) -> Option<End> {
        self.poll_retired();
        if self.state == State::Finishing {
            return self.retired.is_empty().then_some(End::Closed);
        }
        let upstream = &mut self.upstream;
        match self.ready.poll(BACK, |cx| upstream.poll(cx)) {
            Event::Nothing => {}
            Event::Opened => {
                self.judge.upstream_opened();
                self.ready.set(BACK);
            }
            Event::Failed(error) => {
                self.judge.upstream_failed(&error);
                self.answer_waiting(503);
            }
            Event::Leaving => {
                let leaving = std::mem::replace(&mut self.upstream, Upstream::Absent);
                self.retired.push(leaving);
                self.answer_waiting(503);
                self.server_left = true;
                if self.retired.len() > RETIRED {
                    self.leave();
                }
            }
            Event::Ended(refusal) => {
                if let Some(refusal) = refusal {
                    self.judge.refused(refusal);
                }
                self.written += self.upstream.written();
                self.upstream = Upstream::Absent;
                self.answer_waiting(502);
                self.server_left = true;
            }
        }
        self.ask_waiting();
        None
    }

    /// Answers what waits for an upstream connection that is lost.
    fn answer_waiting(&mut self, status: u16) {
        for index in std::mem::take(&mut self.waiting) {
            if let Some(exchange) = &mut self.exchanges[index] {
                exchange.answer(status, &mut self.judge);
                self.ready.set(STREAMS + index);
            }
        }
    }

    fn poll_retired(&mut self) {
        let Self { ready, written, judge, retired, .. } = self;
        retired.retain_mut(|upstream| {
            let Event::Ended(refusal) = ready.poll(BACK, |cx| upstream.poll(cx)) else {
                return true;
            };
            if let Some(refusal) = refusal {
                judge.refused(refusal);
            }
            *written += upstream.written();
            false
        });
    }

    /// Sends the heads that wait for the upstream connection, and opens it for the first.
    pub(super) fn ask_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        if self.upstream.is_absent() {
            let connecting = self.connect.connect(self.judge.upstream());
            self.upstream = Upstream::open(connecting, &self.limits);
            self.ready.set(BACK);
        }
        // Whether the server takes extended CONNECT is in its SETTINGS.
        let Some((requests, settled)) = self.upstream.requests() else { return };
        let tunnels = requests.is_extended_connect_protocol_enabled();
        let mut waiting = std::mem::take(&mut self.waiting);
        let before = waiting.len();
        waiting.retain(|&index| {
            let Some(exchange) = &mut self.exchanges[index] else { return false };
            if exchange.is_tunnel() && !tunnels {
                if !settled {
                    return true;
                }
                exchange.answer(501, &mut self.judge);
            } else {
                exchange.ask(requests, &mut self.judge);
            }
            self.ready.set(STREAMS + index);
            false
        });
        // What still waits for SETTINGS is looked at when they have woken the connection.
        if waiting.len() < before {
            self.ready.set(BACK);
        }
        self.waiting = waiting;
    }
}
