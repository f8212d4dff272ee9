//! All counters as one exposition in the OpenMetrics text format.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::counters::{
    CLASSES, Connections, Counter, Counters, DIRECTIONS, Histogram, LIMITS_OF_ANY, Summed,
};
use super::grpc;
use super::kafka;
use super::kernel::{self, Kernel};
use super::names::metric as name;
use super::record::{ConnectOutcome, Limit, Method, Refused, TimeoutPhase, Verdict};
use crate::endpoints::Quota;
use crate::snapshot::Snapshot;

/// Rules that get a series; a policy may have many more.
const MAX_RULES: usize = 1000;

/// A metric's name, and what it says.
type Name = (&'static str, &'static str);

/// What is exposed.
#[derive(Debug)]
pub(super) struct Sources {
    /// The proxy of one workload has one; that of a node one for each endpoint, and one for what is about
    /// none of them.
    pub(super) groups: Vec<Group>,
    pub(super) ready: bool,
    pub(super) reloads: u64,
    pub(super) reload_errors: u64,
    pub(super) lines_lost: u64,
    pub(super) started: SystemTime,
    /// `None`: nothing in the kernel feeds this proxy, or it does not answer.
    pub(super) kernel: Option<Kernel>,
}

/// The numbers of one endpoint.
#[derive(Debug)]
pub(super) struct Group {
    /// `None`: there is only one, or they are about none.
    pub(super) endpoint: Option<Arc<str>>,
    pub(super) workers: Vec<Arc<Counters>>,
    /// `None`: it has no policy.
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// What it uses of its limits, if it has any.
    pub(super) used: Option<Arc<Quota>>,
}

/// Renders everything.
pub(super) fn render(sources: Sources) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(sources));
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut to = To(encoder);
        to.gauge(name::BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))], 1.0)?;
        to.gauge(name::START_TIME, &[], seconds(self.started))?;
        to.gauge(name::READY, &[], f64::from(u8::from(self.ready)))?;
        self.http(&mut to)?;
        grpc::encode(self, &mut to)?;
        kafka::encode(self, &mut to)?;
        self.connections(&mut to)?;
        kernel::encode(self, &mut to)?;
        self.lists(&mut to)?;
        self.policy(&mut to)?;
        self.used(&mut to)?;
        to.counters(name::LOG_LOST, |family| family.add(&[], self.lines_lost))
    }
}

impl Group {
    /// One counter, summed over the workers.
    pub(super) fn sum(&self, of: impl Fn(&Counters) -> &Counter) -> u64 {
        self.workers.iter().map(|worker| of(worker).get()).fold(0, u64::wrapping_add)
    }

    fn histogram(&self, of: impl Fn(&Counters) -> &Histogram) -> Summed {
        Histogram::sum(self.workers.iter().map(|worker| of(worker)).collect::<Vec<_>>().into_iter())
    }
}

