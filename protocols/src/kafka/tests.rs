//! The gate, by what it does with what both sides say.

use super::fuzz::{self, by_name, every_version, run};
use super::wire::{write_length, write_text};
use super::{Limits, Outcome as Decision, Refusal};
use crate::drive::Script;
use crate::gate::Close;

/// A request: API, version, correlation id 7, and its body.
fn request(key: i16, version: i16, flexible: bool, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 4];
    frame.extend_from_slice(&key.to_be_bytes());
    frame.extend_from_slice(&version.to_be_bytes());
    frame.extend_from_slice(&7_i32.to_be_bytes());
    write_text(Some(b"test"), false, &mut frame);
    if flexible {
        frame.push(0);
    }
    frame.extend_from_slice(body);
    length(frame)
}

fn response(body: &[u8]) -> Vec<u8> {
    length([&[0; 4], &7_i32.to_be_bytes()[..], body].concat())
}

fn length(mut frame: Vec<u8>) -> Vec<u8> {
    super::answer::set_length(&mut frame);
    frame
}

/// The body of Metadata in version 1: names of topics, or all of them.
fn metadata(topics: Option<&[&str]>) -> Vec<u8> {
    let mut body = Vec::new();
    match topics {
        None => body.extend_from_slice(&(-1_i32).to_be_bytes()),
        Some(topics) => {
            write_length(topics.len(), false, &mut body);
            topics.iter().for_each(|topic| write_text(Some(topic.as_bytes()), false, &mut body));
        }
    }
    body
}

/// The body of Metadata's response in version 1, without brokers and partitions: errors and names.
fn metadata_response(topics: &[(i16, &str)]) -> Vec<u8> {
    let mut body = vec![0; 8];
    write_length(topics.len(), false, &mut body);
    for (error, topic) in topics {
        body.extend_from_slice(&error.to_be_bytes());
        write_text(Some(topic.as_bytes()), false, &mut body);
        body.extend_from_slice(&[0; 5]);
    }
    body
}

/// The body of Produce in version 3: acks, and a partition of each topic.
fn produce(acks: i16, topics: &[&str]) -> Vec<u8> {
    let mut body = vec![0xff, 0xff];
    body.extend_from_slice(&acks.to_be_bytes());
    body.extend_from_slice(&1000_i32.to_be_bytes());
    write_length(topics.len(), false, &mut body);
    for topic in topics {
        write_text(Some(topic.as_bytes()), false, &mut body);
        body.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 2, 9, 9]);
    }
    body
}

fn talk(requests: &[u8], responses: &[u8]) -> fuzz::Outcome {
    let script = Script { requests, responses, reachable: true, ends: false };
    run(&script, || usize::MAX >> 1, by_name)
}

#[test]
fn metadata_that_could_create_a_denied_topic_is_stripped_and_its_answer_merged() {
    let asked = request(3, 1, false, &metadata(Some(&["a", "denied", "b"])));
    let answer = response(&metadata_response(&[(0, "a"), (0, "b")]));
    let outcome = talk(&asked, &answer);
    assert_eq!(outcome.to_server, request(3, 1, false, &metadata(Some(&["a", "b"]))));
    let merged = response(&metadata_response(&[(29, "denied"), (0, "a"), (0, "b")]));
    assert_eq!(outcome.to_client, merged);
    assert_eq!(outcome.decided, [(3, Decision::Partly, 29)]);
}

#[test]
fn the_list_of_all_topics_shows_what_may_be_seen() {
    let answer = response(&metadata_response(&[(0, "a"), (0, "denied"), (0, "b")]));
    // Topic rules don't allow everything; this one asks for it.
    let script = Script {
        requests: &request(3, 1, false, &metadata(None)),
        responses: &answer,
        reachable: true,
        ends: false,
    };
    let named =
        |_: i16, subject: &super::Subject<'_>| subject.topic.is_some_and(|t| t != b"denied");
    let outcome = run(&script, || 3, named);
    assert_eq!(outcome.to_client, response(&metadata_response(&[(0, "a"), (0, "b")])));
    assert_eq!(outcome.decided, [(3, Decision::Filtered, 0)]);
}

