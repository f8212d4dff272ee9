//! The exchanges of a pair: those that are due are carried on, and those that the client takes back are
//! counted.

use std::time::Instant;

use h2::Reason;
use portreeve_protocols::http2::Refusal;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Pair, State};
use crate::http2::Judge;
use crate::http2::exchange::{Sinks, Stand};
use crate::http2::ready::STREAMS;
use crate::http2::upstream::Connect;

/// Requests that may be taken back beyond those answered, more every second.
const CANCELLED_A_SECOND: u64 = 20;

/// Requests that a client may take back before they are answered: as many as were answered, a few more,
/// and more with time (CVE-2023-44487).
pub(super) struct Cancels {
    /// `left <= most`.
    left: u32,
    most: u32,
    at: Instant,
}

impl Cancels {
    pub(super) fn new(most: u32, now: Instant) -> Self {
        Self { left: most, most, at: now }
    }

    /// One was answered.
    fn earn(&mut self) {
        self.left = (self.left + 1).min(self.most);
    }

    /// One was taken back; `false`: one too many.
    fn spend(&mut self, now: Instant) -> bool {
        let millis = now.saturating_duration_since(self.at).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        let earned = millis.saturating_mul(CANCELLED_A_SECOND) / 1000;
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(earned).min(self.most);
            self.at = now;
        }
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or_default();
        left.is_some()
    }
}

impl<F, C, J> Pair<F, C, J>
where
    F: AsyncRead + AsyncWrite + Send + Unpin,
    C: Connect,
    J: Judge,
{
    /// Carries on the exchanges that are due; whether there were any.
    pub(super) fn poll_exchanges(&mut self, sinks: &mut Sinks) -> bool {
        let mut any = false;
        for word in 0..self.ready.words() {
            let mut due = self.ready.take_streams(word);
            while due != 0 {
                any = true;
                let part = word * 64 + due.trailing_zeros() as usize;
                due &= due - 1;
                self.poll_exchange(part, sinks);
            }
        }
        any
    }

    fn poll_exchange(&mut self, part: usize, sinks: &mut Sinks) {
        let index = part - STREAMS;
        let Some(Some(exchange)) = self.exchanges.get_mut(index) else { return };
        let judge = &mut self.judge;
        match self.ready.poll(part, |cx| exchange.poll(cx, judge, sinks)) {
            Stand::Under => self.blocked |= exchange.blocked().is_some(),
            Stand::Over => {
                self.moved = true;
                self.cancels.earn();
                self.release(index);
            }
            Stand::Cancelled => {
                self.release(index);
                self.cancelled();
            }
        }
    }

    /// The client took a request back: once too often is an attack.
    fn cancelled(&mut self) {
        if !self.cancels.spend(self.judge.now()) && self.state != State::Ending {
            self.judge.refused(Refusal::ResetFlood);
            self.end(Reason::ENHANCE_YOUR_CALM);
        }
    }

    /// All of them are to be looked at: a socket takes more again.
    pub(super) fn rouse(&self) {
        for (index, exchange) in self.exchanges.iter().enumerate() {
            if exchange.is_some() {
                self.ready.set(STREAMS + index);
            }
        }
    }

    pub(super) fn release(&mut self, index: usize) {
        self.exchanges[index] = None;
        self.free.push(index);
        self.waiting.retain(|waiting| *waiting != index);
    }
}
