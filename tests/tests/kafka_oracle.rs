//! The schemas of the Kafka gate against the `kafka-protocol` crate, whose own are made from Apache
//! Kafka's definitions: messages of every API and version, with values in every field.

use portreeve_protocols::kafka::fuzz;
use portreeve_tests::kafka_oracle::{agree_on_request, agree_on_response};

/// Versions that the crate does not have, or only claims to: those of Kafka 4.2, and the ones that
/// it can't decode.
fn is_newer(key: i16, version: i16) -> bool {
    let last = match key {
        2 => 10,
        8 | 9 => 9,
        22 => 5,
        78 | 79 => 1,
        88 | 89 => -1,
        80 | 90 => 0,
        _ => i16::MAX,
    };
    version > last
}

#[test]
fn requests_of_every_api_and_version_read_as_the_oracle_reads_them() {
    let (mut compared, mut apart) = (0, Vec::new());
    for (key, version) in fuzz::every_version() {
        for seed in 0..30 {
            let frame = fuzz::some_request(key, version, seed).expect("a request");
            match agree_on_request(key, version, &frame) {
                true if is_newer(key, version) => panic!("{key} v{version} is not newer"),
                true => compared += 1,
                false if is_newer(key, version) => {}
                false => apart.push((key, version, seed)),
            }
        }
    }
    assert_eq!(apart, [], "only one of the two could read these");
    assert!(compared > 7000, "{compared} compared");
}

#[test]
fn responses_of_every_api_and_version_read_as_the_oracle_reads_them() {
    let (mut compared, mut apart) = (0, Vec::new());
    for (key, version) in fuzz::every_version() {
        for seed in 0..30 {
            let body = fuzz::some_response(key, version, seed).expect("a response");
            match agree_on_response(key, version, &body) {
                true => compared += 1,
                false if is_newer(key, version) => {}
                false => apart.push((key, version, seed)),
            }
        }
    }
    assert_eq!(apart, [], "only one of the two could read these");
    assert!(compared > 7000, "{compared} compared");
}

#[test]
fn a_refusal_of_any_request_is_a_response_that_the_oracle_reads() {
    let mut apart = Vec::new();
    for (key, version) in fuzz::every_version() {
        for seed in 0..30 {
            let frame = fuzz::some_request(key, version, seed).expect("a request");
            let reply = fuzz::refused_response(&frame).expect("a refusal");
            if !agree_on_response(key, version, &reply) && !is_newer(key, version) {
                apart.push((key, version, seed));
            }
        }
    }
    assert_eq!(apart, [], "the oracle can't read the answer");
}
