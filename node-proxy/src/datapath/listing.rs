//! Tables of the kernel, as rows for people and programs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use portreeve_ebpf::node::{Leg, NodeCounters, Reason, TrackKey, Tracked, state};
use portreeve_ebpf_common::{Address, Direction};

use super::{EndpointId, Listing};

fn listing<const N: usize>(columns: [&str; N], rows: Vec<[String; N]>) -> Listing {
    Listing {
        columns: columns.map(str::to_owned).to_vec(),
        rows: rows.into_iter().map(|row| row.to_vec()).collect(),
    }
}

/// How large each endpoint's policy is in the kernel.
pub(super) fn policies(policies: &BTreeMap<EndpointId, (u64, usize)>) -> Listing {
    let row = |(id, (revision, entries)): (&EndpointId, &(u64, usize))| {
        [id.to_string(), revision.to_string(), entries.to_string()]
    };
    listing(["endpoint", "revision", "entries"], policies.iter().map(row).collect())
}

/// Who is where.
pub(super) fn ipcache(known: &BTreeMap<IpNet, u32>) -> Listing {
    let row = |(prefix, identity): (&IpNet, &u32)| [prefix.to_string(), identity.to_string()];
    listing(["prefix", "identity"], known.iter().map(row).collect())
}

/// Connections that are kept track of.
pub(super) fn connections(all: &[(TrackKey, Tracked)]) -> Listing {
    let row = |(key, tracked): &(TrackKey, Tracked)| {
        let opened = match tracked.opened() {
            Direction::Egress => "egress",
            Direction::Ingress => "ingress",
        };
        [
            key.endpoint.to_string(),
            opened.to_owned(),
            protocol(key.protocol),
            end(key.local, key.local_port),
            end(key.remote, key.remote_port),
            by(key, tracked).to_owned(),
            stage(tracked).to_owned(),
            format!("{}/{}", tracked.packets[0], tracked.packets[1]),
            format!("{}/{}", tracked.bytes[0], tracked.bytes[1]),
            tracked.identity.to_string(),
        ]
    };
    let columns = [
        "endpoint", "opened", "protocol", "workload", "peer", "by", "state", "packets", "bytes",
        "identity",
    ];
    listing(columns, all.iter().map(row).collect())
}

/// What became of packets.
pub(super) fn counters(counters: &NodeCounters) -> Listing {
    let mut rows = Vec::new();
    for reason in Reason::ALL {
        for (direction, name) in [(Direction::Egress, "egress"), (Direction::Ingress, "ingress")] {
            let packets = counters.get(reason, direction);
            if packets > 0 {
                rows.push([describe(reason).to_owned(), name.to_owned(), packets.to_string()]);
            }
        }
    }
    listing(["reason", "direction", "packets"], rows)
}

/// What has become of a packet, in the words of logs and metrics.
pub(super) fn describe(reason: Reason) -> &'static str {
    match reason {
        Reason::Forwarded => "forwarded",
        Reason::ToProxy => "to_proxy",
        Reason::Opened => "opened",
        Reason::Policy => "policy_denied",
        Reason::PolicyChanged => "policy_changed",
        Reason::NoPolicy => "no_policy",
        Reason::NoEndpoint => "no_endpoint",
        Reason::Spoofed => "spoofed_source",
        Reason::Malformed => "malformed",
        Reason::NotTracked => "not_tracked",
        Reason::Fragment => "fragment",
        Reason::ProxyAway => "proxy_away",
        Reason::MapFull => "map_full",
        Reason::OtherLink => "not_ip",
        Reason::EventLost => "event_lost",
        Reason::Answered => "answered",
        Reason::NoBackend => "no_backend",
        Reason::TurnedBack => "turned_back",
        Reason::Translated => "translated",
        Reason::Crowded => "too_many_connections",
    }
}

fn by(key: &TrackKey, tracked: &Tracked) -> &'static str {
    match (key.leg == Leg::Proxy as u8, tracked.is_inspected()) {
        (true, _) => "proxy",
        (false, true) => "inspected",
        (false, false) => "kernel",
    }
}

fn stage(tracked: &Tracked) -> &'static str {
    if tracked.state & state::RESET != 0 {
        "reset"
    } else if tracked.is_closing() {
        "closing"
    } else if tracked.state & state::ANSWERED != 0 {
        "established"
    } else {
        "opening"
    }
}

fn protocol(number: u8) -> String {
    match number {
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        132 => "SCTP".to_owned(),
        1 => "ICMP".to_owned(),
        58 => "ICMPv6".to_owned(),
        other => other.to_string(),
    }
}

fn end(address: Address, port: u16) -> String {
    let ip = IpAddr::V6(Ipv6Addr::from(address.to_bytes())).to_canonical();
    match (ip, port) {
        (ip, 0) => ip.to_string(),
        (IpAddr::V4(ip), port) => format!("{ip}:{port}"),
        (IpAddr::V6(ip), port) => format!("[{ip}]:{port}"),
    }
}
