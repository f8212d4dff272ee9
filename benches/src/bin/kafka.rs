//! Kafka through Portreeve beside a relay that looks at nothing: one run, interleaved.
//!
//! `cargo run --release -p portreeve-benches --bin kafka` prints a table. The proxy runs on one core;
//! clients and a broker that only answers run on another. What counts are the ratios to the relay:
//! requests a second, the 99th percentile of their time, and CPU time of the proxy a request.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader,
    TopicName,
};
use kafka_protocol::protocol::{Encodable, HeaderVersion, Request, StrBytes};

use portreeve_benches::process::{Running, free_address, on_core, sibling};

/// The core of the proxy, and that of everything else.
const CORES: (usize, usize) = (0, 1);

/// Connections, and requests in flight on each.
const CLIENTS: usize = 8;
const IN_FLIGHT: usize = 5;

/// How long each measurement takes, and how often it is repeated; the median counts.
const LASTS: Duration = Duration::from_secs(2);
const ROUNDS: usize = 5;

const POLICY: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: kafka}
spec:
  endpointSelector: {matchLabels: {app: kafka}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: '9092', protocol: TCP}]
      rules:
        kafka:
        - {role: produce, topic: topic1}
        - {role: consume, topic: topic1}
";

/// A request and its response, and what to call them.
struct Question {
    name: &'static str,
    request: Vec<u8>,
    response: Arc<Vec<u8>>,
}

fn main() {
    rustix::thread::sched_setaffinity(None, &{
        let mut cores = rustix::thread::CpuSet::new();
        cores.set(CORES.1);
        cores
    })
    .expect("two cores");
    println!(
        "{CLIENTS} connections, {IN_FLIGHT} requests in flight on each; medians of {ROUNDS} rounds.\n"
    );
    println!(
        "| what | relay: requests/s | p99 µs | CPU µs | Portreeve: requests/s | p99 µs | CPU µs | throughput | p99 | CPU |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut memory = Vec::new();
    // `kafka consume` asks only the questions with that in their names.
    let only = std::env::args().nth(1).unwrap_or_default();
    for question in questions().into_iter().filter(|question| question.name.contains(&only)) {
        let broker = broker(question.response.clone());
        let mut seen: [Vec<[f64; 3]>; 2] = Default::default();
        for _ in 0..ROUNDS {
            for (proxy, seen) in
                [start_relay(broker), start_portreeve(broker)].iter().zip(&mut seen)
            {
                seen.push(measure(proxy, &question));
                memory.push(proxy.memory_kib());
            }
        }
        let [relay, portreeve] = seen.map(|rounds| [0, 1, 2].map(|n| median(&rounds, n)));
        println!(
            "| {} | {:.0} | {:.0} | {:.2} | {:.0} | {:.0} | {:.2} | **{:.2}** | {:.2} | **{:.2}** |",
            question.name,
            relay[0],
            relay[1],
            relay[2],
            portreeve[0],
            portreeve[1],
            portreeve[2],
            portreeve[0] / relay[0],
            portreeve[1] / relay[1],
            portreeve[2] / relay[2],
        );
    }
    let most = memory.chunks(2).map(|pair| pair[1]).max().unwrap_or_default();
    println!("\nPortreeve's resident memory after a measurement, at most: {most} KiB");
}

fn median(rounds: &[[f64; 3]], of: usize) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(|round| round[of]).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Requests a second, the 99th percentile in microseconds, CPU microseconds a request.
fn measure(proxy: &Running, question: &Question) -> [f64; 3] {
    let stop = Arc::new(AtomicBool::new(false));
    let cpu = proxy.cpu();
    let began = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (address, request, stop) = (proxy.address, question.request.clone(), stop.clone());
            thread::spawn(move || client(address, &request, &stop))
        })
        .collect();
    thread::sleep(LASTS);
    stop.store(true, Ordering::Relaxed);
    let mut times: Vec<Duration> =
        clients.into_iter().flat_map(|c| c.join().expect("ended")).collect();
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), proxy.cpu() - cpu);
    times.sort();
    let requests = times.len() as f64;
    let p99 = times[times.len() * 99 / 100].as_secs_f64() * 1e6;
    [requests / seconds, p99, cpu * 1e6 / requests]
}

