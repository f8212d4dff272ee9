//! The host's end of a workload's cable, found by the workload's network namespace. The workload is not
//! asked: what is in its namespace may be of its own making.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::netlink::Netlink;

/// The interface of this thread's network namespace whose other end is in that of a file, such as
/// `/run/netns/NAME` or `/proc/PID/ns/net`.
///
/// # Errors
/// When the file is no network namespace, and when there is not exactly one such interface; the message
/// says which.
pub fn host_end(namespace: &Path) -> io::Result<u32> {
    let file = File::open(namespace)?;
    let netlink = Netlink::open()?;
    // Namespaces that interfaces lead to get a number here, at the latest when that is asked for.
    let links = netlink.links()?;
    let number = netlink.namespace(file.as_fd())?;
    let mut ends = links.iter().filter(|link| number.is_some() && link.leads_to == number);
    match (ends.next(), ends.next()) {
        (Some(end), None) => Ok(end.number),
        (None, _) => Err(io::Error::other("no interface of this host leads there")),
        (Some(_), Some(_)) => Err(io::Error::other("several interfaces of this host lead there")),
    }
}
