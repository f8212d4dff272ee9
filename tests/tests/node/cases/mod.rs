//! The policy cases, on a wire: each case's policies go to a real daemon as files, each of its questions is
//! asked by a real packet, and what became of that is compared with what the engine says (which is what the
//! case expects: `policy-model/tests/policy_cases.rs`).
//!
//! A question is about one side's policy. So its subject alone is a workload of the node; everybody else is a
//! peer elsewhere, with the labels and addresses that the case gives it.
//!
//! ```text
//!  a namespace for each address of a workload ──veth── one cable each ┐
//!  out: everybody else, whatever their address ──veth── pout          ├─ node: portreeve-node
//!                                                reserved:host itself ┘
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `read.rs` | a case as data, and which questions can't be asked on a wire, and why |
//! | `place.rs` | the miniature node, and the objects of a case for its daemon |
//! | `flow.rs` | connections and datagrams, and what became of them |
//! | `kafka.rs` | Kafka requests |

mod flow;
mod kafka;
mod place;
mod read;

use std::collections::BTreeMap;
use std::time::Instant;

use portreeve_tests::node::NEEDS;
use portreeve_tests::trial;

use self::place::World;
use self::read::{Case, Query, Settings};

/// So many questions are asked on a wire, and so many can't be. More cases, or cases that have become possible,
/// change this; fewer are a mistake.
const ASKED: usize = 219;

pub(super) fn trials() -> Vec<libtest_mimic::Trial> {
    vec![trial("policy_cases_have_their_answers_on_a_wire", &NEEDS, on_a_wire)]
}

fn on_a_wire() {
    let mut cases = read::all();
    // Cases with the same settings share a daemon's run.
    cases.sort_by_key(|case| case.settings);
    let began = Instant::now();
    let (mut asked, mut wrong) = (0, Vec::new());
    let mut left_out: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut world = World::new(&cases);
    for (number, case) in cases.iter().enumerate() {
        for subject in case.subjects() {
            let mut ready = false;
            for query in case.queries.iter().filter(|query| query.subject == subject) {
                if let Some(reason) = case.unaskable(query) {
                    left_out.entry(reason).or_default().push(&case.id);
                    continue;
                }
                if !std::mem::replace(&mut ready, true) {
                    world.settle(number, case, subject);
                }
                asked += 1;
                wrong.extend(ask(&world, case, query));
            }
        }
    }
    println!("{:?}", began.elapsed());
    report(asked, &left_out);
    assert!(wrong.is_empty(), "{} of {asked} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(asked, ASKED, "questions asked; if that is right, change `ASKED`");
}

/// What is wrong with what became of a question, in every family that it can be asked in.
fn ask(world: &World, case: &Case, query: &Query) -> Vec<String> {
    let flows = world.flows(case, query);
    assert!(!flows.is_empty(), "{}: nobody to ask {query:?}", case.id);
    let judge = |flow: flow::Flow| {
        let got = flow.run(&world.net);
        let right = got == Ok(query.expected());
        (!right).then(|| format!("{}: {query:?}: {got:?}", case.id))
    };
    flows.into_iter().filter_map(judge).collect()
}

fn report(asked: usize, left_out: &BTreeMap<&str, Vec<&str>>) {
    println!("{asked} questions asked on a wire; not asked:");
    for (reason, cases) in left_out {
        let mut names = cases.clone();
        names.dedup();
        println!("  {:3} {reason}: {}", cases.len(), names.join(" "));
    }
}

impl Settings {
    /// For the daemon's configuration.
    fn config(self) -> String {
        format!(
            "policy: {{enforcement: {}, allow_localhost: {}}}",
            self.enforcement, self.allow_localhost
        )
    }
}
