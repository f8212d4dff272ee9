//! Why a redirection can't be set up or changed.

use std::io;
use std::path::PathBuf;

use crate::join::JoinError;
use crate::preflight::Missing;
use crate::services::ServiceError;

/// Why a redirection can't be set up. Nothing was attached that was not attached before.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Something has to be there first.
    #[error("{}", list(.0))]
    Missing(Vec<Missing>),
    /// Another process has the instance.
    #[error(
        "instance `{instance}` is in use by process {}: end it first, or choose another name with --instance",
        holder.map_or_else(|| "that can't be seen from here".to_owned(), |pid| pid.to_string())
    )]
    InUse {
        /// The instance.
        instance: String,
        /// The process that has it, if it is one of those in sight.
        holder: Option<u32>,
    },
    /// What is pinned was made by another version.
    #[error(
        "instance `{instance}` was set up by another version ({found}): \
         `portreeve redirect detach --instance {instance}` first"
    )]
    Layout {
        /// The instance.
        instance: String,
        /// What was found.
        found: String,
    },
    /// What is pinned has less room than is asked for.
    #[error(
        "map {map} of instance `{instance}` has room for {pinned} entries, not for {wanted}: \
         `portreeve redirect detach --instance {instance}` first"
    )]
    Capacity {
        /// The instance.
        instance: String,
        /// The map.
        map: &'static str,
        /// Entries there is room for.
        pinned: u32,
        /// Entries that are asked for.
        wanted: u32,
    },
    /// What is pinned is attached to another workload.
    #[error(
        "instance `{instance}` is attached to another cgroup (number {cgroup}): choose another name with \
         --instance, or `portreeve redirect detach --instance {instance}` first"
    )]
    OtherCgroup {
        /// The instance.
        instance: String,
        /// The other cgroup's number.
        cgroup: u64,
    },
    /// The workload runs already, and what it listens on can't be seen.
    #[error(
        "{processes} of the workload's processes run already, and this one may not see their sockets, so that \
         connections to the ports they hold could not be judged: start the proxy before the workload, or let \
         it see them (CAP_SYS_PTRACE, and the same PID namespace)"
    )]
    Unseen {
        /// How many.
        processes: usize,
    },
    /// The kernel does not take a program.
    #[error("the kernel ({kernel}) does not take the program `{program}`: {reason}; {hint}")]
    Load {
        /// The program.
        program: String,
        /// The kernel's version.
        kernel: String,
        /// What it said.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// The kernel does not take the maps.
    #[error("the kernel ({kernel}) does not take the maps: {reason}; {hint}")]
    Maps {
        /// The kernel's version.
        kernel: String,
        /// What it said.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// A program can't be attached.
    #[error("`{program}` can't be attached: {source}; everything is as it was before")]
    Attach {
        /// The program.
        program: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Sockets can't be joined.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// A map can't be read or written.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A file can't be used.
    #[error("{doing} `{}`: {source}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl SetupError {
    pub(crate) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }
}

/// Why the kernel's maps don't have what they were to have. What was in force before, still is.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// There is no room.
    #[error("map {map} is full: {entries} entries don't fit where there is room for {capacity}")]
    Full {
        /// The map.
        map: &'static str,
        /// How many there would be.
        entries: usize,
        /// How many it takes.
        capacity: u32,
    },
    /// Services can't be so.
    #[error(transparent)]
    Services(#[from] ServiceError),
    /// The kernel refuses.
    #[error("{doing} map {map}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// The map.
        map: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl MapError {
    pub(crate) fn system(doing: &'static str, map: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { doing, map, source }
    }
}

fn list(missing: &[Missing]) -> String {
    let mut lines = vec!["this can't be redirected yet:".to_owned()];
    lines.extend(missing.iter().map(|one| format!("  {one}: {}", one.hint())));
    lines.join("\n")
}
