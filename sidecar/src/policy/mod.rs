//! `portreeve policy …`: policy checked, tested, explained and compared before it is applied.
//!
//! | file | what |
//! | --- | --- |
//! | `check.rs` | every error and warning at once |
//! | `test.rs` | policy unit tests |

mod check;
mod test;

use crate::Failure;
use crate::cli::PolicyCommand;

/// Runs one of the commands.
pub(crate) fn run(command: PolicyCommand) -> Result<(), Failure> {
    match command {
        PolicyCommand::Check(arguments) => check::run(&arguments),
        PolicyCommand::Test(arguments) => test::run(&arguments),
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
