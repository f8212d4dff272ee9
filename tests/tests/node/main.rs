//! Miniature nodes: `portreeve-node` in a network namespace, workloads in others, and hosts outside.
//!
//! | module | what |
//! | --- | --- |
//! | [`routed`] | workloads that the node routes for |

mod routed;

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    let tests = routed::trials();
    // What one daemon costs another would be felt as a test that takes too long.
    let arguments = libtest_mimic::Arguments { test_threads: Some(1), ..arguments };
    libtest_mimic::run(&arguments, tests).exit();
}
