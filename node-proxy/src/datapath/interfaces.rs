//! Which interface of the host leads to a workload.

use std::os::fd::OwnedFd;

use portreeve_ebpf::node::{NodeKernel, host_end};
use rustix::net::netdevice::{index_to_name, name_to_index};
use rustix::net::{AddressFamily, SocketType, socket};

use super::DatapathError;
use super::outside::Outside;
use crate::objects::Attachment;

/// An interface as it was when an endpoint was attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    /// How it was named.
    pub(super) attachment: Attachment,
    pub(super) name: String,
    pub(super) number: u32,
}

/// The interface that a workload is attached by.
pub(super) fn interface(attachment: &Attachment) -> Result<Interface, DatapathError> {
    match attachment {
        Attachment::Interface(name) => {
            let number = interface_number(name).ok_or_else(|| {
                DatapathError(format!("there is no interface `{name}` on this host"))
            })?;
            Ok(Interface { attachment: attachment.clone(), name: name.clone(), number })
        }
        Attachment::NetworkNamespace(path) => {
            let failed = |error: &dyn std::fmt::Display| {
                DatapathError(format!("network namespace `{}`: {error}", path.display()))
            };
            let number = host_end(path).map_err(|error| failed(&error))?;
            let name = any_socket().and_then(|any| index_to_name(&any, number));
            let name = name.map_err(|error| failed(&error))?;
            Ok(Interface { attachment: attachment.clone(), name, number })
        }
    }
}

/// Refuses interfaces that are no workload's, whoever names them: what passes there is the host's own, or
/// everybody's, and would be judged as if one workload had sent it.
pub(super) fn check_is_workloads(
    wanted: &Interface,
    kernel: &NodeKernel,
    outside: &Outside,
) -> Result<(), DatapathError> {
    let Interface { name, number, .. } = wanted;
    let is_loopback = kernel.is_loopback(*number);
    let what = if is_loopback.map_err(|error| DatapathError(error.to_string()))? {
        "is by what this host reaches itself"
    } else if kernel.is_own_device(*number) {
        "leads to the proxy"
    } else if outside.is_way(name, *number) {
        "leads outside of this node, by `kernel.devices` or, without that, by a default route"
    } else {
        return Ok(());
    };
    Err(DatapathError(format!(
        "`{name}` {what}, and is no workload's: name this host's end of the workload's cable (`interface`), or \
         its namespace (`netns`)"
    )))
}

fn interface_number(name: &str) -> Option<u32> {
    any_socket().and_then(|any| name_to_index(&any, name)).ok()
}

/// To ask for interfaces of this thread's network namespace; `/sys` may be another's.
pub(super) fn any_socket() -> rustix::io::Result<OwnedFd> {
    socket(AddressFamily::INET, SocketType::DGRAM, None)
}
