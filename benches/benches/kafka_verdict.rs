//! What the gate and the policy engine cost a Kafka request, without sockets: read, judged topic by
//! topic, and its answer followed.
//!
//! `cargo bench -p portreeve-benches --bench kafka_verdict`
#![expect(missing_docs, reason = "criterion's macro writes a public function without any")]

use std::hint::black_box;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader,
    TopicName,
};
use kafka_protocol::protocol::{Encodable, HeaderVersion, Request as _, StrBytes};
use portreeve_policy::{
    Action, Directory, Endpoint, EndpointPolicy, Inspection, KafkaRequest, KafkaRules, Options,
    Outcome, Protocol, Repository, Source, TrafficDirection,
};
use portreeve_protocols::gate::{Direction, Gate, Op};
use portreeve_protocols::kafka::{
    Decided, Exchange, Handler, Kafka, Limits, Refusal, Request, Subject,
};

/// Asks the rules, as the proxy does.
struct Judge {
    rules: Arc<KafkaRules>,
    key: i16,
    version: i16,
}

struct View<'a>(&'a Judge, &'a Subject<'a>);

impl KafkaRequest for View<'_> {
    fn api_key(&self) -> i16 {
        self.0.key
    }
    fn api_version(&self) -> i16 {
        self.0.version
    }
    fn client_id(&self) -> &[u8] {
        b"bench"
    }
    fn topics(&self) -> impl Iterator<Item = &[u8]> {
        self.1.topic.into_iter()
    }
}

impl Handler for Judge {
    fn begin(&mut self, request: &Request<'_>) {
        (self.key, self.version) = (request.api_key, request.version);
    }
    fn allows(&mut self, subject: &Subject<'_>) -> bool {
        self.rules.decide(&View(self, subject)).outcome != Outcome::Deny
    }
    fn may(&mut self, _: &Subject<'_>) -> bool {
        true
    }
    fn decided(&mut self, decided: &Decided) {
        black_box(decided);
    }
    fn shows(&mut self, _: &Request<'_>, _: &Subject<'_>) -> bool {
        true
    }
    fn finished(&mut self, exchange: &Exchange) {
        black_box(exchange);
    }
    fn refused(&mut self, refusal: Refusal) {
        panic!("{refusal}");
    }
    fn distinguishes_groups(&self) -> bool {
        false
    }
    fn revision(&self) -> u64 {
        1
    }
}

/// Rules for as many topics.
fn rules(topics: usize) -> Arc<KafkaRules> {
    let rules: String = (0..topics)
        .map(|n| {
            format!(
                "        - {{role: produce, topic: topic-{n}}}\n        - {{role: consume, topic: topic-{n}}}\n"
            )
        })
        .collect();
    let policy = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: kafka}}\nspec:\n  \
         endpointSelector: {{matchLabels: {{app: kafka}}}}\n  ingress:\n  - toPorts:\n    \
         - ports: [{{port: '9092', protocol: TCP}}]\n      rules:\n        kafka:\n{rules}"
    );
    let source = Source { name: "policy.yaml".to_owned(), text: policy };
    let repository = Repository::parse([source]).expect("a policy");
    let endpoint = Endpoint::new("kafka", "default", "app=kafka".parse().expect("labels"));
    let directory = Directory::default();
    let policy = EndpointPolicy::resolve(&repository, &endpoint, &directory, &Options::default());
    let policy = policy.expect("resolved");
    let peer = policy.identify([10, 0, 0, 1].into());
    let verdict = policy.connection(TrafficDirection::Ingress, peer, Protocol::Tcp, 9092);
    match verdict.action {
        Action::Inspect(Inspection::Kafka(rules)) => rules,
        other => panic!("{other:?}"),
    }
}

fn name(n: usize) -> TopicName {
    TopicName(StrBytes::from_string(format!("topic-{n}")))
}

fn produce(topics: usize) -> Vec<u8> {
    let topic = |n| {
        let partition =
            PartitionProduceData::default().with_records(Some(Bytes::from(vec![1; 1024])));
        TopicProduceData::default().with_name(name(n)).with_partition_data(vec![partition])
    };
    let request =
        ProduceRequest::default().with_acks(-1).with_topic_data((0..topics).map(topic).collect());
    frame(&request, ProduceRequest::KEY, 9)
}

fn fetch(topics: usize) -> Vec<u8> {
    let topic = |n| {
        let partition = FetchPartition::default();
        FetchTopic::default().with_topic(name(n)).with_partitions(vec![partition])
    };
    let request = FetchRequest::default()
        .with_session_epoch(-1)
        .with_topics((0..topics).map(topic).collect());
    frame(&request, FetchRequest::KEY, 12)
}

fn frame<R: Encodable + HeaderVersion>(request: &R, key: i16, version: i16) -> Vec<u8> {
    let mut out = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(key)
        .with_request_api_version(version)
        .with_correlation_id(1)
        .encode(&mut out, R::header_version(version))
        .expect("a header");
    request.encode(&mut out, version).expect("a request");
    with_length(&out)
}

fn answer<R: Encodable + HeaderVersion + Default>(version: i16) -> Vec<u8> {
    let mut out = BytesMut::new();
    ResponseHeader::default()
        .with_correlation_id(1)
        .encode(&mut out, R::header_version(version))
        .expect("a header");
    R::default().encode(&mut out, version).expect("a response");
    with_length(&out)
}

fn with_length(frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).expect("short");
    [&length.to_be_bytes(), frame].concat()
}

fn verdicts(criterion: &mut Criterion) {
    for known in [10, 10_000] {
        let mut group = criterion.benchmark_group(format!("{known} topics in rules"));
        let mut judge = Judge { rules: rules(known), key: 0, version: 0 };
        for topics in [1, 10] {
            for (what, request, response) in [
                ("produce", produce(topics), answer::<ProduceResponse>(9)),
                ("fetch", fetch(topics), answer::<FetchResponse>(12)),
            ] {
                let limits = Arc::new(Limits::default());
                let mut out = Vec::new();
                let name = format!("{what} of {topics} topics");
                group.bench_function(format!("{name}, judged"), |bencher| {
                    bencher.iter_batched_ref(
                        || Kafka::new(limits.clone(), None),
                        |gate| {
                            let request = black_box(&request);
                            gate.step(Direction::Request, request, &mut out, &mut judge)
                        },
                        BatchSize::SmallInput,
                    );
                });
                let mut gate = Kafka::new(limits.clone(), None);
                group.bench_function(format!("{name}, judged and answered"), |bencher| {
                    bencher.iter(|| {
                        let mut step =
                            |direction, input| gate.step(direction, input, &mut out, &mut judge);
                        let asked = step(Direction::Request, black_box(&request));
                        assert!(matches!(asked, Op::Forward(n) if n == request.len() as u64));
                        let answered = step(Direction::Response, black_box(&response));
                        assert!(matches!(answered, Op::Forward(_)));
                        step(Direction::Response, &[])
                    });
                });
            }
        }
    }
}

criterion_group!(benches, verdicts);
criterion_main!(benches);
