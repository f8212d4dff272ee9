//! All counters as one exposition in the OpenMetrics text format.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::counters::{
    CLASSES, Connections, Counter, Counters, DIRECTIONS, Histogram, LIMITS, Summed,
};
use super::grpc;
use super::kafka;
use super::kernel;
use super::names::metric as name;
use super::record::{ConnectOutcome, Method, Refused, TimeoutPhase, Verdict};
use crate::redirection::KernelCounters;
use crate::snapshot::Snapshot;

/// Rules that get a series; a policy may have many more.
const MAX_RULES: usize = 1000;

/// A metric's name, and what it says.
type Name = (&'static str, &'static str);

/// What is exposed.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) workers: Vec<Arc<Counters>>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) ready: bool,
    pub(super) reloads: u64,
    pub(super) reload_errors: u64,
    pub(super) lines_lost: u64,
    pub(super) started: SystemTime,
    /// `None`: nothing in the kernel feeds this proxy, or it does not answer.
    pub(super) kernel: Option<KernelCounters>,
}

/// Renders everything.
pub(super) fn render(sources: &Sources) -> String {
    let mut registry = Registry::default();
    let sources = Sources {
        workers: sources.workers.clone(),
        snapshot: sources.snapshot.clone(),
        ..*sources
    };
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
        to.counters(name::LOG_LOST, |family| family.add(&[], self.lines_lost))
    }
}

impl Sources {
    /// One counter, summed over the workers.
    fn sum(&self, of: impl Fn(&Counters) -> &Counter) -> u64 {
        self.workers.iter().map(|worker| of(worker).get()).fold(0, u64::wrapping_add)
    }

    fn histogram(&self, of: impl Fn(&Counters) -> &Histogram) -> Summed {
        Histogram::sum(self.workers.iter().map(|worker| of(worker)).collect::<Vec<_>>().into_iter())
    }

