//! Portreeve beside other proxies: the same policy, the same load, one run, interleaved.
//!
//! `cargo run --release -p portreeve-benches` prints a table. Every proxy runs on one core, load and
//! upstream on another. The figure is CPU time of the proxy a request, which noise moves least; the
//! ratio to the floor (a relay that looks at nothing) is what to compare between machines. A peer
//! that is not on the machine is named and left out.

use std::process::ExitCode;
use std::time::Instant;

use portreeve_benches::Failure;
use portreeve_benches::contender::{contenders, need};
use portreeve_benches::http1::contender::{HTTP1, upstream};
use portreeve_benches::http1::load;
use portreeve_benches::table::{Options, Question, ask};

const USAGE: &str = "usage: compare [--quick] [WORDS OF A QUESTION]

PATH is searched for wrk, nginx, haproxy; ENVOY names an envoy, PORTREEVE a build to use instead of
this tree's.";

fn main() -> Result<ExitCode, Failure> {
    let options = Options::from_arguments(USAGE);
    need(&["wrk", "nginx", "taskset"], "wrk, nginx, util-linux");
    let upstream = upstream()?;
    let contenders = contenders(&HTTP1, upstream.address);
    let complete = ask(&QUESTIONS, &contenders, upstream.address, &options);
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const QUESTIONS: [Question; 7] = [
    Question {
        what: &["allowed, 64 connections, µs CPU a request"],
        needs_judgement: false,
        once: false,
        measure: |contender, upstream| {
            Ok(vec![load::cpu_per_request(&contender.start(upstream)?, "42", 200)])
        },
    },
    Question {
        what: &["denied, 64 connections, µs CPU a request"],
        needs_judgement: true,
        once: false,
        measure: |contender, upstream| {
            Ok(vec![load::cpu_per_request(&contender.start(upstream)?, "none", 403)])
        },
    },
    Question {
        what: &["allowed, an even 2,000 a second, µs CPU a request", "the same, p50 latency in µs"],
        needs_judgement: false,
        once: false,
        measure: |contender, upstream| {
            let paced = load::paced(&contender.start(upstream)?);
            Ok(vec![paced.cpu_micros, paced.p50_micros])
        },
    },
    Question {
        what: &["1 MiB bodies, CPU seconds a GiB"],
        needs_judgement: false,
        once: false,
        measure: |contender, upstream| Ok(vec![load::cpu_per_gib(&contender.start(upstream)?)]),
    },
    Question {
        what: &["KiB an idle connection (RSS)"],
        needs_judgement: false,
        once: true,
        measure: |contender, upstream| Ok(vec![load::idle_kib(&contender.start(upstream)?)]),
    },
    Question {
        what: &["RSS at rest, MiB"],
        needs_judgement: false,
        once: true,
        measure: |contender, upstream| {
            Ok(vec![contender.start(upstream)?.memory_kib() as f64 / 1024.0])
        },
    },
    Question {
        what: &["start to first answer, ms"],
        needs_judgement: false,
        once: false,
        measure: |contender, upstream| {
            let begin = Instant::now();
            let running = contender.start(upstream)?;
            let answered = begin.elapsed().as_secs_f64() * 1000.0;
            drop(running);
            Ok(vec![answered])
        },
    },
];
