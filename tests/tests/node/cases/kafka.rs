//! Kafka requests by hand: what matters is what they name. The cases' version 0 stands for any; of some APIs
//! brokers take it no more, and neither does the gate.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use super::flow::serve;
use super::read::{Fate, Kafka};

/// What correlates an answer.
const CORRELATION: i32 = 77;

/// Sends a request on a connection: whether it arrived, with everything it names.
pub(super) fn ask(
    client: TcpStream,
    listener: &TcpListener,
    request: &Kafka,
) -> Result<Fate, String> {
    let sent = frame(request);
    let server = |mut server: TcpStream, _| {
        let got = receive(&mut server).ok()?;
        // An answer ends the client's waiting. What it says would be another test.
        server.write_all(&[0, 0, 0, 4]).ok()?;
        server.write_all(&CORRELATION.to_be_bytes()).ok()?;
        Some(got)
    };
    let (arrived, answer) = serve(listener, server, || answer(client, &sent));
    // Of some topics only those arrive that are allowed.
    let whole = |got: &Vec<u8>| request.topics.iter().all(|topic| names(got, topic));
    let mine = |answer: &Vec<u8>| answer.starts_with(&CORRELATION.to_be_bytes());
    match (arrived, answer) {
        (Some(got), _) if whole(&got) => Ok(Fate::Arrived),
        (Some(_), _) => Ok(Fate::RequestRefused),
        (None, Ok(answer)) if mine(&answer) => Ok(Fate::RequestRefused),
        // Where something else is read than Kafka, the end of the connection is all there is to say.
        (None, Err(error)) if error.kind() == ErrorKind::UnexpectedEof => Ok(Fate::RequestRefused),
        (None, answer) => Err(format!("nothing arrived, answered {answer:x?}")),
    }
}

/// What a client gets for these bytes. Who goes on waiting for more of them is told that there are no more.
fn answer(mut client: TcpStream, sent: &[u8]) -> std::io::Result<Vec<u8>> {
    let patience = client.read_timeout()?;
    client.set_read_timeout(patience.map(|patience| patience / 4))?;
    client.write_all(sent)?;
    match receive(&mut client) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        got => return got,
    }
    client.set_read_timeout(patience)?;
    client.shutdown(std::net::Shutdown::Write)?;
    receive(&mut client)
}

fn names(frame: &[u8], topic: &str) -> bool {
    frame.windows(topic.len()).any(|part| part == topic.as_bytes())
}

/// A frame without its length.
fn receive(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    // What is no frame is read as one that ends too early.
    let mut frame = Vec::new();
    let length = u64::from(u32::from_be_bytes(length));
    stream.take(length).read_to_end(&mut frame)?;
    match frame.len() as u64 == length {
        true => Ok(frame),
        false => Err(ErrorKind::UnexpectedEof.into()),
    }
}

fn frame(request: &Kafka) -> Vec<u8> {
    assert_eq!(request.api_version, 0, "versions have to be written first");
    let mut frame = vec![0; 4];
    frame.extend(request.api_key.to_be_bytes());
    frame.extend(oldest_version(request.api_key).to_be_bytes());
    frame.extend(CORRELATION.to_be_bytes());
    text(&mut frame, &request.client_id);
    body(&mut frame, request);
    let length = u32::try_from(frame.len() - 4).expect("short");
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// The oldest version that Kafka 4 has.
fn oldest_version(api: i16) -> i16 {
    match api {
        0 => 3,
        1 => 4,
        8 | 19 => 2,
        _ => 0,
    }
}

fn body(frame: &mut Vec<u8>, request: &Kafka) {
    let none = [0; 4];
    let topics = |frame: &mut Vec<u8>, rest: &[u8]| {
        frame.extend(u32::try_from(request.topics.len()).expect("few").to_be_bytes());
        for topic in &request.topics {
            text(frame, topic);
            frame.extend(rest);
        }
    };
    match request.api_key {
        // Produce: no transaction, acknowledgements, time-out; per topic one partition without records.
        0 => {
            frame.extend([0xff, 0xff, 0, 1, 0, 0, 0x10, 0]);
            topics(frame, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        // Fetch: no replica, longest wait, fewest and most bytes, isolation; per topic no partitions.
        1 => {
            frame.extend([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0]);
            topics(frame, &none);
        }
        // Metadata.
        3 => topics(frame, &[]),
        // OffsetCommit: no generation, no member, no retention; per topic no partitions.
        8 => {
            text(frame, &request.group);
            frame.extend([0xff; 4]);
            text(frame, "");
            frame.extend([0xff; 8]);
            topics(frame, &none);
        }
        // ApiVersions.
        18 => {}
        // CreateTopics: partitions, replicas, no assignments, no settings; time-out, in earnest.
        19 => {
            topics(frame, &[0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
            frame.extend([0, 0, 0x10, 0, 0]);
        }
        // SaslAuthenticate: no bytes.
        36 => frame.extend(none),
        other => panic!("API {other} has to be written first"),
    }
}

fn text(frame: &mut Vec<u8>, text: &str) {
    frame.extend(u16::try_from(text.len()).expect("short").to_be_bytes());
    frame.extend(text.as_bytes());
}