impl Sources {
    /// A counter with the series of every endpoint.
    pub(super) fn counters(
        &self,
        to: &mut To<'_>,
        name: Name,
        fill: impl Fn(&Group, &mut Family<'_>) -> fmt::Result,
    ) -> fmt::Result {
        to.counters(name, |family| {
            for group in &self.groups {
                family.of(group);
                fill(group, family)?;
            }
            Ok(())
        })
    }

    /// A histogram likewise.
    pub(super) fn histograms(
        &self,
        to: &mut To<'_>,
        name: Name,
        fill: impl Fn(&Group, &mut HistogramFamily<'_>) -> fmt::Result,
    ) -> fmt::Result {
        to.histograms(name, |family| {
            for group in &self.groups {
                family.0.of(group);
                fill(group, family)?;
            }
            Ok(())
        })
    }

    /// A gauge likewise.
    fn gauges(
        &self,
        to: &mut To<'_>,
        name: Name,
        fill: impl Fn(&Group, &mut Family<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let mut family = to.family(name, MetricType::Gauge)?;
        for group in &self.groups {
            family.of(group);
            fill(group, &mut family)?;
        }
        Ok(())
    }

    fn http(&self, to: &mut To<'_>) -> fmt::Result {
        self.counters(to, name::HTTP_DECISIONS, |group, family| {
            for (d, direction) in DIRECTIONS.iter().enumerate() {
                for (v, verdict) in Verdict::ALL.iter().enumerate() {
                    let labels = [("direction", direction.as_str()), ("verdict", verdict.as_str())];
                    family.add_if_any(&labels, group.sum(|w| &w.http[d][v].decided))?;
                }
            }
            Ok(())
        })?;
        self.counters(to, name::HTTP_REQUESTS, |group, family| {
            for (d, direction) in DIRECTIONS.iter().enumerate() {
                for (v, verdict) in Verdict::ALL.iter().enumerate() {
                    for (m, method) in Method::ALL.iter().enumerate() {
                        for (c, class) in CLASSES.iter().enumerate() {
                            let labels = [
                                ("direction", direction.as_str()),
                                ("verdict", verdict.as_str()),
                                ("method", method.as_str()),
                                ("status", class),
                            ];
                            let sum = group.sum(|w| &w.http[d][v].answered[m][c]);
                            family.add_if_any(&labels, sum)?;
                        }
                    }
                }
            }
            Ok(())
        })?;
        self.histograms(to, name::HTTP_DURATION, |group, family| {
            for (d, direction) in DIRECTIONS.iter().enumerate() {
                for (v, verdict) in Verdict::ALL.iter().enumerate() {
                    let labels = [("direction", direction.as_str()), ("verdict", verdict.as_str())];
                    family.add(&labels, group.histogram(|w| &w.http[d][v].duration))?;
                }
            }
            Ok(())
        })
    }

    fn connections(&self, to: &mut To<'_>) -> fmt::Result {
        type Part = fn(&Connections) -> &Counter;
        let counters: [(Name, Part); 5] = [
            (name::CONNECTIONS_OPENED, |c| &c.opened),
            (name::CONNECTIONS_DENIED, |c| &c.denied),
            (name::CONNECTIONS_AUDITED, |c| &c.audited),
            (name::BYTES_RECEIVED, |c| &c.received),
            (name::BYTES_SENT, |c| &c.sent),
        ];
        for (name, part) in counters {
            self.counters(to, name, |group, family| {
                for (d, direction) in DIRECTIONS.iter().enumerate() {
                    let sum = group.sum(|worker| part(&worker.connections[d]));
                    family.add(&[("direction", direction.as_str())], sum)?;
                }
                Ok(())
            })?;
        }
        self.gauges(to, name::CONNECTIONS_ACTIVE, |group, family| {
            for (d, direction) in DIRECTIONS.iter().enumerate() {
                let opened = group.sum(|worker| &worker.connections[d].opened);
                let closed = group.sum(|worker| &worker.connections[d].closed);
                let open = u32::try_from(opened.saturating_sub(closed)).unwrap_or(u32::MAX);
                family.add_gauge(&[("direction", direction.as_str())], open.into())?;
            }
            Ok(())
        })?;
        self.histograms(to, name::CONNECTION_DURATION, |group, family| {
            for (d, direction) in DIRECTIONS.iter().enumerate() {
                let histogram = group.histogram(|worker| &worker.connections[d].duration);
                family.add(&[("direction", direction.as_str())], histogram)?;
            }
            Ok(())
        })
    }

    fn lists(&self, to: &mut To<'_>) -> fmt::Result {
        self.counters(to, name::PARSE_ERRORS, |group, family| {
            for (index, refused) in Refused::all().enumerate() {
                let labels = [
                    ("protocol", refused.protocol()),
                    ("side", refused.side()),
                    ("reason", refused.name()),
                ];
                family.add_if_any(&labels, group.sum(|worker| &worker.refused[index]))?;
            }
            Ok(())
        })?;
        self.counters(to, name::UPSTREAM_CONNECTS, |group, family| {
            for (index, outcome) in ConnectOutcome::NAMES.iter().enumerate() {
                family.add(&[("outcome", outcome)], group.sum(|w| &w.upstream_connects[index]))?;
            }
            Ok(())
        })?;
        self.counters(to, name::TIMEOUTS, |group, family| {
            for (index, phase) in TimeoutPhase::NAMES.iter().enumerate() {
                family.add(&[("phase", phase)], group.sum(|worker| &worker.timeouts[index]))?;
            }
            Ok(())
        })?;
        self.counters(to, name::LIMITS_HIT, |group, family| {
            for (index, limit) in Limit::NAMES.iter().enumerate() {
                let (labels, sum) = ([("limit", *limit)], group.sum(|w| &w.limits[index]));
                match index < LIMITS_OF_ANY {
                    true => family.add(&labels, sum)?,
                    false => family.add_if_any(&labels, sum)?,
                }
            }
            Ok(())
        })
    }

    fn policy(&self, to: &mut To<'_>) -> fmt::Result {
        self.gauges(to, name::POLICY_REVISION, |group, family| match &group.snapshot {
            Some(snapshot) => {
                let revision = u32::try_from(snapshot.revision).unwrap_or(u32::MAX);
                family.add_gauge(&[], revision.into())
            }
            None => Ok(()),
        })?;
        self.gauges(to, name::POLICY_SINCE, |group, family| match &group.snapshot {
            Some(snapshot) => family.add_gauge(&[], seconds(snapshot.since)),
            None => Ok(()),
        })?;
        to.counters(name::POLICY_RELOADS, |family| family.add(&[], self.reloads))?;
        to.counters(name::POLICY_ERRORS, |family| family.add(&[], self.reload_errors))?;
        self.counters(to, name::RULE_HITS, |group, family| {
            let Some(snapshot) = &group.snapshot else { return Ok(()) };
            let rules = snapshot.policy.rules().iter().zip(snapshot.hits());
            for (rule, hits) in rules.filter(|(_, hits)| *hits > 0).take(MAX_RULES) {
                family.add(&[("policy", rule.policy()), ("rule", rule.section())], hits)?;
            }
            Ok(())
        })
    }

    /// What endpoints use of their limits, where there are many.
    fn used(&self, to: &mut To<'_>) -> fmt::Result {
        if self.groups.iter().all(|group| group.used.is_none()) {
            return Ok(());
        }
        self.gauges(to, name::ENDPOINT_BUFFERED, |group, family| match &group.used {
            Some(used) => {
                let held = u32::try_from(used.buffered()).unwrap_or(u32::MAX);
                family.add_gauge(&[], held.into())
            }
            None => Ok(()),
        })
    }
}

/// The encoder, with names as constants.
pub(super) struct To<'e>(DescriptorEncoder<'e>);

impl To<'_> {
    fn family(&mut self, (name, help): Name, kind: MetricType) -> Result<Family<'_>, fmt::Error> {
        // The library adds the suffix that OpenMetrics prescribes.
        let name = name.strip_suffix("_total").unwrap_or(name);
        Ok(Family(self.0.encode_descriptor(name, help, None, kind)?, None))
    }

