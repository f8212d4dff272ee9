//! HTTP/2 and gRPC through Portreeve beside other proxies: the same policy, the same load, one run,
//! interleaved.
//!
//! `cargo run --release -p portreeve-benches --bin grpc` prints a table as `compare` does: every proxy
//! on one core, load and upstream on another; what counts is CPU time of the proxy, and the ratio to
//! a relay that looks at nothing. A proxy that is not here or does not do what policy says is left
//! out with the reason; a run with a wrong or missing answer is no measurement but an error.

use std::process::ExitCode;

use portreeve_benches::Failure;
use portreeve_benches::contender::{contenders, need};
use portreeve_benches::grpc::contender::{GRPC, upstream};
use portreeve_benches::grpc::h2load::{self, Shape};
use portreeve_benches::grpc::{even, load};
use portreeve_benches::table::{Options, Question, ask};

const USAGE: &str = "usage: grpc [--quick] [WORDS OF A QUESTION]

PATH is searched for h2load, nginx, haproxy; ENVOY names an envoy, PORTREEVE a build to use instead
of this tree's.";

fn main() -> Result<ExitCode, Failure> {
    let options = Options::from_arguments(USAGE);
    need(&["h2load", "taskset"], "nghttp2-client, util-linux");
    let upstream = upstream()?;
    let contenders = contenders(&GRPC, upstream.address);
    let complete = ask(&QUESTIONS, &contenders, upstream.address, &options);
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const QUESTIONS: [Question; 11] = [
    Question {
        what: &["unary, 8 connections × 8 streams, µs CPU a call"],
        needs_judgement: false,
        once: false,
        measure: |contender, upstream| {
            let shape = Shape { connections: 8, streams: 8 };
            Ok(vec![h2load::allowed(&contender.start(upstream)?, shape)?])
        },
    },
    Question {
        what: &["unary, 64 × 1, µs CPU a call"],
        needs_judgement: false,
        once: false,
        measure: |contender, upstream| {
            let shape = Shape { connections: 64, streams: 1 };
            Ok(vec![h2load::allowed(&contender.start(upstream)?, shape)?])
        },
    },
    Question {
        what: &["unary, 1 × 100, µs CPU a call"],
        needs_judgement: false,
        once: false,
        measure: |contender, upstream| {
            let shape = Shape { connections: 1, streams: 100 };
            Ok(vec![h2load::allowed(&contender.start(upstream)?, shape)?])
        },
    },
    Question {
        what: &["unary, 1 × 1, µs CPU a call"],
        needs_judgement: false,
        once: false,
        measure: |contender, upstream| {
            let shape = Shape { connections: 1, streams: 1 };
            Ok(vec![h2load::allowed(&contender.start(upstream)?, shape)?])
        },
    },
    Question {
        what: &["denied, 8 × 8, µs CPU a call"],
        needs_judgement: true,
        once: false,
        measure: |contender, upstream| {
            let shape = Shape { connections: 8, streams: 8 };
            Ok(vec![h2load::denied(&contender.start(upstream)?, shape)?])
        },
    },
    Question {
        what: &["streaming, 8 × 1, µs CPU a message and its echo"],
        needs_judgement: false,
        once: false,
        measure: |contender, upstream| Ok(vec![load::chat(&contender.start(upstream)?)?]),
    },
    Question {
        what: &["1 MiB messages there and back, 8 × 1, CPU seconds a GiB"],
        needs_judgement: false,
        once: false,
        measure: |contender, upstream| {
            let shape = Shape { connections: 8, streams: 1 };
            Ok(vec![h2load::large(&contender.start_for_bulk(upstream)?, shape)?])
        },
    },
    Question {
        what: &[
            "unary, an even 2,000 a second, µs CPU a call",
            "the same, p50 latency in µs",
            "the same, p99 latency in µs",
        ],
        needs_judgement: false,
        once: false,
        measure: |contender, upstream| {
            let even = even::rate(&contender.start(upstream)?)?;
            Ok(vec![even.cpu_micros, even.p50_micros, even.p99_micros])
        },
    },
    Question {
        what: &["KiB an idle connection (RSS)"],
        needs_judgement: false,
        once: true,
        measure: |contender, upstream| Ok(vec![load::idle_kib(&contender.start(upstream)?)?]),
    },
    Question {
        what: &["KiB an open, silent stream (RSS)"],
        needs_judgement: false,
        once: true,
        measure: |contender, upstream| Ok(vec![load::watch_kib(&contender.start(upstream)?)?]),
    },
    Question {
        what: &["RSS at rest, MiB"],
        needs_judgement: false,
        once: true,
        measure: |contender, upstream| {
            Ok(vec![contender.start(upstream)?.memory_kib() as f64 / 1024.0])
        },
    },
];
