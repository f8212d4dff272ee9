//! What an operator sees: the access log and the metrics.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`Telemetry`]: one a proxy, with a `WorkerTelemetry` for each worker |
//! | `record.rs` | what is reported, as values |
//! | `counters.rs` | a worker's counters: written by one thread, read by any |
//! | `kafka.rs` | counters and metrics of Kafka |
//! | `kernel.rs` | metrics of decisions inside of the kernel |
//! | `grpc.rs` | counters and metrics of gRPC |
//! | `series.rs` | counters by names that clients make up, as many as there is room for |
//! | `metrics.rs` | all counters as one Prometheus exposition |
//! | `access_log.rs` | a line a request: JSON |
//! | `observed.rs` | what an observer is told: the same records |
//! | `log_writer.rs` | the thread that writes lines out |
//! | `names.rs` | names of metrics, labels and log fields: an interface |
//!
//! On the way of a request nothing here locks, allocates (once buffers are warm) or waits.

mod access_log;
mod counters;
mod grpc;
mod kafka;
mod kernel;
mod log_writer;
mod metrics;
pub mod names;
mod observed;
mod record;
mod series;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use portreeve_policy::{Protocol, TrafficDirection};

pub use self::access_log::{AccessLogConfig, AccessLogMode, Sink};
use self::counters::Counters;
pub(crate) use self::grpc::MethodCounters;
pub(crate) use self::kafka::{LONGEST_TOPIC, TopicCounters};
use self::kernel::Kernel;
use self::log_writer::LogWriter;
pub use self::log_writer::TelemetryError;
use self::metrics::Group;
pub(crate) use self::record::{
    ByKernel, ConnectOutcome, ConnectionRecord, ConnectionStats, GrpcCall, HttpRecord, HttpVersion,
    KafkaRecord, Limit, LimitRecord, LoggedTopics, Method, Party, Refused, RefusedRecord,
    RequestId, TimeoutPhase, Verdict,
};
use crate::endpoints::Endpoints;
use crate::observer::{Flow, Observing};
use crate::redirection::{KernelCounters, KernelDecision, KernelVerdict, NodeKernelCounters};
use crate::snapshot::Snapshot;

/// Log and metrics of one proxy.
#[derive(Debug)]
pub struct Telemetry {
    mode: Arc<access_log::Switch>,
    query: bool,
    writer: LogWriter,
    observer: Observing,
    workers: EndpointCounters,
    reloads: AtomicU64,
    reload_errors: AtomicU64,
    started: SystemTime,
}

impl Telemetry {
    pub(crate) fn new(
        config: &AccessLogConfig,
        observer: Observing,
    ) -> Result<Arc<Self>, TelemetryError> {
        Ok(Arc::new(Self {
            mode: Arc::new(access_log::Switch::new(config.mode)),
            query: config.query,
            writer: LogWriter::start(&config.sink)?,
            observer,
            workers: EndpointCounters::default(),
            reloads: AtomicU64::new(0),
            reload_errors: AtomicU64::new(0),
            started: SystemTime::now(),
        }))
    }

    /// The part of one worker.
    pub(crate) fn worker(&self) -> Arc<WorkerTelemetry> {
        self.counting_for(None, &self.workers)
    }

    /// The part of one worker that is about one endpoint of a node.
    pub(crate) fn worker_of(
        &self,
        endpoint: &Arc<str>,
        counters: &EndpointCounters,
    ) -> Arc<WorkerTelemetry> {
        self.counting_for(Some(endpoint.clone()), counters)
    }

    fn counting_for(
        &self,
        endpoint: Option<Arc<str>>,
        all: &EndpointCounters,
    ) -> Arc<WorkerTelemetry> {
        Arc::new(WorkerTelemetry {
            counters: all.add(),
            endpoint,
            mode: self.mode.clone(),
            query: self.query,
            lines: self.writer.sender(),
            observer: self.observer.clone(),
        })
    }