#[test]
fn an_old_request_for_denied_topics_alone_does_not_become_one_for_all() {
    // In version 0 an empty list means all topics, so what comes back must be looked through.
    let mut body = metadata(Some(&["denied"]));
    let outcome = talk(&request(3, 0, false, &body), &[]);
    body = metadata(Some(&[]));
    assert_eq!(outcome.to_server, request(3, 0, false, &body));
    // Version 0: brokers, then topics with error, name and partitions.
    let mut all = vec![0; 4];
    write_length(2, false, &mut all);
    for topic in ["denied", "a"] {
        all.extend_from_slice(&[0, 0]);
        write_text(Some(topic.as_bytes()), false, &mut all);
        all.extend_from_slice(&[0; 4]);
    }
    let script = Script {
        requests: &request(3, 0, false, &metadata(Some(&["denied"]))),
        responses: &response(&all),
        reachable: true,
        ends: false,
    };
    let none = |_: i16, subject: &super::Subject<'_>| subject.topic.is_some_and(|t| t == b"x");
    let outcome = run(&script, || 5, none);
    let mut expected = vec![0; 4];
    write_length(1, false, &mut expected);
    expected.extend_from_slice(&29_i16.to_be_bytes());
    write_text(Some(b"denied"), false, &mut expected);
    expected.extend_from_slice(&[0; 4]);
    assert_eq!(outcome.to_client, response(&expected));
}

#[test]
fn a_produce_request_to_one_allowed_topic_passes_before_its_records_have_come() {
    let whole = request(0, 3, false, &produce(1, &["topic1"]));
    for end in 0..whole.len() {
        let outcome = talk(&whole[..end], &[]);
        // The name is known after the header and 2 + 2 + 4 + 4 + 8 bytes.
        let known = end >= 18 + 2 + 2 + 4 + 4 + 8;
        assert_eq!(outcome.to_server.len(), if known { end } else { 0 }, "{end} bytes");
    }
}

#[test]
fn denied_topics_are_taken_out_of_a_produce_request() {
    let outcome = talk(&request(0, 3, false, &produce(1, &["a", "denied", "b"])), &[]);
    assert_eq!(outcome.to_server, request(0, 3, false, &produce(1, &["a", "b"])));
    assert_eq!(outcome.decided, [(0, Decision::Partly, 29)]);
}

#[test]
fn what_is_produced_without_an_answer_is_stripped_or_the_connection_closed() {
    let outcome = talk(&request(0, 3, false, &produce(0, &["a", "denied"])), &[]);
    assert_eq!(outcome.to_server, request(0, 3, false, &produce(0, &["a"])));
    assert_eq!((outcome.to_client.len(), outcome.closed), (0, None));
    let outcome = talk(&request(0, 3, false, &produce(0, &["denied"])), &[]);
    assert_eq!(outcome.to_client, b"", "a client that asks for no answer gets none");
    assert_eq!(outcome.refused, [Refusal::UnansweredDenied]);
    assert_eq!(outcome.closed, Some(Close::Graceful));
}

#[test]
fn denials_keep_the_order_of_responses() {
    let mut requests = request(3, 1, false, &metadata(Some(&["a"])));
    requests.extend(request(0, 3, false, &produce(1, &["denied"])));
    requests.extend(request(3, 1, false, &metadata(Some(&["b"]))));
    let outcome = talk(&requests, &[]);
    assert_eq!(outcome.to_client, b"", "the answer to the first one is due before");
    let first = response(&metadata_response(&[(0, "a")]));
    let third = response(&metadata_response(&[(0, "b")]));
    let outcome = talk(&requests, &[&first[..], &third].concat());
    assert!(outcome.to_client.starts_with(&first) && outcome.to_client.ends_with(&third));
    let denial = &outcome.to_client[first.len()..outcome.to_client.len() - third.len()];
    assert!(denial.windows(6).any(|window| window == b"denied"));
    let errors: Vec<i16> = outcome.finished.iter().map(|exchange| exchange.error).collect();
    assert_eq!(errors, [0, 29, 0]);
}

#[test]
fn a_response_out_of_order_ends_the_connection() {
    let mut answer = response(&metadata_response(&[(0, "a")]));
    answer[7] = 8;
    let outcome = talk(&request(3, 1, false, &metadata(Some(&["a"]))), &answer);
    assert_eq!(outcome.refused, [Refusal::ResponseOrder]);
    assert_eq!((outcome.to_client.len(), outcome.closed), (0, Some(Close::Abort)));
}