/// Keeps requests in flight; returns how long each took.
fn client(address: SocketAddr, request: &[u8], stop: &AtomicBool) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_nodelay(true).expect("a socket");
    let mut asked = VecDeque::new();
    let mut times = Vec::new();
    let mut response = Vec::new();
    for _ in 0..IN_FLIGHT {
        asked.push_back(Instant::now());
        stream.write_all(request).expect("sent");
    }
    while let Some(began) = asked.pop_front() {
        read_frame(&mut stream, &mut response).expect("answered");
        times.push(began.elapsed());
        if !stop.load(Ordering::Relaxed) {
            asked.push_back(Instant::now());
            stream.write_all(request).expect("sent");
        }
    }
    times
}

fn read_frame(stream: &mut TcpStream, frame: &mut Vec<u8>) -> std::io::Result<()> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    frame.resize(u32::from_be_bytes(length) as usize, 0);
    stream.read_exact(frame)
}

/// Answers everything with this response.
fn broker(response: Arc<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let response = response.clone();
            thread::spawn(move || {
                let _ = stream.set_nodelay(true);
                let mut frame = Vec::new();
                while read_frame(&mut stream, &mut frame).is_ok() {
                    if stream.write_all(&response).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

fn start_relay(broker: SocketAddr) -> Running {
    let folder = tempfile::tempdir().expect("a folder");
    let listen = free_address();
    let mut command = on_core(CORES.0, sibling("floor").expect("its path"));
    command.args([listen.to_string(), broker.to_string()]);
    ready(Running::start(command, listen, folder))
}

fn start_portreeve(broker: SocketAddr) -> Running {
    let folder = tempfile::tempdir().expect("a folder");
    let policy = folder.path().join("policy.yaml");
    std::fs::write(&policy, POLICY).expect("the policy");
    let listen = free_address();
    let mut command = on_core(CORES.0, sibling("portreeve").expect("its path"));
    command
        .args(["run", "--workload-labels", "app=kafka", "--peer", "127.0.0.0/8=app=client"])
        .args(["--policy-port", "9092", "--access-log", "off", "--admin", "off", "--workers", "1"])
        .args(["--listen", &listen.to_string(), "--upstream", &broker.to_string(), "--policy"])
        .arg(policy);
    ready(Running::start(command, listen, folder))
}

fn ready(proxy: Running) -> Running {
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(proxy.address).is_err() {
        assert!(Instant::now() < deadline, "the proxy does not start");
        thread::sleep(Duration::from_millis(20));
    }
    proxy
}

fn questions() -> Vec<Question> {
    let mut questions = Vec::new();
    for (name, size) in [("produce 1 KiB", 1024), ("produce 100 KiB", 100 * 1024)] {
        let request = frame(&produce(size), 9);
        questions.push(Question { name, request, response: answer(&produced(), 9) });
    }
    for (name, size) in [("consume 1 KiB", 1024), ("consume 100 KiB", 100 * 1024)] {
        let request = frame(&fetch(), 12);
        questions.push(Question { name, request, response: answer(&fetched(size), 12) });
    }
    questions
}

fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str("topic1"))
}

fn produce(size: usize) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_records(Some(Bytes::from(vec![1; size])));
    let topic = TopicProduceData::default().with_name(topic()).with_partition_data(vec![partition]);
    ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic])
}

fn produced() -> ProduceResponse {
    let partition = PartitionProduceResponse::default();
    let topic = TopicProduceResponse::default()
        .with_name(topic())
        .with_partition_responses(vec![partition]);
    ProduceResponse::default().with_responses(vec![topic])
}

fn fetch() -> FetchRequest {
    let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(topic()).with_partitions(vec![partition]);
    FetchRequest::default().with_session_epoch(-1).with_topics(vec![topic])
}

fn fetched(size: usize) -> FetchResponse {
    let partition = PartitionData::default().with_records(Some(Bytes::from(vec![1; size])));
    let topic =
        FetchableTopicResponse::default().with_topic(topic()).with_partitions(vec![partition]);
    FetchResponse::default().with_responses(vec![topic])
}

/// A request's frame, correlation id 1.
fn frame<R: Request>(request: &R, version: i16) -> Vec<u8> {
    let mut out = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(1)
        .with_client_id(Some(StrBytes::from_static_str("bench")))
        .encode(&mut out, R::header_version(version))
        .expect("a header");
    request.encode(&mut out, version).expect("a request");
    with_length(&out)
}

fn answer<R: Encodable + HeaderVersion>(response: &R, version: i16) -> Arc<Vec<u8>> {
    let mut out = BytesMut::new();
    ResponseHeader::default()
        .with_correlation_id(1)
        .encode(&mut out, R::header_version(version))
        .expect("a header");
    response.encode(&mut out, version).expect("a response");
    Arc::new(with_length(&out))
}

fn with_length(frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).expect("short");
    [&length.to_be_bytes(), frame].concat()
}
