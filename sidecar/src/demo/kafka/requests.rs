//! What is asked of the broker, and a client that asks it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, GroupId, JoinGroupRequest,
    MetadataRequest, ProduceRequest, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use portreeve_protocols::kafka::error_name;
use socket2::{Domain, Socket, Type};

use crate::demo::table::Answer;

/// One request of the demo.
pub(super) struct Asked {
    /// What the table says of it.
    line: &'static str,
    /// The last part of the client's loopback address: 1 is service1, 2 is service2, others are
    /// unknown.
    from: u8,
    ask: fn(&mut Client) -> io::Result<String>,
    expected: &'static str,
}

const OK: &str = "NONE";
const DENIED: &str = "TOPIC_AUTHORIZATION_FAILED";

pub(super) const REQUESTS: [Asked; 14] = [
    asked("service1: produce to topic1", 1, |c| c.produce(&["topic1"]), OK),
    asked("service1: produce to topic2", 1, |c| c.produce(&["topic2"]), DENIED),
    asked(
        "service1: produce to both in one request",
        1,
        |c| c.produce(&["topic1", "topic2"]),
        "topic1 NONE, topic2 TOPIC_AUTHORIZATION_FAILED",
    ),
    asked("service1: consume topic1", 1, |c| c.fetch("topic1", (0, -1)), DENIED),
    asked("service1: which topics are there?", 1, |c| c.metadata(None), "topic1"),
    asked("service1: where is topic2?", 1, |c| c.metadata(Some("topic2")), DENIED),
    asked("service1: create topic3", 1, Client::create, DENIED),
    asked("service2: consume topic1", 2, |c| c.fetch("topic1", (0, 0)), OK),
    asked("service2: produce to topic1", 2, |c| c.produce(&["topic1"]), DENIED),
    asked(
        "service2: go on with a fetch session of service1",
        2,
        |c| c.fetch("topic1", (7, 3)),
        "FETCH_SESSION_ID_NOT_FOUND",
    ),
    asked("service2: delete topic1", 2, Client::delete, DENIED),
    asked("service1: join a consumer group", 1, Client::join, "GROUP_AUTHORIZATION_FAILED"),
    asked("service1: a list of 2 billion topics, in 26 bytes", 1, Client::lie, "closed"),
    asked("somebody from 127.0.0.3", 3, |c| c.metadata(None), "reset"),
];

const fn asked(
    line: &'static str,
    from: u8,
    ask: fn(&mut Client) -> io::Result<String>,
    expected: &'static str,
) -> Asked {
    Asked { line, from, ask, expected }
}

impl Asked {
    /// Asks it on a connection of its own.
    pub(super) fn ask(&self, proxy: SocketAddr) -> Answer {
        let seen = Client::connect(proxy, self.from).and_then(|mut client| (self.ask)(&mut client));
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => "reset".to_owned(),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => "closed".to_owned(),
            Err(error) => error.to_string(),
        };
        let good = seen == self.expected;
        Answer { line: self.line, passed: seen == OK || seen == "topic1", seen, good }
    }
}

struct Client(TcpStream);

impl Client {
    fn connect(proxy: SocketAddr, from: u8) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, from), 0)).into())?;
        socket.connect(&proxy.into())?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(Self(stream))
    }

    fn ask<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        let mut frame = BytesMut::new();
        RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(1)
            .with_client_id(Some(StrBytes::from_static_str("demo")))
            .encode(&mut frame, R::header_version(version))
            .map_err(io::Error::other)?;
        request.encode(&mut frame, version).map_err(io::Error::other)?;
        let mut answer = self.exchange(&frame)?;
        ResponseHeader::decode(&mut answer, R::Response::header_version(version))
            .map_err(io::Error::other)?;
        R::Response::decode(&mut answer, version).map_err(io::Error::other)
    }

    fn exchange(&mut self, frame: &[u8]) -> io::Result<Bytes> {
        let length = u32::try_from(frame.len()).unwrap_or(0);
        self.0.write_all(&[&length.to_be_bytes(), frame].concat())?;
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut answer)?;
        Ok(answer.into())
    }

    fn produce(&mut self, topics: &[&str]) -> io::Result<String> {
        let data = topics.iter().map(|topic| {
            let partition = PartitionProduceData::default().with_records(Some(batch()));
            TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![partition])
        });
        let request = ProduceRequest::default().with_acks(-1).with_topic_data(data.collect());
        let response = self.ask(9, &request)?;
        let mut told: Vec<String> = response
            .responses
            .iter()
            .flat_map(|topic| topic.partition_responses.iter().map(|p| (&topic.name, p.error_code)))
            .map(|(topic, error)| match topics {
                [_] => error_name(error).to_owned(),
                _ => format!("{} {}", topic.as_str(), error_name(error)),
            })
            .collect();
        told.sort();
        Ok(told.join(", "))
    }

    fn fetch(&mut self, topic: &str, (session, epoch): (i32, i32)) -> io::Result<String> {
        let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
        let topic = FetchTopic::default().with_topic(name(topic)).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_max_bytes(1 << 20)
            .with_session_id(session)
            .with_session_epoch(epoch)
            .with_topics(vec![topic]);
        let response = self.ask(11, &request)?;
        let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
        let error = partitions.map(|p| p.error_code).find(|code| *code != 0);
        Ok(error_name(error.unwrap_or(response.error_code)).to_owned())
    }

    fn metadata(&mut self, topic: Option<&str>) -> io::Result<String> {
        let topics =
            topic.map(|topic| vec![MetadataRequestTopic::default().with_name(Some(name(topic)))]);
        let response = self.ask(8, &MetadataRequest::default().with_topics(topics))?;
        let told = response.topics.iter().map(|topic| match topic.error_code {
            0 => topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default(),
            error => error_name(error).to_owned(),
        });
        Ok(told.collect::<Vec<_>>().join(", "))
    }

    fn create(&mut self) -> io::Result<String> {
        let topic = CreatableTopic::default()
            .with_name(name("topic3"))
            .with_num_partitions(1)
            .with_replication_factor(1);
        let response = self.ask(5, &CreateTopicsRequest::default().with_topics(vec![topic]))?;
        Ok(response.topics.iter().map(|topic| error_name(topic.error_code)).collect())
    }

    fn delete(&mut self) -> io::Result<String> {
        let topic = DeleteTopicState::default().with_name(Some(name("topic1")));
        let response = self.ask(6, &DeleteTopicsRequest::default().with_topics(vec![topic]))?;
        Ok(response.responses.iter().map(|topic| error_name(topic.error_code)).collect())
    }

    fn join(&mut self) -> io::Result<String> {
        let group = GroupId(StrBytes::from_static_str("analytics"));
        let response = self.ask(5, &JoinGroupRequest::default().with_group_id(group))?;
        Ok(error_name(response.error_code).to_owned())
    }

    /// Metadata in version 1, correlation id 1, no client id, and a count that the frame has no bytes
    /// for.
    fn lie(&mut self) -> io::Result<String> {
        self.exchange(b"\0\x03\0\x01\0\0\0\x01\xff\xff\x7f\xff\xff\xff\0\x04many\0\0")?;
        Ok("an answer".to_owned())
    }
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

/// A batch of one record, as far as anybody here looks at it: version 2, last offset 0. Its checksum is
/// left out.
fn batch() -> Bytes {
    let mut batch = vec![0; 61];
    batch[16] = 2;
    let length = u32::try_from(batch.len() - 12).unwrap_or(0);
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch.into()
}
