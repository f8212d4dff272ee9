//! Reading the file, and errors that say where and what to do.

use std::path::Path;

use portreeve_policy::{Diagnostic, Severity};

use super::file::File;
use crate::Failure;

/// Reads a configuration file.
pub(crate) fn read(path: &Path) -> Result<File, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::config(format!(
            "error: can't read the configuration `{}`: {error}",
            path.display()
        ))
    })?;
    parse(&path.display().to_string(), &text).map_err(Failure::config)
}

/// Reads a configuration's text.
pub(super) fn parse(name: &str, text: &str) -> Result<File, Box<Diagnostic>> {
    let mut options = serde_saphyr::Options::default();
    options.with_snippet = false;
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let location = error.location();
        let bounded = |n| u32::try_from(n).unwrap_or(u32::MAX);
        let (line, column) =
            location.map_or((0, 0), |at| (bounded(at.line()), bounded(at.column())));
        let message = error.without_snippet().to_string();
        let message = message.lines().next().unwrap_or_default();
        // The place stands before the message already.
        let message = match message.find(" at line ") {
            Some(at) => &message[..at],
            None => message,
        };
        Box::new(Diagnostic {
            advice: false,
            severity: Severity::Error,
            source: name.to_owned(),
            line,
            column,
            path: String::new(),
            message: message.to_owned(),
            hint: Some("`portreeve config example` shows every key".to_owned()),
            excerpt: text.lines().nth((line.max(1) - 1) as usize).map(str::to_owned),
        })
    })
}
