//! What an operator sees of Kafka: counters by API, topic, role, verdict and error.
//!
//! A worker that never sees Kafka pays one pointer for this.

use std::fmt;
use std::sync::{Arc, OnceLock};

use portreeve_policy::TrafficDirection;
use portreeve_protocols::kafka::{ERROR_NAMES, Role, api_name, error_name};

use super::counters::{Counter, DIRECTIONS, Histogram, place};
use super::metrics::{Group, Sources, To};
use super::names::metric as name;
use super::record::Verdict;
use super::series::{self, Series};

/// API numbers that have counters; there are no others yet.
const APIS: usize = 96;

/// Longest name of a topic that gets a place in the log; Kafka's own have 249 at most.
pub(crate) const LONGEST_TOPIC: usize = series::LONGEST_NAME;

/// Counters of one worker.
#[derive(Debug)]
pub(super) struct KafkaCounters {
    apis: [Box<[OnceLock<Box<ApiCounters>>]>; 2],
    topics: Series<TopicCounters>,
}

/// Counters of one API in one direction.
#[derive(Debug)]
pub(super) struct ApiCounters {
    pub(super) decided: [Counter; Verdict::ALL.len()],
    pub(super) duration: Histogram,
    /// By error code; the last one is for codes without a name.
    errors: [Counter; ERROR_NAMES + 1],
}

/// Decisions about one topic.
#[derive(Debug, Default)]
pub(crate) struct TopicCounters([[[Counter; Verdict::ALL.len()]; Role::ALL.len()]; 2]);

impl TopicCounters {
    /// Counts a decision. Only the worker that the counters are of calls it.
    pub(crate) fn count(&self, direction: TrafficDirection, role: Role, verdict: Verdict) {
        self.0[place(direction)][role as usize][verdict as usize].add(1);
    }
}

impl Default for KafkaCounters {
    fn default() -> Self {
        let apis = || (0..APIS).map(|_| OnceLock::new()).collect();
        Self { apis: [apis(), apis()], topics: Series::default() }
    }
}

impl KafkaCounters {
    pub(super) fn api(&self, direction: TrafficDirection, key: i16) -> &ApiCounters {
        let index = usize::try_from(key).unwrap_or(APIS).min(APIS - 1);
        self.apis[place(direction)][index].get_or_init(|| {
            Box::new(ApiCounters {
                decided: Default::default(),
                duration: Histogram::default(),
                errors: std::array::from_fn(|_| Counter::default()),
            })
        })
    }

    /// The counters of a topic. Takes a lock: to be kept for as long as the connection lives.
    pub(super) fn topic(&self, topic: &[u8], verdict: Verdict) -> Arc<TopicCounters> {
        self.topics.get(topic, verdict)
    }
}

impl ApiCounters {
    pub(super) fn error(&self, code: i16) -> &Counter {
        let index = usize::try_from(code).unwrap_or(ERROR_NAMES).min(ERROR_NAMES);
        &self.errors[index]
    }
}

/// Writes the Kafka metrics, if there was any Kafka.
pub(super) fn encode(sources: &Sources, to: &mut To<'_>) -> fmt::Result {
    if sources.groups.iter().all(|group| of(group).next().is_none()) {
        return Ok(());
    }
    // Numbers of APIs with a name, and those names.
    let apis = || (0..APIS).filter_map(|key| Some((key, api_name(i16::try_from(key).ok()?)?)));
    sources.counters(to, name::KAFKA_REQUESTS, |group, family| {
        for (d, direction) in DIRECTIONS.iter().enumerate() {
            for (key, (api, role)) in apis() {
                for (v, verdict) in Verdict::ALL.iter().enumerate() {
                    let labels = [
                        ("direction", direction.as_str()),
                        ("api", api),
                        ("role", role.as_str()),
                        ("verdict", verdict.as_str()),
                    ];
                    family.add_if_any(&labels, sum(group, d, key, &|api| &api.decided[v]))?;
                }
            }
        }
        Ok(())
    })?;
    sources.counters(to, name::KAFKA_RESPONSES, |group, family| {
        for (d, direction) in DIRECTIONS.iter().enumerate() {
            for (key, (api, _)) in apis() {
                for code in 0..=ERROR_NAMES {
                    let code = i16::try_from(code).unwrap_or(i16::MAX);
                    let labels = [
                        ("direction", direction.as_str()),
                        ("api", api),
                        ("error", error_name(code)),
                    ];
                    family.add_if_any(&labels, sum(group, d, key, &|api| api.error(code)))?;
                }
            }
        }
        Ok(())
    })?;
    sources.histograms(to, name::KAFKA_DURATION, |group, family| {
        for (d, direction) in DIRECTIONS.iter().enumerate() {
            for (key, (api, _)) in apis() {
                let seen: Vec<_> =
                    of(group).filter_map(|worker| worker.apis[d][key].get()).collect();
                let labels = [("direction", direction.as_str()), ("api", api)];
                family.add(&labels, Histogram::sum(seen.iter().map(|api| &api.duration)))?;
            }
        }
        Ok(())
    })?;
    encode_topics(sources, to)
}

/// The counters of those workers that have seen Kafka.
fn of(group: &Group) -> impl Iterator<Item = &KafkaCounters> + Clone {
    group.workers.iter().filter_map(|worker| worker.kafka.get().map(Box::as_ref))
}

fn sum(group: &Group, d: usize, key: usize, part: &dyn Fn(&ApiCounters) -> &Counter) -> u64 {
    let seen = of(group).filter_map(|worker| worker.apis[d][key].get());
    seen.map(|api| part(api).get()).fold(0, u64::wrapping_add)
}

fn encode_topics(sources: &Sources, to: &mut To<'_>) -> fmt::Result {
    sources.counters(to, name::KAFKA_TOPICS, |group, family| {
        let topics = Series::joined(of(group).map(|worker| &worker.topics));
        for (topic, counters) in &topics {
            for (d, direction) in DIRECTIONS.iter().enumerate() {
                for (r, role) in Role::ALL.iter().enumerate() {
                    for (v, verdict) in Verdict::ALL.iter().enumerate() {
                        let labels = [
                            ("direction", direction.as_str()),
                            ("topic", topic.as_str()),
                            ("role", role.as_str()),
                            ("verdict", verdict.as_str()),
                        ];
                        let sum = counters.iter().map(|counters| counters.0[d][r][v].get()).sum();
                        family.add_if_any(&labels, sum)?;
                    }
                }
            }
        }
        Ok(())
    })
}
