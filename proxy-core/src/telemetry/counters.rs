//! A worker's counters. One thread writes, so that counting is a load and a store without a lock
//! prefix; any thread may read.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::grpc::GrpcCounters;
use super::kafka::KafkaCounters;
use super::kernel::KernelDenials;
use super::record::{ConnectOutcome, Limit, Method, Refused, TimeoutPhase, Verdict};
use portreeve_policy::TrafficDirection;

/// A number that only its own worker raises.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the duration buckets in microseconds: 100 µs to 60 s.
pub(super) const BUCKETS: [u64; 17] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 60_000_000,
];

/// A histogram as it is exposed: the sum in seconds, the number, and the number in each bucket.
pub(super) type Summed = (f64, u64, Vec<(f64, u64)>);

fn to_seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

/// How long things took.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// The last one is for what is longer than every bound.
    pub(super) buckets: [Counter; BUCKETS.len() + 1],
    pub(super) sum_micros: Counter,
}

impl Histogram {
    /// Several as one: the sum in seconds, the number, and the number in each bucket.
    pub(super) fn sum<'h>(parts: impl Iterator<Item = &'h Self> + Clone) -> Summed {
        let total = |of: &dyn Fn(&Self) -> &Counter| -> u64 {
            parts.clone().map(|part| of(part).get()).fold(0, u64::wrapping_add)
        };
        let mut buckets = Vec::new();
        for (index, bound) in BUCKETS.iter().map(Some).chain([None]).enumerate() {
            let bound = bound.map_or(f64::MAX, |micros| to_seconds(*micros));
            buckets.push((bound, total(&|part| &part.buckets[index])));
        }
        let count = buckets.iter().map(|(_, count)| count).sum();
        (to_seconds(total(&|part| &part.sum_micros)), count, buckets)
    }

    pub(super) fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BUCKETS.partition_point(|bound| *bound < micros)].add(1);
        self.sum_micros.add(micros);
    }
}

/// Status classes: none, 1xx to 5xx.
pub(super) const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Those of [`Limit::NAMES`] that any proxy knows; the others are a node's, and are shown if there are any.
pub(super) const LIMITS_OF_ANY: usize = 2;

/// Counters of the connections of one direction.
#[derive(Debug, Default)]
pub(super) struct Connections {
    pub(super) opened: Counter,
    pub(super) closed: Counter,
    pub(super) denied: Counter,
    pub(super) audited: Counter,
    pub(super) received: Counter,
    pub(super) sent: Counter,
    pub(super) duration: Histogram,
}

/// Counters of the requests of one direction and verdict.
#[derive(Debug, Default)]
pub(super) struct Requests {
    pub(super) decided: Counter,
    pub(super) answered: [[Counter; CLASSES.len()]; Method::ALL.len()],
    pub(super) duration: Histogram,
}

/// All counters of one worker.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) connections: [Connections; 2],
    pub(super) http: [[Requests; Verdict::ALL.len()]; 2],
    /// Made when the first call comes.
    pub(super) grpc: OnceLock<Box<GrpcCounters>>,
    /// Made when the first request comes.
    pub(super) kafka: OnceLock<Box<KafkaCounters>>,
    /// Made when the kernel tells of a first denial.
    pub(super) kernel: OnceLock<Box<KernelDenials>>,
    /// By the index in [`Refused::all`].
    pub(super) refused: Box<[Counter]>,
    pub(super) upstream_connects: [Counter; ConnectOutcome::NAMES.len()],
    pub(super) timeouts: [Counter; TimeoutPhase::NAMES.len()],
    pub(super) limits: [Counter; Limit::NAMES.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            connections: Default::default(),
            http: Default::default(),
            grpc: OnceLock::new(),
            kafka: OnceLock::new(),
            kernel: OnceLock::new(),
            refused: Refused::all().map(|_| Counter::default()).collect(),
            upstream_connects: Default::default(),
            timeouts: Default::default(),
            limits: Default::default(),
        }
    }
}

pub(super) const DIRECTIONS: [TrafficDirection; 2] =
    [TrafficDirection::Ingress, TrafficDirection::Egress];

/// The index of a direction in [`DIRECTIONS`].
pub(super) fn place(direction: TrafficDirection) -> usize {
    usize::from(direction == TrafficDirection::Egress)
}

impl Counters {
    pub(super) fn connection(&self, direction: TrafficDirection) -> &Connections {
        &self.connections[place(direction)]
    }

    fn requests(&self, direction: TrafficDirection, verdict: Verdict) -> &Requests {
        &self.http[place(direction)][verdict as usize]
    }

    pub(super) fn http_decided(&self, direction: TrafficDirection, verdict: Verdict) -> &Counter {
        &self.requests(direction, verdict).decided
    }

    pub(super) fn http_answered(
        &self,
        direction: TrafficDirection,
        verdict: Verdict,
        method: Method,
        status: u16,
    ) -> &Counter {
        let class = usize::from(status / 100).min(CLASSES.len() - 1);
        &self.requests(direction, verdict).answered[method as usize][class]
    }

    pub(super) fn http_duration(
        &self,
        direction: TrafficDirection,
        verdict: Verdict,
    ) -> &Histogram {
        &self.requests(direction, verdict).duration
    }

    pub(super) fn grpc(&self) -> &GrpcCounters {
        self.grpc.get_or_init(Box::default)
    }

    pub(super) fn kafka(&self) -> &KafkaCounters {
        self.kafka.get_or_init(Box::default)
    }

    pub(super) fn kernel(&self) -> &KernelDenials {
        self.kernel.get_or_init(Box::default)
    }

    pub(super) fn refused(&self, reason: Refused) -> &Counter {
        let place = Refused::all().position(|refused| refused == reason);
        &self.refused[place.unwrap_or_default()]
    }

    pub(super) fn limit(&self, limit: Limit) -> &Counter {
        &self.limits[limit as usize]
    }
}
