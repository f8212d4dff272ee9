//! How the `kafka-protocol` crate reads the same messages: where both accept one, they agree. What it is
//! given has been walked and bounded first; of a count that lies it would believe every word.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestKind, ResponseKind};
use portreeve_protocols::kafka::fuzz;

/// Compares both readings of a request's body, if both have one. Returns whether they had.
///
/// # Panics
/// When they differ.
#[must_use]
pub fn agree_on_request(key: i16, version: i16, frame: &[u8]) -> bool {
    let Some(ours) = fuzz::request_marks(frame) else { return false };
    let Ok(api) = ApiKey::try_from(key) else { return false };
    let header = frame.len() - body_length(frame, api, version);
    let mut body = Bytes::copy_from_slice(&frame[header..]);
    let Ok(theirs) = RequestKind::decode(api, &mut body, version) else { return false };
    assert!(body.is_empty(), "{api:?} v{version}: {} bytes are left for them", body.len());
    let mut written = BytesMut::new();
    theirs.encode(&mut written, version).expect("what was read can be written");
    let again = [&frame[..header], &written].concat();
    let again = fuzz::request_marks(&with_length(again)).expect("what they write, we read");
    assert_eq!(ours, again, "{api:?} v{version}");
    true
}

/// The same for the body of a response.
///
/// # Panics
/// When they differ.
#[must_use]
pub fn agree_on_response(key: i16, version: i16, body: &[u8]) -> bool {
    let Some(ours) = fuzz::response_marks(key, version, body) else { return false };
    let Ok(api) = ApiKey::try_from(key) else { return false };
    let mut bytes = Bytes::copy_from_slice(body);
    let Ok(theirs) = ResponseKind::decode(api, &mut bytes, version) else { return false };
    assert!(bytes.is_empty(), "{api:?} v{version}: {} bytes are left for them", bytes.len());
    let mut written = BytesMut::new();
    theirs.encode(&mut written, version).expect("what was read can be written");
    let again = fuzz::response_marks(key, version, &written).expect("what they write, we read");
    assert_eq!(ours, again, "{api:?} v{version}");
    true
}

/// Any bytes as a request and as a response of any API. Input: API, version, body.
///
/// # Panics
/// When the two readings differ.
pub fn kafka_oracle(data: &[u8]) {
    let [key, version, body @ ..] = data else { return };
    let (key, version) = (i16::from(*key % 96), i16::from(*version % 20));
    let _ = agree_on_response(key, version, body);
    let mut frame = vec![0; 4];
    frame.extend_from_slice(&key.to_be_bytes());
    frame.extend_from_slice(&version.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 1, 0, 0]);
    if ApiKey::try_from(key).is_ok_and(|api| api.request_header_version(version) == 2) {
        frame.push(0);
    }
    frame.extend_from_slice(body);
    let _ = agree_on_request(key, version, &with_length(frame));
}

/// Length, key, version, correlation id, the client's id, and tags come before it.
fn body_length(frame: &[u8], api: ApiKey, version: i16) -> usize {
    let client_id = usize::from(u16::from_be_bytes([frame[12], frame[13]]));
    let tags = usize::from(api.request_header_version(version) == 2);
    frame.len() - (14 + client_id + tags)
}

fn with_length(mut frame: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(frame.len() - 4).expect("short");
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}
