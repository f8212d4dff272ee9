//! The configuration file.
//!
//! | file | what |
//! | --- | --- |
//! | `file.rs` | the file's keys as types, strict, with every default |
//! | `read.rs` | reading it, and errors with file, line and what to do |
//! | `redirect.rs`, `services.rs` | the sections about programs inside of the kernel |
//! | `limits.rs` | the limits, each within its range |
//! | `resolve.rs` | from file or flags to what the proxy is told |
//! | `authz.rs` | from file or flags to what `portreeve authz` is told |
//! | `example.yaml` | every key with its default and what it is for; also the source of `docs/configuration.md` |

mod advertised;
mod authz;
mod file;
mod limits;
mod read;
mod redirect;
mod resolve;
mod services;
#[cfg(test)]
mod tests;

use std::path::Path;

pub(crate) use self::authz::guard_from_flags;
pub(crate) use self::read::read;
pub(crate) use self::resolve::{RunConfig, flag_peers, from_file, from_flags, services, usage};
use crate::Failure;

/// The commented example.
pub(crate) const EXAMPLE: &str = include_str!("example.yaml");

/// `portreeve config check`.
pub(crate) fn check(file: &Path) -> Result<(), Failure> {
    let config = from_file(&read(file)?, file)?;
    for warning in portreeve_core::check_policy(&config.proxy).map_err(Failure::policy)? {
        eprintln!("{warning}");
    }
    crate::print(&format!("{}: good\n", file.display()))
}