    pub(crate) fn policy_reloaded(&self, succeeded: bool) {
        let counter = if succeeded { &self.reloads } else { &self.reload_errors };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// What the access log takes down now.
    pub(crate) fn access_log_mode(&self) -> AccessLogMode {
        self.mode.get()
    }

    pub(crate) fn set_access_log_mode(&self, mode: AccessLogMode) {
        self.mode.set(mode);
    }

    /// All metrics in the OpenMetrics text format, for the proxy of one workload.
    pub(crate) fn render_metrics(
        &self,
        snapshot: &Arc<Snapshot>,
        ready: bool,
        kernel: Option<KernelCounters>,
    ) -> String {
        let kernel = kernel.map(Kernel::OfWorkload);
        let alone = Group {
            endpoint: None,
            workers: self.workers.all(),
            snapshot: Some(snapshot.clone()),
            used: None,
        };
        self.render(vec![alone], ready, kernel)
    }

    /// The same for the endpoints of a node. Those that are gone have no series any more.
    pub(crate) fn render_node_metrics(
        &self,
        endpoints: &Endpoints,
        ready: bool,
        kernel: Option<NodeKernelCounters>,
    ) -> String {
        let nobodys =
            Group { endpoint: None, workers: self.workers.all(), snapshot: None, used: None };
        let mut groups = vec![nobodys];
        endpoints.for_each(|known| {
            groups.push(Group {
                endpoint: Some(known.name.clone()),
                workers: known.counters.all(),
                snapshot: Some(known.snapshots.load()),
                used: Some(known.quota.clone()),
            });
        });
        self.render(groups, ready, kernel.map(Kernel::OfNode))
    }

    fn render(&self, groups: Vec<Group>, ready: bool, kernel: Option<Kernel>) -> String {
        metrics::render(metrics::Sources {
            groups,
            ready,
            reloads: self.reloads.load(Ordering::Relaxed),
            reload_errors: self.reload_errors.load(Ordering::Relaxed),
            lines_lost: self.writer.lost(),
            started: self.started,
            kernel,
        })
    }

    /// Opens the log file again, after it was moved away.
    pub(crate) fn reopen(&self) {
        self.writer.reopen();
    }

    /// Writes out what is left; nothing is logged after.
    pub(crate) fn shutdown(&self) {
        self.writer.stop();
    }
}

/// The counters of one endpoint, those of each worker that has met it.
#[derive(Debug, Default)]
pub(crate) struct EndpointCounters(Mutex<Vec<Arc<Counters>>>);

impl EndpointCounters {
    fn add(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters::default());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(counters.clone());
        counters
    }

    fn all(&self) -> Vec<Arc<Counters>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Log and counters of one worker thread, for one endpoint.
#[derive(Debug)]
pub(crate) struct WorkerTelemetry {
    counters: Arc<Counters>,
    /// `None`: the proxy has only one, or it is about none.
    endpoint: Option<Arc<str>>,
    mode: Arc<access_log::Switch>,
    query: bool,
    lines: log_writer::Lines,
    observer: Observing,
}

impl WorkerTelemetry {
    pub(crate) fn connection_opened(&self, direction: TrafficDirection) {
        self.counters.connection(direction).opened.add(1);
    }

    pub(crate) fn connection_closed(&self, direction: TrafficDirection, stats: &ConnectionStats) {
        let counters = self.counters.connection(direction);
        counters.closed.add(1);
        counters.received.add(stats.received);
        counters.sent.add(stats.sent);
        counters.duration.observe(stats.duration);
    }

    /// A connection denied, or one that an audited policy would have denied.
    pub(crate) fn connection_judged(&self, record: &ConnectionRecord<'_>) {
        let counters = self.counters.connection(record.direction);
        match record.verdict {
            Verdict::Deny => counters.denied.add(1),
            Verdict::Audit => counters.audited.add(1),
            Verdict::Allow => {}
        }
        if self.logs(record.verdict) {
            self.log(|line, of| access_log::write_connection(line, of, record));
        }
        self.tell(|| Flow::from(record));
    }

    /// A connection that was decided inside of the kernel. What is turned to the proxy is told to the
    /// observer when that has judged it.
    pub(crate) fn kernel_decided(&self, record: &ConnectionRecord<'_>, decision: &KernelDecision) {
        if self.logs(record.verdict) {
            self.log(|line, of| access_log::write_connection(line, of, record));
        }
        if decision.verdict == KernelVerdict::Denied {
            self.counters.kernel().of(decision.direction, decision.reason).add(1);
            self.tell(|| Flow::from(record));
        }
    }

    /// The same of a node, where a connection that passes is told of, too, and is worth a line if a policy
    /// in audit mode would deny it. One over TCP is turned to the proxy then, which tells of it. Whether there is a line to be written; it is, if it `may` be.
    pub(crate) fn node_kernel_decided(
        &self,
        record: &ConnectionRecord<'_>,
        decision: &KernelDecision,
        may: bool,
    ) -> bool {
        match record.verdict {
            Verdict::Allow => return false,
            Verdict::Audit if decision.protocol == Protocol::Tcp => return false,
            Verdict::Deny => self.counters.kernel().of(decision.direction, decision.reason).add(1),
            Verdict::Audit => self.counters.connection(record.direction).audited.add(1),
        }
        let is_logged = self.logs(record.verdict);
        if is_logged && may {
            self.log(|line, of| access_log::write_connection(line, of, record));
        }
        self.tell(|| Flow::from(record));
        is_logged
    }

