//! Messages of the daemon, on standard error.

use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use crate::cli::LogArguments;
use crate::command::Failure;

/// The variable that sets the level when no flag does.
const VARIABLE: &str = "PORTREEVE_LOG";

/// Starts logging.
pub(crate) fn start(arguments: &LogArguments) -> Result<(), Failure> {
    let wanted = match &arguments.log_level {
        Some(level) => level.clone(),
        None => std::env::var(VARIABLE).unwrap_or_else(|_| "info".to_owned()),
    };
    let filter: Targets = wanted.parse().map_err(|error| {
        Failure::usage(format!(
            "error: `{wanted}` is not a log level: {error}\n  \
             hint: error, warn, info, debug, trace, or a filter such as `info,portreeve_node=debug`"
        ))
    })?;
    let messages = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    match arguments.log_format.as_str() {
        "json" => registry.with(messages.json()).init(),
        _ => registry.with(messages.with_target(false).with_ansi(is_terminal())).init(),
    }
    Ok(())
}

fn is_terminal() -> bool {
    use std::io::IsTerminal;
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
