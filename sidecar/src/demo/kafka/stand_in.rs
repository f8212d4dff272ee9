//! A stand-in for a Kafka broker: as much of one as the demo needs, and `kcat` to try things by hand. It
//! keeps records in memory, has one partition a topic, and no groups.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest,
    ListOffsetsResponse, MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse,
    RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

/// What it speaks: key, first and last version.
const SPOKEN: [(ApiKey, i16, i16); 5] = [
    (ApiKey::Produce, 3, 9),
    (ApiKey::Fetch, 4, 11),
    (ApiKey::ListOffsets, 1, 5),
    (ApiKey::Metadata, 0, 8),
    (ApiKey::ApiVersions, 0, 3),
];

/// The largest request it reads.
const LARGEST: usize = 4 << 20;

/// Records kept of each topic, in batches.
const KEPT: usize = 10_000;

/// Where a batch of records says how many they are, less one.
const LAST_OFFSET_DELTA: std::ops::Range<usize> = 23..27;

#[derive(Default)]
struct Topics(BTreeMap<String, Topic>);

#[derive(Default)]
struct Topic {
    next: i64,
    /// By their first offsets.
    batches: Vec<(i64, Bytes)>,
}

/// Where clients are to come, once that is known.
pub(super) type Advertised = Arc<OnceLock<SocketAddr>>;

/// Starts it on a thread of its own, with these topics. It says of itself that it is at `advertised`.
pub(super) fn start(topics: &[&str], advertised: &Advertised) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let topics = topics.iter().map(|topic| ((*topic).to_owned(), Topic::default())).collect();
    let topics = Arc::new(Mutex::new(Topics(topics)));
    let advertised = advertised.clone();
    thread::Builder::new().name("stand-in".to_owned()).spawn(move || {
        for stream in listener.incoming().flatten() {
            let (topics, advertised) = (topics.clone(), advertised.clone());
            let _ = thread::Builder::new().name("stand-in".to_owned()).spawn(move || {
                // What a client breaks off is its own affair.
                let _ = serve(stream, &topics, *advertised.get().unwrap_or(&address));
            });
        }
    })?;
    Ok(address)
}

fn serve(mut stream: TcpStream, topics: &Mutex<Topics>, address: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if !(8..=LARGEST).contains(&length) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut frame = vec![0; length];
        stream.read_exact(&mut frame)?;
        let mut topics = topics.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = answer(Bytes::from(frame), &mut topics, address).map_err(io::Error::other)?;
        drop(topics);
        if let Some(answer) = answer {
            stream.write_all(&u32::try_from(answer.len()).unwrap_or(0).to_be_bytes())?;
            stream.write_all(&answer)?;
        }
    }
}

type Answer = Result<Option<BytesMut>, Box<dyn std::error::Error + Send + Sync>>;

/// The answer to a request; `None` if it wants none.
fn answer(mut frame: Bytes, topics: &mut Topics, address: SocketAddr) -> Answer {
    let key = ApiKey::try_from(i16::from_be_bytes([frame[0], frame[1]]))
        .map_err(|()| "an API that nobody knows")?;
    let version = i16::from_be_bytes([frame[2], frame[3]]);
    let spoken = SPOKEN.iter().find(|(api, ..)| *api == key);
    if !spoken.is_some_and(|(_, first, last)| (*first..=*last).contains(&version)) {
        return Err("an API or version that the stand-in does not speak".into());
    }
    let header = RequestHeader::decode(&mut frame, key.request_header_version(version))?;
    let mut out = BytesMut::new();
    ResponseHeader::default()
        .with_correlation_id(header.correlation_id)
        .encode(&mut out, key.response_header_version(version))?;
    match key {
        ApiKey::ApiVersions => api_versions().encode(&mut out, version)?,
        ApiKey::Metadata => {
            let request = MetadataRequest::decode(&mut frame, version)?;
            topics.metadata(&request, address).encode(&mut out, version)?;
        }
        ApiKey::Produce => {
            let request = ProduceRequest::decode(&mut frame, version)?;
            let response = topics.produce(&request);
            if request.acks == 0 {
                return Ok(None);
            }
            response.encode(&mut out, version)?;
        }
        ApiKey::Fetch => {
            let request = FetchRequest::decode(&mut frame, version)?;
            topics.fetch(&request).encode(&mut out, version)?;
        }
        _ => {
            let request = ListOffsetsRequest::decode(&mut frame, version)?;
            topics.list_offsets(&request).encode(&mut out, version)?;
        }
    }
    Ok(Some(out))
}

