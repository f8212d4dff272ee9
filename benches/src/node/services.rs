//! Services: as objects for the daemon, and as rules of nftables in the two shapes that kube-proxy has given
//! them: a rule for each, one after another, and a map.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use crate::Failure;

/// The port of every service.
const PORT: u16 = 80;
/// Where services begin whose backends our programs, rules one after another, and a map choose.
const OURS: u32 = 0x0a60_0000;
const RULES: u32 = 0x0a61_0000;
const MAP: u32 = 0x0a62_0000;

/// Who balances a service.
#[derive(Clone, Copy, Debug)]
pub enum By {
    /// Programs on the workload's interface.
    Programs,
    /// Rules of nftables, one after another (kube-proxy's mode `iptables`).
    Rules,
    /// A map of nftables (kube-proxy's mode `nftables`).
    Map,
}

/// The one in the middle of so many.
#[must_use]
pub fn address(by: By, count: u32) -> SocketAddr {
    let first = match by {
        By::Programs => OURS,
        By::Rules => RULES,
        By::Map => MAP,
    };
    (Ipv4Addr::from(first + count / 2), PORT).into()
}

/// So many services, all with this backend.
#[must_use]
pub fn objects(count: u32, backend: SocketAddr) -> String {
    let (mut text, ip, port) = (String::new(), backend.ip(), backend.port());
    for number in 0..count {
        let address = Ipv4Addr::from(OURS + number);
        let _ = write!(
            text,
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: default}}\n\
             spec: {{clusterIP: {address}, ports: [{{port: {PORT}}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: s{number}, namespace: default, \
             labels: {{kubernetes.io/service-name: s{number}}}}}\n\
             addressType: IPv4\nports: [{{name: '', protocol: TCP, port: {port}}}]\n\
             endpoints: [{{addresses: [{ip}], conditions: {{ready: true}}}}]\n---\n"
        );
    }
    text
}

/// Rules of this thread's network namespace for what comes by `client`. Nobody keeps track of what comes by
/// `others`: it pays for none of this.
///
/// # Errors
/// When nft refuses them.
pub fn rules(
    count: u32,
    backend: SocketAddr,
    client: &str,
    others: [&str; 2],
) -> Result<(), Failure> {
    let [one, other] = others;
    let mut text = format!(
        "table ip bench\ndelete table ip bench\ntable ip bench {{\n\
         chain untracked {{ type filter hook prerouting priority -300; \
         iifname {{ {one}, {other} }} notrack; }}\n\
         chain backend {{ meta l4proto tcp dnat to {backend}; }}\nmap services {{\n\
         type ipv4_addr . inet_service : verdict;\nelements = {{\n"
    );
    for number in 0..count {
        let _ = writeln!(text, "{} . {PORT} : goto backend,", Ipv4Addr::from(MAP + number));
    }
    text.push_str("}\n}\nchain one-by-one {\n");
    for number in 0..count {
        let address = Ipv4Addr::from(RULES + number);
        let _ = writeln!(text, "ip daddr {address} tcp dport {PORT} goto backend;");
    }
    let _ = write!(
        text,
        "}}\nchain services {{ type nat hook prerouting priority -100;\n\
         iifname {client} ip daddr {}/16 jump one-by-one;\n\
         iifname {client} ip daddr . tcp dport vmap @services;\n}}\n}}\n",
        Ipv4Addr::from(RULES)
    );
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
    nft.stdin.take().ok_or("no pipe")?.write_all(text.as_bytes())?;
    match nft.wait()?.success() {
        true => Ok(()),
        false => Err("nft refuses the rules".into()),
    }
}
