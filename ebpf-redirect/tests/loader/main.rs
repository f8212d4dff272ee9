//! The loader against the kernel: a network namespace, a bpf file system and cgroups of the test's own,
//! and processes in them. Takes root; elsewhere each test says so.
//!
//! This program is also the processes of its tests: `as workload`, `as proxy`.
#![expect(clippy::expect_used, reason = "a test fails by it")]

mod host;
mod joined;
mod life_cycle;
mod policy;
mod refusals;
mod roles;
mod talker;
mod traffic;

use libtest_mimic::{Arguments, Trial};

use self::host::Host;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, rest @ ..] = &arguments[..]
        && role == "as"
    {
        return roles::run(rest);
    }
    let arguments = Arguments::from_args();
    let missing = host::missing();
    let mut tests = Vec::new();
    let files = [life_cycle::TESTS, policy::TESTS, traffic::TESTS, refusals::TESTS, joined::TESTS];
    for (name, test) in files.concat() {
        let shown = match &missing {
            None => (*name).to_owned(),
            Some(missing) => format!("{name} (not run: {missing})"),
        };
        let run = move || {
            test(&Host::new(name));
            Ok(())
        };
        tests.push(Trial::test(shown, run).with_ignored_flag(missing.is_some()));
    }
    if missing.is_none() && !arguments.list {
        // Threads that are started from here on are in it.
        host::leave_the_network();
    }
    let arguments = Arguments { test_threads: Some(1), ..arguments };
    libtest_mimic::run(&arguments, tests).exit();
}

/// A test, by a name that reads as a sentence.
type Test = (&'static str, fn(&Host));