fn api_versions() -> ApiVersionsResponse {
    let spoken = SPOKEN.iter().map(|(key, first, last)| {
        ApiVersion::default()
            .with_api_key(*key as i16)
            .with_min_version(*first)
            .with_max_version(*last)
    });
    ApiVersionsResponse::default().with_api_keys(spoken.collect())
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

impl Topics {
    fn metadata(&self, request: &MetadataRequest, address: SocketAddr) -> MetadataResponse {
        let wanted = |topic: &str| match &request.topics {
            None => true,
            Some(topics) => {
                topics.iter().any(|asked| asked.name.as_ref().is_some_and(|n| n.as_str() == topic))
            }
        };
        let topics = self.0.keys().filter(|topic| wanted(topic)).map(|topic| {
            let partition = MetadataResponsePartition::default()
                .with_leader_id(BrokerId(1))
                .with_replica_nodes(vec![BrokerId(1)])
                .with_isr_nodes(vec![BrokerId(1)]);
            MetadataResponseTopic::default()
                .with_name(Some(name(topic)))
                .with_partitions(vec![partition])
        });
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(1))
            .with_host(StrBytes::from_string(address.ip().to_string()))
            .with_port(address.port().into());
        MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_controller_id(BrokerId(1))
            .with_topics(topics.collect())
    }

    fn produce(&mut self, request: &ProduceRequest) -> ProduceResponse {
        let responses = request.topic_data.iter().map(|data| {
            let topic = self.0.entry(data.name.to_string()).or_default();
            let partitions = data.partition_data.iter().map(|partition| {
                let offset = topic.append(partition.records.clone().unwrap_or_default());
                PartitionProduceResponse::default()
                    .with_index(partition.index)
                    .with_base_offset(offset)
            });
            TopicProduceResponse::default()
                .with_name(data.name.clone())
                .with_partition_responses(partitions.collect())
        });
        ProduceResponse::default().with_responses(responses.collect())
    }

    fn fetch(&self, request: &FetchRequest) -> FetchResponse {
        let none = Topic::default();
        let responses = request.topics.iter().map(|asked| {
            let topic = self.0.get(asked.topic.as_str()).unwrap_or(&none);
            let partitions = asked.partitions.iter().map(|partition| {
                PartitionData::default()
                    .with_partition_index(partition.partition)
                    .with_high_watermark(topic.next)
                    .with_last_stable_offset(topic.next)
                    .with_records(Some(topic.from(partition.fetch_offset)))
            });
            FetchableTopicResponse::default()
                .with_topic(asked.topic.clone())
                .with_partitions(partitions.collect())
        });
        FetchResponse::default().with_responses(responses.collect())
    }

    fn list_offsets(&self, request: &ListOffsetsRequest) -> ListOffsetsResponse {
        let topics = request.topics.iter().map(|asked| {
            let end = self.0.get(asked.name.as_str()).map_or(0, |topic| topic.next);
            let partitions = asked.partitions.iter().map(|partition| {
                // -2 asks for the beginning.
                let offset = if partition.timestamp == -2 { 0 } else { end };
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(partition.partition_index)
                    .with_offset(offset)
            });
            ListOffsetsTopicResponse::default()
                .with_name(asked.name.clone())
                .with_partitions(partitions.collect())
        });
        ListOffsetsResponse::default().with_topics(topics.collect())
    }
}

impl Topic {
    /// Keeps a batch, and says at which offset.
    fn append(&mut self, batch: Bytes) -> i64 {
        let first = self.next;
        let Some(last) = batch.get(LAST_OFFSET_DELTA) else { return first };
        let last = last.try_into().map_or(0, u32::from_be_bytes);
        self.next += i64::from(last) + 1;
        if self.batches.len() < KEPT {
            let mut batch = batch.to_vec();
            batch[..8].copy_from_slice(&first.to_be_bytes());
            self.batches.push((first, batch.into()));
        }
        first
    }

    /// The batches from an offset on.
    fn from(&self, offset: i64) -> Bytes {
        let from = self.batches.partition_point(|(first, _)| *first < offset);
        self.batches[from..].iter().flat_map(|(_, batch)| batch.iter().copied()).collect()
    }
}