/// Fetch in version 7 with a session, its epoch, and one topic.
fn fetch(session: i32, epoch: i32, topic: &str) -> Vec<u8> {
    let mut body = (-1_i32).to_be_bytes().to_vec();
    body.extend_from_slice(&[0; 13]);
    body.extend_from_slice(&session.to_be_bytes());
    body.extend_from_slice(&epoch.to_be_bytes());
    write_length(1, false, &mut body);
    write_text(Some(topic.as_bytes()), false, &mut body);
    write_length(1, false, &mut body);
    body.extend_from_slice(&[0; 4 + 8 + 8 + 4]);
    write_length(0, false, &mut body);
    request(1, 7, false, &body)
}

#[test]
fn a_fetch_session_is_not_opened() {
    let outcome = talk(&fetch(0, 0, "a"), &[]);
    assert_eq!(outcome.to_server, fetch(0, -1, "a"));
}

#[test]
fn a_foreign_fetch_session_gains_nothing() {
    for epoch in [1, 2, i32::MAX] {
        let outcome = talk(&fetch(99, epoch, "a"), &[]);
        assert_eq!(outcome.to_server, b"");
        assert_eq!(outcome.decided, [(1, Decision::Denied, 70)]);
    }
    // To close one that another client has is not for this one either.
    assert_eq!(talk(&fetch(99, -1, "a"), &[]).to_server, fetch(0, -1, "a"));
}

#[test]
fn a_follower_is_refused() {
    let mut follower = fetch(0, -1, "a");
    follower[18..22].copy_from_slice(&5_i32.to_be_bytes());
    let outcome = talk(&follower, &[]);
    assert_eq!((outcome.to_server.len(), outcome.decided), (0, vec![(1, Decision::Denied, 31)]));
}

#[test]
fn topics_that_are_named_by_id_are_judged_by_the_name_that_the_broker_gives() {
    // DeleteTopics in version 6: a null name, an id.
    let ask = |id: u8| {
        let mut body = vec![2, 0];
        body.extend_from_slice(&[id; 16]);
        body.extend_from_slice(&[0, 0, 0, 0, 9, 0]);
        request(20, 6, true, &body)
    };
    let named = |name: &[u8], id: u8| {
        // Metadata's response in version 12 to the gate's own question.
        let mut body = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0, 0];
        write_text(Some(name), true, &mut body);
        body.extend_from_slice(&[id; 16]);
        body.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        let mut frame = vec![0; 4];
        frame.extend_from_slice(b"Port");
        frame.extend_from_slice(&body);
        length(frame)
    };
    let outcome = talk(&ask(5), &named(b"a", 5));
    assert!(outcome.to_server.ends_with(&ask(5)), "{outcome:?}");
    assert_eq!(outcome.to_client, b"", "the client sees nothing of the gate's own question");
    let outcome = talk(&ask(5), &named(b"denied", 5));
    assert_eq!(outcome.decided, [(20, Decision::Denied, 29)]);
    let outcome = talk(&ask(5), &named(b"a", 6));
    assert_eq!(outcome.decided, [(20, Decision::Denied, 100)], "the broker does not know it");
}

#[test]
fn a_topic_without_name_and_id_is_not_forwarded() {
    // Produce in version 13: no transaction, acks, a time-out, one topic of id 0, no partitions.
    let mut body = vec![0, 0, 1, 0, 0, 0, 9, 2];
    body.extend_from_slice(&[0; 16]);
    body.extend_from_slice(&[1, 0, 0]);
    let outcome = talk(&request(0, 13, true, &body), &[]);
    assert_eq!((outcome.to_server.len(), &outcome.refused[..]), (0, &[][..]));
    assert_eq!(outcome.decided, [(0, Decision::Denied, 100)]);
}

#[test]
fn api_versions_are_narrowed_and_never_raised() {
    let mut body = vec![0, 0];
    // Produce from 0, Metadata beyond what is known, a broker's own, a vendor's, a new one.
    let offered: [[i16; 3]; 5] = [[0, 0, 11], [3, 0, 99], [4, 0, 7], [10_000, 0, 1], [24, 0, 5]];
    write_length(offered.len(), false, &mut body);
    offered.iter().flatten().for_each(|number| body.extend_from_slice(&number.to_be_bytes()));
    let outcome = talk(&request(18, 0, false, &[]), &response(&body));
    let mut narrowed = vec![0, 0];
    let left: [[i16; 3]; 3] = [[0, 0, 11], [3, 0, 13], [24, 0, 3]];
    write_length(left.len(), false, &mut narrowed);
    left.iter().flatten().for_each(|number| narrowed.extend_from_slice(&number.to_be_bytes()));
    assert_eq!(outcome.to_client, response(&narrowed));
}

