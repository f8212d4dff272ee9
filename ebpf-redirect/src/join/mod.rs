//! Joining the workload's sockets with the proxy's: what a message of one is, goes straight to the other's
//! queue, past TCP (`programs/src/join.rs`). Kernels have had faults there more than once, so it is tried
//! on the running one before it is done.
//!
//! | file | what |
//! | --- | --- |
//! | `self_test.rs` | the cases that have to come out right |
//! | `scratch.rs` | the programs with maps of their own, and pairs of sockets |
//! | `exchange.rs` | bytes that tell when they are lost or out of order |
//! | `layout.rs` | where the kernel has what programs look at |
//! | `repair.rs` | where a socket's next byte is |

mod exchange;
mod layout;
mod repair;
#[cfg(test)]
mod retransmission;
mod scratch;
mod self_test;
#[cfg(test)]
mod tests;

use std::io;

use portreeve_ebpf_common::KernelLayout;

pub use self::self_test::self_test;
use crate::sys::attach_type;

/// Why sockets can't be joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The kernel does not say where it has what programs look at.
    #[error(
        "sockets can't be joined: the kernel does not describe its structures ({0}); it needs \
         CONFIG_DEBUG_INFO_BTF, or `redirect.sockmap: off`"
    )]
    Layout(#[source] io::Error),
    /// It does not take the programs.
    #[error("sockets can't be joined: {0}; `redirect.sockmap: off` does without")]
    Programs(String),
    /// It does not carry all bytes as TCP does.
    #[error(
        "sockets can't be joined on this kernel: {}; `redirect.sockmap: off` does without",
        failed.join("; ")
    )]
    Unsafe {
        /// Each case that failed, and how.
        failed: Vec<String>,
    },
}

/// The map of sockets that are joined.
pub(crate) const JOINED: &str = "JOINED";

/// What is attached to that map. The one without effect comes first: without it, sockets that are
/// enrolled don't count right.
pub(crate) const PROGRAMS: [(&str, u32); 2] = [
    ("portreeve_sk_skb", attach_type::SK_SKB_STREAM_VERDICT),
    ("portreeve_sk_msg", attach_type::SK_MSG_VERDICT),
];

/// The symbol of what programs know about the kernel.
pub(crate) const KERNEL: &str = "KERNEL";

/// Its value on the running kernel.
pub(crate) fn kernel_words() -> Result<[u32; 8], JoinError> {
    layout::read().map(|layout| words(&layout)).map_err(JoinError::Layout)
}

fn words(layout: &KernelLayout) -> [u32; 8] {
    let KernelLayout {
        write_seq,
        rmem_alloc,
        sock_flags,
        zerocopy,
        socket,
        file,
        file_flags,
        control,
    } = *layout;
    [write_seq, rmem_alloc, sock_flags, zerocopy, socket, file, file_flags, control]
}