    /// So many of the kernel's decisions are not in the log, because they were too many.
    pub(crate) fn left_out(&self, count: u64) {
        self.lines.append(|line| access_log::write_left_out(line, SystemTime::now(), count));
    }

    /// A connection that passes unseen: for the observer alone. `record` is made if there is one.
    pub(crate) fn connection_passed<'a>(&self, record: impl FnOnce() -> ConnectionRecord<'a>) {
        if self.observer.is_on() {
            let record = record();
            self.observer.tell(|| Flow { endpoint: self.endpoint(), ..Flow::from(&record) });
        }
    }

    /// Tells the observer, if there is one.
    fn tell<'a>(&'a self, flow: impl FnOnce() -> Flow<'a>) {
        self.observer.tell(|| Flow { endpoint: self.endpoint(), ..flow() });
    }

    fn endpoint(&self) -> &str {
        self.endpoint.as_deref().unwrap_or_default()
    }

    /// Adds a line to the access log.
    fn log(&self, write: impl FnOnce(&mut Vec<u8>, Option<&str>)) {
        self.lines.append(|line| write(line, self.endpoint.as_deref()));
    }

    /// Whether a request of this verdict is told to anybody.
    pub(crate) fn wants(&self, verdict: Verdict) -> bool {
        self.observer.is_on() || self.logs(verdict)
    }

    fn logs(&self, verdict: Verdict) -> bool {
        match self.mode.get() {
            AccessLogMode::Off => false,
            AccessLogMode::All => true,
            AccessLogMode::Denied => verdict != Verdict::Allow,
        }
    }

    pub(crate) fn http_decided(&self, direction: TrafficDirection, verdict: Verdict) {
        self.counters.http_decided(direction, verdict).add(1);
    }

    pub(crate) fn http_answered(
        &self,
        direction: TrafficDirection,
        verdict: Verdict,
        method: Method,
        status: u16,
        duration: Duration,
    ) {
        self.counters.http_answered(direction, verdict, method, status).add(1);
        self.counters.http_duration(direction, verdict).observe(duration);
    }

    pub(crate) fn http_logged(&self, record: &HttpRecord<'_>) {
        if self.logs(record.verdict) {
            self.log(|line, of| access_log::write_http(line, of, record, self.query));
        }
        self.tell(|| Flow::from(record));
    }

    /// The counters of a gRPC method, by the path that names it; to be kept by the connection.
    pub(crate) fn grpc_method(&self, path: &[u8], verdict: Verdict) -> Arc<MethodCounters> {
        self.counters.grpc().method(path, verdict)
    }

    pub(crate) fn kafka_decided(&self, direction: TrafficDirection, key: i16, verdict: Verdict) {
        self.counters.kafka().api(direction, key).decided[verdict as usize].add(1);
    }

    pub(crate) fn kafka_answered(
        &self,
        direction: TrafficDirection,
        key: i16,
        error: i16,
        duration: Duration,
    ) {
        let api = self.counters.kafka().api(direction, key);
        api.error(error).add(1);
        api.duration.observe(duration);
    }

    /// The counters of a topic, to be kept by the connection.
    pub(crate) fn kafka_topic(&self, topic: &[u8], verdict: Verdict) -> Arc<TopicCounters> {
        self.counters.kafka().topic(topic, verdict)
    }

    pub(crate) fn kafka_logged(&self, record: &KafkaRecord<'_>) {
        if self.logs(record.verdict) {
            self.log(|line, of| access_log::write_kafka(line, of, record));
        }
        self.tell(|| Flow::from(record));
    }

    /// A message that was not accepted.
    pub(crate) fn refused(&self, record: &RefusedRecord<'_>) {
        self.counters.refused(record.refused).add(1);
        if self.mode.get() != AccessLogMode::Off {
            self.log(|line, of| access_log::write_refused(line, of, record));
        }
        self.tell(|| Flow::from(record));
    }

    pub(crate) fn upstream_connect(&self, outcome: ConnectOutcome) {
        self.counters.upstream_connects[outcome as usize].add(1);
    }

    pub(crate) fn timeout(&self, phase: TimeoutPhase) {
        self.counters.timeouts[phase as usize].add(1);
    }

    /// A connection refused because of a limit of the proxy, or for want of a destination.
    pub(crate) fn limit_hit(&self, record: &LimitRecord) {
        self.counters.limit(record.limit).add(1);
        self.tell(|| Flow::from(record));
    }

    /// Hands the lines of this thread to the writer.
    pub(crate) fn flush(&self) {
        self.lines.flush();
    }
}
