//! What an operator sees of gRPC: counters by service and method, verdict and status.
//!
//! A worker that never sees gRPC pays one pointer for this.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use portreeve_policy::TrafficDirection;
use portreeve_protocols::http2::grpc::{STATUS_NAMES, names, status_name};

use super::counters::{Counter, DIRECTIONS, Histogram, place};
use super::metrics::{Group, Sources, To};
use super::names::metric as name;
use super::record::{GrpcCall, Verdict};
use super::series::Series;

/// Statuses, then one for numbers without a name and one for calls without a status.
const STATUSES: usize = STATUS_NAMES + 2;

/// Who sends a message, as the label says it.
const SENDERS: [&str; 2] = ["client", "server"];

/// Counters of one worker.
#[derive(Debug, Default)]
pub(super) struct GrpcCounters {
    methods: Series<MethodCounters>,
}

/// Counters of one method, in either direction.
#[derive(Debug, Default)]
pub(crate) struct MethodCounters([Calls; 2]);

#[derive(Debug, Default)]
struct Calls {
    answered: [[Counter; STATUSES]; Verdict::ALL.len()],
    messages: [Counter; SENDERS.len()],
    duration: Histogram,
}

impl MethodCounters {
    /// Counts a call that is over. Only the worker that the counters are of calls it.
    pub(crate) fn count(
        &self,
        direction: TrafficDirection,
        verdict: Verdict,
        call: &GrpcCall,
        took: Duration,
    ) {
        let calls = &self.0[place(direction)];
        let status = call.status.map_or(STATUSES - 1, |code| usize::from(code).min(STATUS_NAMES));
        calls.answered[verdict as usize][status].add(1);
        calls.messages[0].add(call.request_messages);
        calls.messages[1].add(call.response_messages);
        calls.duration.observe(took);
    }
}

impl GrpcCounters {
    /// The counters of the method that a path names.
    pub(super) fn method(&self, path: &[u8], verdict: Verdict) -> Arc<MethodCounters> {
        self.methods.get(path, verdict)
    }
}

/// Writes the gRPC metrics, if there was any gRPC.
pub(super) fn encode(sources: &Sources, to: &mut To<'_>) -> fmt::Result {
    if sources.groups.iter().all(|group| of(group).next().is_none()) {
        return Ok(());
    }
    sources.counters(to, name::GRPC_REQUESTS, |group, family| {
        for method in &methods(group) {
            for (d, direction) in DIRECTIONS.iter().enumerate() {
                for (v, verdict) in Verdict::ALL.iter().enumerate() {
                    for s in 0..STATUSES {
                        let [direction, service, name] = method.labels(direction.as_str());
                        let labels = [
                            direction,
                            service,
                            name,
                            ("verdict", verdict.as_str()),
                            ("status", label(s)),
                        ];
                        family.add_if_any(&labels, method.sum(d, |calls| &calls.answered[v][s]))?;
                    }
                }
            }
        }
        Ok(())
    })?;
    sources.counters(to, name::GRPC_MESSAGES, |group, family| {
        for method in &methods(group) {
            for (d, direction) in DIRECTIONS.iter().enumerate() {
                for (s, sender) in SENDERS.iter().enumerate() {
                    let [direction, service, name] = method.labels(direction.as_str());
                    let labels = [direction, service, name, ("sender", sender)];
                    family.add_if_any(&labels, method.sum(d, |calls| &calls.messages[s]))?;
                }
            }
        }
        Ok(())
    })?;
    sources.histograms(to, name::GRPC_DURATION, |group, family| {
        for method in &methods(group) {
            for (d, direction) in DIRECTIONS.iter().enumerate() {
                let durations = method.counters.iter().map(|counters| &counters.0[d].duration);
                family.add(&method.labels(direction.as_str()), Histogram::sum(durations))?;
            }
        }
        Ok(())
    })
}

/// The counters of those workers that have seen gRPC.
fn of(group: &Group) -> impl Iterator<Item = &GrpcCounters> + Clone {
    group.workers.iter().filter_map(|worker| worker.grpc.get().map(Box::as_ref))
}

fn methods(group: &Group) -> Vec<Method> {
    let methods = Series::joined(of(group).map(|worker| &worker.methods));
    methods.into_iter().map(Method::new).collect()
}

/// A method with its counters on all workers.
struct Method {
    path: String,
    counters: Vec<Arc<MethodCounters>>,
}

impl Method {
    fn new((path, counters): (String, Vec<Arc<MethodCounters>>)) -> Self {
        Self { path, counters }
    }

    fn labels<'m>(&'m self, direction: &'m str) -> [(&'static str, &'m str); 3] {
        let (service, method) = names(&self.path).unwrap_or((&self.path, ""));
        [("direction", direction), ("service", service), ("method", method)]
    }

    fn sum(&self, direction: usize, of: impl Fn(&Calls) -> &Counter) -> u64 {
        let counts = self.counters.iter().map(|counters| of(&counters.0[direction]).get());
        counts.fold(0, u64::wrapping_add)
    }
}

fn label(status: usize) -> &'static str {
    match u8::try_from(status) {
        Ok(code) if status < STATUSES - 1 => status_name(code),
        _ => "(none)",
    }
}
