//! `portreeve`: the policy sidecar of one workload.
//!
//! | module | what |
//! | --- | --- |
//! | `cli` | commands and flags |
//! | `config` | the configuration file: reading, checking, the commented example |
//! | `run` | `portreeve run`: starts the proxy, obeys signals |
//! | `redirect` | programs inside of the kernel that feed the proxy, or another one |
//! | `policy` | `portreeve policy …`: policy checked, tested, explained, compared |
//! | `authz` | `portreeve authz …`: Envoy and nginx ask, the policy answers |
//! | `demo` | `portreeve demo`: policy at work in one command |
//! | `logging` | messages on standard error |

mod authz;
mod cli;
mod config;
mod demo;
mod logging;
mod policy;
mod redirect;
mod run;

use std::process::ExitCode;

use clap::Parser;

use self::cli::{Cli, Command, ConfigCommand};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Run(arguments) => run::run(arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Config(ConfigCommand::Example) => print(config::EXAMPLE),
        Command::Config(ConfigCommand::Check { file }) => config::check(&file),
        Command::Policy(command) => policy::run(command),
        Command::Redirect(command) => redirect::run(&command),
        Command::Authz(command) => authz::run(&command),
        Command::Version => print(concat!("portreeve ", env!("CARGO_PKG_VERSION"), "\n")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("{}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

/// Why the process ends, and with which code.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Something went wrong.
    fn new(message: impl std::fmt::Display) -> Self {
        Self { code: 1, message: format!("error: {message}") }
    }

    /// Everything has been said already.
    fn silent(code: u8) -> Self {
        Self { code, message: String::new() }
    }

    /// The policy is to be mended; what is wrong with documents says `error` itself.
    fn policy(error: impl std::fmt::Display) -> Self {
        let text = error.to_string();
        let prefix = if text.starts_with("error") { "" } else { "error: " };
        Self::config(format!("{prefix}{text}"))
    }

    /// The configuration or the policy is to be mended; the message says where.
    fn config(message: impl std::fmt::Display) -> Self {
        Self { code: 78, message: message.to_string() }
    }
}

/// Prints to standard output; a reader that has seen enough is no failure.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(error)),
        _ => Ok(()),
    }
}
