//! `portreeve policy …`: policy checked, tested, explained and compared before it is applied.
//!
//! | file | what |
//! | --- | --- |
//! | `check.rs` | every error and warning at once |
//! | `test.rs` | policy unit tests |
//! | `explain.rs` | one question, the answer, and the way to it |
//! | `diff.rs` | who gains and who loses access |

mod check;
mod diff;
mod explain;
mod test;

use crate::Failure;
use crate::cli::PolicyCommand;

/// Runs one of the commands.
pub(crate) fn run(command: PolicyCommand) -> Result<(), Failure> {
    match command {
        PolicyCommand::Check(arguments) => check::run(&arguments),
        PolicyCommand::Test(arguments) => test::run(&arguments),
        PolicyCommand::Explain(arguments) => explain::run(&arguments),
        PolicyCommand::Diff(arguments) => diff::run(&arguments),
        PolicyCommand::Schema(arguments) => crate::print(schema(&arguments.kind)),
    }
}

/// The schema of a kind; clusterwide policies have that of their namespaced sisters.
fn schema(kind: &str) -> &'static str {
    match kind {
        "TrafficPolicy" => include_str!("../../../policy-model/schema/TrafficPolicy.json"),
        _ => include_str!("../../../policy-model/schema/CiliumNetworkPolicy.json"),
    }
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs: one object a line.
    Json,
}
