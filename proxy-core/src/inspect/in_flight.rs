//! Requests whose answer has not passed yet, in order, with what the access log will say of them.
//!
//! The queue is borrowed from a per-thread pool while requests are under way, and its text
//! buffers are used again: no allocation per request, nothing held by an idle connection.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portreeve_policy::{HttpRequest, RuleId};

use crate::snapshot::Snapshot;
use crate::telemetry::{HttpVersion, Method, Verdict};

/// Queues and texts kept for the next connection.
const POOLED: usize = 64;

/// A text buffer larger than this is given back to the allocator.
const POOLED_TEXT: usize = 16 * 1024;

thread_local! {
    #[expect(clippy::vec_box, reason = "connections hold the box; it moves as it is")]
    static QUEUES: RefCell<Vec<Box<Queue>>> = const { RefCell::new(Vec::new()) };
    static TEXTS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

type Queue = VecDeque<Exchange>;

/// A request under way.
pub(super) struct Exchange {
    pub(super) began: Instant,
    pub(super) first_byte: Option<Duration>,
    pub(super) verdict: Verdict,
    pub(super) method: Method,
    pub(super) rule: Option<RuleId>,
    pub(super) reason: &'static str,
    pub(super) sequence: u64,
    pub(super) version: HttpVersion,
    /// `Some` if it will be logged.
    pub(super) record: Option<Record>,
    /// What the other end's policy said, if that has one.
    pub(super) far: Option<ByFar>,
}

impl Exchange {
    /// Bytes that are kept for the log.
    pub(super) fn kept(&self) -> usize {
        self.record.as_ref().map_or(0, |record| record.text.capacity())
    }
}

/// What the far side's policy said of a request.
pub(super) struct ByFar {
    pub(super) verdict: Verdict,
    pub(super) rule: Option<RuleId>,
    pub(super) reason: &'static str,
    /// It was judged by.
    pub(super) snapshot: Arc<Snapshot>,
}

/// What the log needs of a request that is gone from the buffers.
pub(super) struct Record {
    /// The policy that it was judged by.
    pub(super) snapshot: Arc<Snapshot>,
    text: Vec<u8>,
    method_end: usize,
    host_end: usize,
    path_end: usize,
}

impl Record {
    pub(super) fn new(request: &impl HttpRequest, snapshot: Arc<Snapshot>) -> Self {
        let mut text = TEXTS.with_borrow_mut(Vec::pop).unwrap_or_default();
        text.extend_from_slice(request.method());
        let method_end = text.len();
        text.extend_from_slice(request.host());
        let host_end = text.len();
        text.extend_from_slice(request.path());
        let path_end = text.len();
        if let Some(id) = request.header_values("x-request-id").next() {
            text.extend_from_slice(&id[..id.len().min(128)]);
        }
        Self { snapshot, text, method_end, host_end, path_end }
    }

    pub(super) fn method(&self) -> &[u8] {
        &self.text[..self.method_end]
    }

    pub(super) fn host(&self) -> &[u8] {
        &self.text[self.method_end..self.host_end]
    }

    pub(super) fn path(&self) -> &[u8] {
        &self.text[self.host_end..self.path_end]
    }

    /// The client's `X-Request-Id`, empty if it sent none.
    pub(super) fn request_id(&self) -> &[u8] {
        &self.text[self.path_end..]
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        if text.capacity() <= POOLED_TEXT {
            TEXTS.with_borrow_mut(|texts| {
                if texts.len() < POOLED {
                    texts.push(text);
                }
            });
        }
    }
}

/// The requests of one connection, oldest first.
#[derive(Default)]
pub(super) struct InFlight(Option<Box<Queue>>);

impl InFlight {
    pub(super) fn push(&mut self, exchange: Exchange) {
        let take = || QUEUES.with_borrow_mut(Vec::pop).unwrap_or_default();
        self.0.get_or_insert_with(take).push_back(exchange);
    }

    /// Bytes that are kept for the log while requests are pipelined. Of one alone there is but a head.
    pub(super) fn held(&self) -> usize {
        match &self.0 {
            Some(queue) if queue.len() > 1 => queue.iter().map(Exchange::kept).sum(),
            _ => 0,
        }
    }

    /// The oldest one.
    pub(super) fn front(&mut self) -> Option<&mut Exchange> {
        self.0.as_mut()?.front_mut()
    }

    pub(super) fn pop(&mut self) -> Option<Exchange> {
        let queue = self.0.as_mut()?;
        let exchange = queue.pop_front();
        if queue.is_empty()
            && let Some(queue) = self.0.take()
        {
            QUEUES.with_borrow_mut(|queues| {
                if queues.len() < POOLED {
                    queues.push(queue);
                }
            });
        }
        exchange
    }
}