    fn gauge(&mut self, name: Name, labels: &[(&str, &str)], value: f64) -> fmt::Result {
        self.family(name, MetricType::Gauge)?.add_gauge(labels, value)
    }

    pub(super) fn counters(
        &mut self,
        name: Name,
        fill: impl FnOnce(&mut Family<'_>) -> fmt::Result,
    ) -> fmt::Result {
        fill(&mut self.family(name, MetricType::Counter)?)
    }

    pub(super) fn histograms(
        &mut self,
        name: Name,
        fill: impl FnOnce(&mut HistogramFamily<'_>) -> fmt::Result,
    ) -> fmt::Result {
        fill(&mut HistogramFamily(self.family(name, MetricType::Histogram)?))
    }
}

/// One metric with its series, and whose series come now.
pub(super) struct Family<'a>(MetricEncoder<'a>, Option<Arc<str>>);

impl Family<'_> {
    /// The series that follow are this endpoint's.
    fn of(&mut self, group: &Group) {
        self.1.clone_from(&group.endpoint);
    }

    /// The encoder for a series with these labels.
    fn series<R>(
        &mut self,
        labels: &[(&str, &str)],
        encode: impl FnOnce(&mut MetricEncoder<'_>) -> Result<R, fmt::Error>,
    ) -> Result<R, fmt::Error> {
        match (&self.1, labels) {
            (None, []) => encode(&mut self.0),
            (None, labels) => encode(&mut self.0.encode_family(&Pairs(labels))?),
            (Some(endpoint), labels) => {
                let mut all = vec![("endpoint", &**endpoint)];
                all.extend_from_slice(labels);
                encode(&mut self.0.encode_family(&Pairs(&all))?)
            }
        }
    }

    pub(super) fn add(&mut self, labels: &[(&str, &str)], value: u64) -> fmt::Result {
        self.series(labels, |series| series.encode_counter::<NoExemplar, u64, u64>(&value, None))
    }

    /// Leaves out what has never happened.
    pub(super) fn add_if_any(&mut self, labels: &[(&str, &str)], value: u64) -> fmt::Result {
        if value == 0 { Ok(()) } else { self.add(labels, value) }
    }

    fn add_gauge(&mut self, labels: &[(&str, &str)], value: f64) -> fmt::Result {
        self.series(labels, |series| series.encode_gauge(&value))
    }
}

pub(super) struct HistogramFamily<'a>(Family<'a>);

impl HistogramFamily<'_> {
    pub(super) fn add(
        &mut self,
        labels: &[(&str, &str)],
        (sum, count, buckets): Summed,
    ) -> fmt::Result {
        if count == 0 {
            return Ok(());
        }
        self.0.series(labels, |series| {
            series.encode_histogram::<NoExemplar>(sum, count, &buckets, None)
        })
    }
}

type NoExemplar = Vec<(String, String)>;

/// Labels as slices.
#[derive(Debug)]
struct Pairs<'a>(&'a [(&'a str, &'a str)]);

impl EncodeLabelSet for Pairs<'_> {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        self.0.encode(encoder)
    }
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docs/observability.md` is the interface's description; nothing may be missing from it.
    #[test]
    fn every_metric_and_endpoint_is_documented() {
        let page = include_str!("../../../docs/observability.md");
        for (metric, _) in name::ALL {
            assert!(page.contains(&format!("`{metric}`")), "{metric} is not documented");
        }
        for (method, path, _) in crate::admin::ENDPOINTS {
            assert!(page.contains(&format!("| {method} | `{path}` |")), "{path} is not documented");
        }
    }
}
