//! Miniature nodes: `portreeve-node` in a network namespace, workloads in others, and hosts outside.
//!
//! | module | what |
//! | --- | --- |
//! | [`cases`] | the policy cases, on a wire |
//! | [`routed`] | workloads that the node routes for |

mod cases;
mod routed;

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    let tests = [routed::trials(), cases::trials()].into_iter().flatten().collect();
    // What one daemon costs another would be felt as a test that takes too long.
    let arguments = libtest_mimic::Arguments { test_threads: Some(1), ..arguments };
    libtest_mimic::run(&arguments, tests).exit();
}
