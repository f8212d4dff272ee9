//! Settings of the host that keep packets from where they are led. They are the owner's: said, not changed.

use std::fs;

/// What is not as it has to be, as it is now.
pub(super) fn troubles() -> Vec<String> {
    // It counts for every interface, beside the interface's own; ours has none.
    let all = fs::read_to_string("/proc/sys/net/ipv4/conf/all/rp_filter").unwrap_or_default();
    strict_filter(&all).into_iter().collect()
}

/// Of what is led to the proxy on its way to a workload, the source's route is by another device.
fn strict_filter(all: &str) -> Option<String> {
    const STRICT: &str = "1";
    (all.trim() == STRICT).then(|| {
        "`net.ipv4.conf.all.rp_filter` is 1: the host drops inbound connections over IPv4 that the proxy is \
         to read, and says nothing\n  hint: `sysctl -w net.ipv4.conf.all.rp_filter=2`, and a line in \
         `/etc/sysctl.d/` so that it stays"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strict_filter_is_said_with_what_to_do_and_others_are_not() {
        let said = strict_filter("1\n").unwrap_or_default();
        assert!(said.contains("rp_filter=2"), "{said}");
        for fine in ["0\n", "2\n", "", "x"] {
            assert_eq!(strict_filter(fine), None);
        }
    }
}
