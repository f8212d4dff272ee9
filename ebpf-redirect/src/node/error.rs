//! Why a node's datapath can't be set up or changed. What was in force before, still is.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{MapError, SetupError};

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// What is pinned was made by another version, or with less room.
    #[error(
        "what is pinned in `{}` can't be taken over: {found}; `{}` first, after which workloads are not \
         judged until they are attached again",
        path.display(),
        detach_command(path)
    )]
    Layout {
        /// Where it is pinned.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// The folder, the maps or the programs.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A map can't be read or written.
    #[error(transparent)]
    Map(#[from] MapError),
    /// An interface can't be attached to.
    #[error("can't attach `{program}` to the interface with the number {interface}: {source}")]
    Attach {
        /// The program.
        program: &'static str,
        /// The interface.
        interface: u32,
        /// Why not.
        source: io::Error,
    },
    /// Its packets begin otherwise than programs expect, so that they would read what is not there.
    #[error(
        "the interface with the number {interface} is not of Ethernet, as tunnels are not: its packets can't \
         be read; attach a workload by a veth or the like, and have `kernel.devices` name other ways outside"
    )]
    NotEthernet {
        /// The interface.
        interface: u32,
    },
    /// The network can't be set up so that packets reach the proxy.
    #[error("can't {doing}: {source}")]
    Network {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A listening socket is not what programs can hand packets to.
    #[error("can't use a listening socket for the proxy: {0}")]
    Listener(io::Error),
}

/// The command that removes what is pinned in `<bpffs>/portreeve-node/<instance>`.
fn detach_command(path: &Path) -> String {
    let instance = path.file_name().unwrap_or_default().to_string_lossy().replace('+', ".");
    let bpffs = path.ancestors().nth(2).unwrap_or(path).display();
    format!("portreeve-node detach --bpffs {bpffs} --instance {instance}")
}

impl NodeError {
    pub(super) fn network(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Network { doing, source }
    }
}