#[test]
fn a_version_that_is_not_offered_is_refused_in_words_the_client_understands() {
    // AddPartitionsToTxn in the version of brokers: its shape is known.
    let body = [1, 0];
    let outcome = talk(&request(24, 4, true, &body), &[]);
    assert_eq!(outcome.decided, [(24, Decision::Denied, 35)]);
    assert!(!outcome.to_client.is_empty());
    // A version of ApiVersions that is to come is told which ones there are.
    let outcome = talk(&request(18, 99, true, b"whatever"), &[]);
    assert_eq!(outcome.decided, [(18, Decision::Denied, 35)]);
    assert_eq!(outcome.to_server, b"");
    assert_eq!(outcome.to_client[8..10], 35_i16.to_be_bytes());
    // Of all others nobody knows what an answer looks like.
    let outcome = talk(&request(3, 99, true, &[]), &[]);
    assert_eq!(outcome.refused, [Refusal::VersionUnknown]);
    let outcome = talk(&request(999, 0, false, &[]), &[]);
    assert_eq!(outcome.refused, [Refusal::ApiUnknown]);
    // SaslHandshake 0 is followed by tokens that are no requests.
    let outcome = talk(&request(17, 0, false, &[0, 1, b'x']), &[]);
    assert_eq!(outcome.decided, [(17, Decision::Denied, 35)]);
}

#[test]
fn frames_that_lie_end_the_connection() {
    let mut count = request(3, 1, false, &[0x7f, 0xff, 0xff, 0xff]);
    let negative = request(3, 1, false, &[0xff, 0xff, 0xff, 0xfe]);
    let text = request(3, 1, false, &[0, 0, 0, 1, 0x7f, 0xff]);
    let null = request(3, 1, false, &[0, 0, 0, 1, 0xff, 0xff]);
    let varint = request(3, 9, true, &[0x82, 0x00]);
    let twice = request(18, 3, true, &[1, 1, 2, 0, 0, 0, 0]);
    // A known tag (the cluster id of Fetch) that says another size than it has.
    let mut tag = (-1_i32).to_be_bytes().to_vec();
    tag.extend_from_slice(&[0; 4 + 4 + 4 + 1 + 4 + 4]);
    tag.extend_from_slice(&[1, 1, 1, 1, 0, 9, 2, b'x']);
    let tag = request(1, 12, true, &tag);
    let cases: [(&[u8], Refusal); 10] = [
        (&tag, Refusal::TaggedFields),
        (&count.clone(), Refusal::ArrayCount),
        (&negative, Refusal::LengthNegative),
        (&text, Refusal::FieldBeyond),
        (&null, Refusal::FieldNull),
        (&varint, Refusal::Varint),
        (&twice, Refusal::TaggedFields),
        (&[0xff, 0xff, 0xff, 0xff], Refusal::FrameLength),
        (&[0, 0, 0, 3, 1, 2, 3], Refusal::FrameLength),
        (&[0x7f, 0xff, 0xff, 0xff], Refusal::FrameTooLarge),
    ];
    for (frame, refusal) in cases {
        let outcome = talk(frame, &[]);
        assert_eq!(outcome.refused, [refusal], "{frame:?}");
        assert_eq!((outcome.to_server.len(), outcome.closed), (0, Some(Close::Graceful)));
    }
    // One that must be seen whole, and is too large for that, is refused by its beginning.
    count[..4].copy_from_slice(&5000_i32.to_be_bytes());
    assert_eq!(talk(&count, &[]).refused, [Refusal::HeldTooLarge]);
}

#[test]
fn a_request_that_names_too_much_ends_the_connection() {
    let topics = vec!["a"; 65];
    let outcome = talk(&request(3, 1, false, &metadata(Some(&topics))), &[]);
    assert_eq!(outcome.refused, [Refusal::TooManyTopics]);
    assert_eq!((outcome.to_server.len(), outcome.closed), (0, Some(Close::Graceful)));
    let outcome = talk(&request(3, 1, false, &metadata(Some(&topics[..64]))), &[]);
    assert_eq!((outcome.refused.len(), outcome.decided.len()), (0, 1));
}

