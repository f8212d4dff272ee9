//! What an operator sees of Kafka: counters by API, topic, role, verdict and error.
//!
//! A worker that never sees Kafka pays one pointer for this.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use portreeve_policy::TrafficDirection;
use portreeve_protocols::kafka::{ERROR_NAMES, Role, api_name, error_name};
use rustc_hash::FxHashMap;

use super::counters::{Counter, DIRECTIONS, Histogram, place};
use super::metrics::{Sources, To};
use super::names::metric as name;
use super::record::Verdict;

/// API numbers that have counters; there are no others yet.
const APIS: usize = 96;

/// Topics that get series of their own on each worker, as long as something of them was allowed.
const ALLOWED_TOPICS: usize = 1000;

/// The same for topics of which nothing was: clients can make up names.
const DENIED_TOPICS: usize = 100;

/// Longest name of a topic that gets a series or a place in the log; Kafka's own have 249 at most.
pub(crate) const LONGEST_TOPIC: usize = 255;

/// What the topics without series of their own are called.
const OTHER: &str = "(other)";

/// Counters of one worker.
#[derive(Debug)]
pub(super) struct KafkaCounters {
    apis: [Box<[OnceLock<Box<ApiCounters>>]>; 2],
    topics: Mutex<Topics>,
    other: Arc<TopicCounters>,
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

#[derive(Debug, Default)]
struct Topics {
    by_name: FxHashMap<Box<[u8]>, Arc<TopicCounters>>,
    allowed: usize,
    denied: usize,
}

impl Default for KafkaCounters {
    fn default() -> Self {
        let apis = || (0..APIS).map(|_| OnceLock::new()).collect();
        Self { apis: [apis(), apis()], topics: Mutex::default(), other: Arc::default() }
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
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = topics.by_name.get(topic) {
            return known.clone();
        }
        let (count, most) = match verdict {
            Verdict::Deny => (&mut topics.denied, DENIED_TOPICS),
            Verdict::Allow | Verdict::Audit => (&mut topics.allowed, ALLOWED_TOPICS),
        };
        if *count >= most || topic.len() > LONGEST_TOPIC {
            return self.other.clone();
        }
        *count += 1;
        let counters = Arc::<TopicCounters>::default();
        topics.by_name.insert(topic.into(), counters.clone());
        counters
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
    let workers: Vec<&KafkaCounters> =
        sources.workers.iter().filter_map(|worker| worker.kafka.get().map(Box::as_ref)).collect();
    if workers.is_empty() {
        return Ok(());
    }
    let sum = |d: usize, key: usize, of: &dyn Fn(&ApiCounters) -> &Counter| -> u64 {
        let seen = workers.iter().filter_map(|worker| worker.apis[d][key].get());
        seen.map(|api| of(api).get()).fold(0, u64::wrapping_add)
    };
    // Numbers of APIs with a name, and those names.
    let apis = || (0..APIS).filter_map(|key| Some((key, api_name(i16::try_from(key).ok()?)?)));
    to.counters(name::KAFKA_REQUESTS, |family| {
        for (d, direction) in DIRECTIONS.iter().enumerate() {
            for (key, (api, role)) in apis() {
                for (v, verdict) in Verdict::ALL.iter().enumerate() {
                    let labels = [
                        ("direction", direction.as_str()),
                        ("api", api),
                        ("role", role.as_str()),
                        ("verdict", verdict.as_str()),
                    ];
                    family.add_if_any(&labels, sum(d, key, &|api| &api.decided[v]))?;
                }
            }
        }
        Ok(())
    })?;
    to.counters(name::KAFKA_RESPONSES, |family| {
        for (d, direction) in DIRECTIONS.iter().enumerate() {
            for (key, (api, _)) in apis() {
                for code in 0..=ERROR_NAMES {
                    let code = i16::try_from(code).unwrap_or(i16::MAX);
                    let labels = [
                        ("direction", direction.as_str()),
                        ("api", api),
                        ("error", error_name(code)),
                    ];
                    family.add_if_any(&labels, sum(d, key, &|api| api.error(code)))?;
                }
            }
        }
        Ok(())
    })?;
    to.histograms(name::KAFKA_DURATION, |family| {
        for (d, direction) in DIRECTIONS.iter().enumerate() {
            for (key, (api, _)) in apis() {
                let seen: Vec<_> =
                    workers.iter().filter_map(|worker| worker.apis[d][key].get()).collect();
                let labels = [("direction", direction.as_str()), ("api", api)];
                family.add(&labels, Histogram::sum(seen.iter().map(|api| &api.duration)))?;
            }
        }
        Ok(())
    })?;
    encode_topics(&workers, to)
}

fn encode_topics(workers: &[&KafkaCounters], to: &mut To<'_>) -> fmt::Result {
    let mut topics: FxHashMap<String, Vec<Arc<TopicCounters>>> = FxHashMap::default();
    for worker in workers {
        let known = worker.topics.lock().unwrap_or_else(PoisonError::into_inner);
        for (topic, counters) in &known.by_name {
            let topic = String::from_utf8_lossy(topic).into_owned();
            topics.entry(topic).or_default().push(counters.clone());
        }
        topics.entry(OTHER.to_owned()).or_default().push(worker.other.clone());
    }
    let mut topics: Vec<_> = topics.into_iter().collect();
    topics.sort_by(|(a, _), (b, _)| a.cmp(b));
    to.counters(name::KAFKA_TOPICS, |family| {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_topics_do_not_make_up_series() {
        let counters = KafkaCounters::default();
        for n in 0..5000 {
            let topic = format!("made-up-{n}");
            let topic = counters.topic(topic.as_bytes(), Verdict::Deny);
            topic.count(TrafficDirection::Ingress, Role::Produce, Verdict::Deny);
        }
        assert_eq!(counters.topics.lock().expect("the lock").by_name.len(), DENIED_TOPICS);
        assert_eq!(counters.other.0[0][0][Verdict::Deny as usize].get(), 4900);
        let real = counters.topic(b"orders", Verdict::Allow);
        assert!(!Arc::ptr_eq(&real, &counters.other), "denials leave room for what is allowed");
    }
}