    fn http(&self, to: &mut To<'_>) -> fmt::Result {
        to.counters(name::HTTP_DECISIONS, |family| {
            for (d, direction) in DIRECTIONS.iter().enumerate() {
                for (v, verdict) in Verdict::ALL.iter().enumerate() {
                    let labels = [("direction", direction.as_str()), ("verdict", verdict.as_str())];
                    family.add_if_any(&labels, self.sum(|w| &w.http[d][v].decided))?;
                }
            }
            Ok(())
        })?;
        to.counters(name::HTTP_REQUESTS, |family| {
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
                            let sum = self.sum(|w| &w.http[d][v].answered[m][c]);
                            family.add_if_any(&labels, sum)?;
                        }
                    }
                }
            }
            Ok(())
        })?;
        to.histograms(name::HTTP_DURATION, |family| {
            for (d, direction) in DIRECTIONS.iter().enumerate() {
                for (v, verdict) in Verdict::ALL.iter().enumerate() {
                    let labels = [("direction", direction.as_str()), ("verdict", verdict.as_str())];
                    family.add(&labels, self.histogram(|w| &w.http[d][v].duration))?;
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
            to.counters(name, |family| {
                for (d, direction) in DIRECTIONS.iter().enumerate() {
                    let sum = self.sum(|worker| part(&worker.connections[d]));
                    family.add(&[("direction", direction.as_str())], sum)?;
                }
                Ok(())
            })?;
        }
        let mut active = to.family(name::CONNECTIONS_ACTIVE, MetricType::Gauge)?;
        for (d, direction) in DIRECTIONS.iter().enumerate() {
            let opened = self.sum(|worker| &worker.connections[d].opened);
            let closed = self.sum(|worker| &worker.connections[d].closed);
            let open = u32::try_from(opened.saturating_sub(closed)).unwrap_or(u32::MAX);
            active.add_gauge(&[("direction", direction.as_str())], open.into())?;
        }
        to.histograms(name::CONNECTION_DURATION, |family| {
            for (d, direction) in DIRECTIONS.iter().enumerate() {
                let histogram = self.histogram(|worker| &worker.connections[d].duration);
                family.add(&[("direction", direction.as_str())], histogram)?;
            }
            Ok(())
        })
    }

    fn lists(&self, to: &mut To<'_>) -> fmt::Result {
        to.counters(name::PARSE_ERRORS, |family| {
            for (index, refused) in Refused::all().enumerate() {
                let labels = [
                    ("protocol", refused.protocol()),
                    ("side", refused.side()),
                    ("reason", refused.name()),
                ];
                family.add_if_any(&labels, self.sum(|worker| &worker.refused[index]))?;
            }
            Ok(())
        })?;
        to.counters(name::UPSTREAM_CONNECTS, |family| {
            for (index, outcome) in ConnectOutcome::NAMES.iter().enumerate() {
                family.add(&[("outcome", outcome)], self.sum(|w| &w.upstream_connects[index]))?;
            }
            Ok(())
        })?;
        to.counters(name::TIMEOUTS, |family| {
            for (index, phase) in TimeoutPhase::NAMES.iter().enumerate() {
                family.add(&[("phase", phase)], self.sum(|worker| &worker.timeouts[index]))?;
            }
            Ok(())
        })?;
        to.counters(name::LIMITS_HIT, |family| {
            for (index, limit) in LIMITS.iter().enumerate() {
                family.add(&[("limit", limit)], self.sum(|worker| &worker.limits[index]))?;
            }
            Ok(())
        })
    }

    fn policy(&self, to: &mut To<'_>) -> fmt::Result {
        let revision = u32::try_from(self.snapshot.revision).unwrap_or(u32::MAX);
        to.gauge(name::POLICY_REVISION, &[], revision.into())?;
        to.gauge(name::POLICY_SINCE, &[], seconds(self.snapshot.since))?;
        to.counters(name::POLICY_RELOADS, |family| family.add(&[], self.reloads))?;
        to.counters(name::POLICY_ERRORS, |family| family.add(&[], self.reload_errors))?;
        to.counters(name::RULE_HITS, |family| {
            let rules = self.snapshot.policy.rules().iter().zip(self.snapshot.hits());
            for (rule, hits) in rules.filter(|(_, hits)| *hits > 0).take(MAX_RULES) {
                family.add(&[("policy", rule.policy()), ("rule", rule.section())], hits)?;
            }
            Ok(())
        })
    }
}

/// The encoder, with names as constants.
pub(super) struct To<'e>(DescriptorEncoder<'e>);

impl To<'_> {
    fn family(&mut self, (name, help): Name, kind: MetricType) -> Result<Family<'_>, fmt::Error> {
        // The library adds the suffix that OpenMetrics prescribes.
        let name = name.strip_suffix("_total").unwrap_or(name);
        Ok(Family(self.0.encode_descriptor(name, help, None, kind)?))
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

/// One metric with its series.
pub(super) struct Family<'a>(MetricEncoder<'a>);

impl Family<'_> {
    pub(super) fn add(&mut self, labels: &[(&str, &str)], value: u64) -> fmt::Result {
        match labels {
            [] => self.0.encode_counter::<NoExemplar, u64, u64>(&value, None),
            _ => self
                .0
                .encode_family(&Pairs(labels))?
                .encode_counter::<NoExemplar, u64, u64>(&value, None),
        }
    }

    /// Leaves out what has never happened.
    pub(super) fn add_if_any(&mut self, labels: &[(&str, &str)], value: u64) -> fmt::Result {
        if value == 0 { Ok(()) } else { self.add(labels, value) }
    }

    fn add_gauge(&mut self, labels: &[(&str, &str)], value: f64) -> fmt::Result {
        match labels {
            [] => self.0.encode_gauge(&value),
            _ => self.0.encode_family(&Pairs(labels))?.encode_gauge(&value),
        }
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
        self.0
            .0
            .encode_family(&Pairs(labels))?
            .encode_histogram::<NoExemplar>(sum, count, &buckets, None)
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