/// ListOffsets in version 1 of many partitions of a denied topic: 12 bytes each, and 22 in the answer.
fn list_offsets(partitions: usize) -> Vec<u8> {
    let mut body = (-1_i32).to_be_bytes().to_vec();
    write_length(1, false, &mut body);
    write_text(Some(b"denied"), false, &mut body);
    write_length(partitions, false, &mut body);
    body.resize(body.len() + 12 * partitions, 0);
    request(2, 1, false, &body)
}

#[test]
fn an_answer_that_would_be_too_large_ends_the_connection() {
    let outcome = talk(&list_offsets(300), &[]);
    assert_eq!(outcome.refused, [Refusal::HeldTooLarge]);
    assert_eq!(outcome.to_client, b"");
}

#[test]
fn answers_that_wait_for_their_turn_are_bounded_in_bytes() {
    // The first is the broker's to answer, and it does not: nothing behind it can go out.
    let mut requests = request(3, 1, false, &metadata(Some(&["a"])));
    for _ in 0..8 {
        requests.extend(list_offsets(100));
    }
    let outcome = talk(&requests, &[]);
    // 4,096 bytes may be held; an answer has 2,200.
    assert_eq!(outcome.decided.len(), 1 + 2);
    assert_eq!(outcome.closed, None, "it waits, and reads no more");
}

#[test]
fn what_waits_for_its_turn_is_told_to_who_has_a_bound_on_it() {
    let allowed = request(3, 1, false, &metadata(Some(&["a"])));
    assert_eq!(talk(&allowed, &[]).held, 0, "nothing is kept of what the broker answers");
    let behind = [&allowed[..], &list_offsets(100)].concat();
    let held = talk(&behind, &[]).held;
    assert!((2200..=4400).contains(&held), "{held} bytes");
    // The rest of an answer that is the broker's to begin.
    let partly = request(3, 1, false, &metadata(Some(&["a", "denied"])));
    assert!(talk(&partly, &[]).held >= "denied".len());
    let answer = response(&metadata_response(&[(0, "a")]));
    assert_eq!(talk(&behind, &answer).held, 0);
    assert_eq!(talk(&partly, &answer).held, 0);
}

#[test]
fn bytes_after_the_last_field_are_cut_off() {
    let mut body = metadata(Some(&["a"]));
    body.extend_from_slice(b"hidden");
    let outcome = talk(&request(3, 1, false, &body), &[]);
    assert_eq!(outcome.to_server, request(3, 1, false, &metadata(Some(&["a"]))));
}

#[test]
fn more_requests_than_may_be_in_flight_wait() {
    let one = request(3, 1, false, &metadata(Some(&["a"])));
    let outcome = talk(&one.repeat(20), &[]);
    assert_eq!(outcome.to_server.len(), 8 * one.len());
    let answer = response(&metadata_response(&[(0, "a")]));
    let (requests, responses) = (&one.repeat(20)[..], &answer.repeat(20)[..]);
    let script = Script { requests, responses, reachable: true, ends: false };
    let outcome = run(&script, || 8, by_name);
    assert_eq!((outcome.finished.len(), outcome.to_server), (20, one.repeat(20)));
}

#[test]
fn every_request_of_every_version_passes_as_it_came_where_all_is_allowed() {
    let fine = |_: i16, _: &super::Subject<'_>| true;
    for (key, version) in every_version() {
        for seed in 0..40 {
            let frame = fuzz::some_request(key, version, seed).expect("a request");
            if frame.len() > Limits::default().held_bytes as usize {
                continue;
            }
            let script = Script { requests: &frame, responses: &[], reachable: true, ends: false };
            let outcome = run(&script, || usize::MAX >> 1, fine);
            assert_eq!(outcome.refused, [], "{key} v{version} seed {seed}: {frame:02x?}");
            // But for fetch sessions, and for names that are asked for first.
            let as_it_came = outcome.to_server == frame || outcome.to_server.is_empty();
            let asks_first = outcome.to_server.get(8..12) == Some(b"Port");
            // Or a topic has neither name nor id.
            let nameless = outcome.decided.iter().any(|(.., error)| *error == 100);
            let fine = as_it_came || asks_first || nameless || key == 1;
            assert!(fine, "{key} v{version} seed {seed}");
        }
    }
}

#[test]
fn nothing_denied_passes_in_any_request_of_any_version() {
    for seed in 0..3000_u32 {
        fuzz::kafka_messages(&seed.wrapping_mul(2_654_435_761).to_be_bytes());
    }
}
