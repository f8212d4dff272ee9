//! Peers that a suite's `fetch` script brings, and what they are expected to print. A suite is a folder
//! here and one of the same name in the target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::needed;

/// The folder of what a suite's `fetch` brought.
///
/// # Panics
/// When the test lies nowhere.
#[must_use]
pub fn fetched(suite: &str) -> PathBuf {
    // target/<profile>/deps/<test>
    let test = std::env::current_exe().expect("the test's own path");
    test.ancestors().nth(3).expect("the target folder").join(suite)
}

/// The folder of a suite's sources.
#[must_use]
pub fn sources(suite: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(suite)
}

/// Runs a client to its end, and compares what it printed.
///
/// # Panics
/// When it printed something else.
pub fn assert_printed(suite: &str, name: &str, command: &mut Command) {
    let output = limited(command, 300).output().expect("the client runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    let messages = String::from_utf8_lossy(&output.stderr);
    let tail: Vec<&str> = messages.lines().rev().take(20).collect();
    assert_expected(suite, name, &printed, &tail.join("\n"));
}

/// The same command, ended after so many seconds: a client that hangs is to fail its test.
#[must_use]
pub fn limited(command: &Command, seconds: u32) -> Command {
    let mut limited = Command::new(needed("timeout"));
    limited.arg(seconds.to_string()).arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        limited.current_dir(folder);
    }
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited
}

/// Compares what a client printed; `UPDATE_EXPECTED=1` writes it down instead.
///
/// # Panics
/// When it printed something else; with `said` beside it.
pub fn assert_expected(suite: &str, name: &str, printed: &str, said: &str) {
    let path = sources(suite).join("expected").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, printed).expect("written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(printed, expected, "{said}");
}
