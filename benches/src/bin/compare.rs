//! Portreeve beside other proxies: the same policy, the same load, one run, interleaved.
//!
//! `cargo run --release -p portreeve-benches` prints a table. Every proxy runs on one core, load and
//! upstream on another. The figure is CPU time of the proxy a request, which noise moves least; the
//! ratio to the floor (a relay that looks at nothing) is what to compare between machines. A peer
//! that is not on the machine is named and left out.
//!
//! | module | what |
//! | --- | --- |
//! | `contender` | the proxies, and their configuration for the same policy |
//! | `load` | requests as fast as they are answered, at an even rate, idle, large |
//! | `process` | where the programs are, and their CPU time and memory |

#[path = "../contender.rs"]
mod contender;
#[path = "../load.rs"]
mod load;
#[path = "../process.rs"]
mod process;

use std::time::Instant;

use self::contender::{Contender, Upstream, contenders};
use self::process::Running;

/// Each measurement is repeated so often, all proxies in turn; the median counts.
const ROUNDS: usize = 5;

fn main() {
    let rounds = match std::env::args().nth(1).as_deref() {
        None => ROUNDS,
        Some("--quick") => 2,
        Some(_) => {
            eprintln!(
                "usage: compare [--quick]\n\nPATH is searched for wrk, nginx, haproxy; ENVOY names an envoy."
            );
            std::process::exit(2);
        }
    };
    for needed in ["wrk", "nginx", "taskset"] {
        if contender::program(needed).is_none() {
            eprintln!(
                "error: no `{needed}` here; it makes the load or serves it (Debian: wrk, nginx, util-linux)"
            );
            std::process::exit(1);
        }
    }
    let upstream = Upstream::start();
    let (present, missing) = contenders();
    for name in missing {
        println!("not on this machine, left out: {name}");
    }
    let names: Vec<&str> = present.iter().map(|contender| contender.name).collect();
    println!("\nMedians of {rounds} rounds; in brackets the ratio to the floor.\n");
    println!("| what | {} |", names.join(" | "));
    println!("| --- |{}", " --- |".repeat(names.len()));
    for question in QUESTIONS {
        let mut columns: Vec<Vec<f64>> = vec![Vec::new(); present.len()];
        for _ in 0..if question.once { 1 } else { rounds } {
            for (contender, column) in present.iter().zip(&mut columns) {
                if contender.judges || !question.needs_judgement {
                    column.push((question.measure)(contender, &upstream));
                }
            }
        }
        let medians: Vec<Option<f64>> = columns.into_iter().map(median).collect();
        let floor = medians.first().copied().flatten();
        let cells = medians.iter().map(|value| cell(*value, floor));
        println!("| {} | {} |", question.what, cells.collect::<Vec<_>>().join(" | "));
    }
}

/// One line of the table.
struct Question {
    what: &'static str,
    /// The floor denies nothing.
    needs_judgement: bool,
    once: bool,
    measure: fn(&Contender, &Upstream) -> f64,
}

const QUESTIONS: [Question; 8] = [
    Question {
        what: "allowed, 64 connections, µs CPU a request",
        needs_judgement: false,
        once: false,
        measure: |contender, upstream| {
            let running = contender.start(upstream);
            load::cpu_per_request(&running, "42", 200)
        },
    },
    Question {
        what: "denied, 64 connections, µs CPU a request",
        needs_judgement: true,
        once: false,
        measure: |contender, upstream| {
            let running = contender.start(upstream);
            load::cpu_per_request(&running, "none", 403)
        },
    },
    Question {
        what: "allowed, an even 2,000 a second, µs CPU a request",
        needs_judgement: false,
        once: false,
        measure: |contender, upstream| load::paced(&contender.start(upstream)).cpu_micros,
    },
    Question {
        what: "the same, p50 latency in µs",
        needs_judgement: false,
        once: false,
        measure: |contender, upstream| load::paced(&contender.start(upstream)).p50_micros,
    },
    Question {
        what: "1 MiB bodies, CPU seconds a GiB",
        needs_judgement: false,
        once: false,
        measure: |contender, upstream| load::cpu_per_gib(&contender.start(upstream)),
    },
    Question {
        what: "KiB an idle connection (RSS)",
        needs_judgement: false,
        once: true,
        measure: |contender, upstream| load::idle_kib(&contender.start(upstream)),
    },
    Question {
        what: "RSS at rest, MiB",
        needs_judgement: false,
        once: true,
        measure: |contender, upstream| contender.start(upstream).memory_kib() as f64 / 1024.0,
    },
    Question {
        what: "start to first answer, ms",
        needs_judgement: false,
        once: false,
        measure: |contender, upstream| {
            let begin = Instant::now();
            let running: Running = contender.start(upstream);
            let answered = begin.elapsed().as_secs_f64() * 1000.0;
            drop(running);
            answered
        },
    },
];

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    (!values.is_empty()).then(|| values[values.len() / 2])
}

fn cell(value: Option<f64>, floor: Option<f64>) -> String {
    match (value, floor) {
        (None, _) => "–".to_owned(),
        (Some(value), Some(floor)) if floor > 0.0 => {
            format!("{value:.2} ({:.2})", value / floor)
        }
        (Some(value), _) => format!("{value:.2}"),
    }
}
