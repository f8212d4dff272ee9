//! Tasks of the repository that cargo has no command for: `cargo run -p xtask -- build-ebpf`.

mod build_ebpf;
mod toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of the repository that cargo has no command for.
#[derive(Parser)]
#[command(name = "xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the kernel programs and put the object where the loader takes it from
    BuildEbpf {
        /// Build, and compare with the object that is committed, byte by byte; exit code 1 if they differ
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let Task::BuildEbpf { check } = Cli::parse().task;
    match build_ebpf::run(check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
