//! Miniature nodes: `portreeve-node` in a network namespace, workloads in others, and hosts outside.
//!
//! | module | what |
//! | --- | --- |
//! | [`bridged`] | the same on a bridge |
//! | [`bridged_nodes`] | a node with a bridge, and another node |
//! | [`cases`] | the policy cases, on a wire |
//! | [`changes`] | interfaces and addresses that go, come and change hands |
//! | [`health`] | backends that are asked whether they are well, and nodes that are asked for theirs |
//! | [`kafka`] | a real Kafka client and a real broker |
//! | [`nodes`] | two nodes, and a host outside |
//! | [`routed`] | workloads that the node routes for |
//! | [`services`] | services, asked for inside and from outside |
//! | [`start`] | starts that fail, and what is not to be begun with |

mod bridged;
mod bridged_nodes;
mod cases;
mod changes;
mod health;
mod kafka;
mod nodes;
mod routed;
mod services;
mod start;

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    let tests = [
        routed::trials(),
        bridged::trials(),
        nodes::trials(),
        services::trials(),
        health::trials(),
        bridged_nodes::trials(),
        kafka::trials(),
        changes::trials(),
        start::trials(),
        cases::trials(),
    ];
    let tests = tests.into_iter().flatten().collect();
    // Most of the time is waiting; of more at once, what one daemon costs another would be felt as waiting too long.
    let arguments = libtest_mimic::Arguments { test_threads: Some(2), ..arguments };
    libtest_mimic::run(&arguments, tests).exit();
}
