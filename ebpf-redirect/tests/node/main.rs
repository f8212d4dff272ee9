//! A node in miniature: workloads in network namespaces of their own, each with an interface whose other
//! end is here, and real sockets. Takes root; elsewhere each test says so.
#![expect(clippy::expect_used, reason = "a test fails by it")]

mod agreement;
mod cost;
mod dialled;
mod evasion;
mod full;
mod interfaces;
mod life_cycle;
mod net;
mod packets;
mod proxied;
mod refused;
mod revisions;
mod rules;
mod services;
mod tracked;

use libtest_mimic::{Arguments, Trial};

use self::net::Node;

fn main() {
    let arguments = Arguments::from_args();
    let missing = net::missing();
    let files = [
        rules::TESTS,
        refused::TESTS,
        tracked::TESTS,
        evasion::TESTS,
        services::TESTS,
        dialled::TESTS,
        proxied::TESTS,
        revisions::TESTS,
        life_cycle::TESTS,
        interfaces::TESTS,
        full::TESTS,
        agreement::TESTS,
        cost::TESTS,
    ];
    let mut tests = Vec::new();
    for (name, test) in files.concat() {
        let shown = match &missing {
            None => (*name).to_owned(),
            Some(missing) => format!("{name} (not run: {missing})"),
        };
        let run = move || {
            test(&mut Node::new());
            Ok(())
        };
        tests.push(Trial::test(shown, run).with_ignored_flag(missing.is_some()));
    }
    if missing.is_none() && !arguments.list {
        net::leave_the_host();
    }
    let arguments = Arguments { test_threads: Some(1), ..arguments };
    libtest_mimic::run(&arguments, tests).exit();
}

/// A test, by a name that reads as a sentence.
type Test = (&'static str, fn(&mut Node));
