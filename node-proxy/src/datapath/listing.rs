//! Tables of the kernel, as rows for people and programs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use portreeve_ebpf::node::{
    BalancerContents, Leg, NodeCounters, PolicyContents, PolicyRow, Reason, ServiceContents,
    TrackKey, Tracked, state,
};
use portreeve_ebpf_common::{Address, Direction, Verdict};
use portreeve_policy::EndpointPolicy;

use super::Listing;
use super::balancing::ServiceNames;
use crate::events::Names;
use crate::state::place;

fn listing<const N: usize>(columns: [&str; N], rows: Vec<[String; N]>, more: usize) -> Listing {
    Listing {
        columns: columns.map(str::to_owned).to_vec(),
        rows: rows.into_iter().map(|row| row.to_vec()).collect(),
        more,
    }
}

/// The first of them, and how many there are beyond.
fn some<T>(all: impl Iterator<Item = T>, limit: usize) -> (Vec<T>, usize) {
    let (mut rows, mut more) = (Vec::new(), 0);
    for row in all {
        if rows.len() < limit { rows.push(row) } else { more += 1 }
    }
    (rows, more)
}

/// Who may do what, peer by peer and entry by entry.
pub(super) fn policies(all: &[PolicyContents], names: &Names, limit: usize) -> Listing {
    // Whose rules these are: only of the revision in force it is known.
    let known: Vec<_> = all
        .iter()
        .map(|contents| (contents, names.of(contents.endpoint, contents.revision)))
        .collect();
    let rows = known.iter().flat_map(|(contents, known)| {
        let decided = known.as_ref().and_then(|(_, policy)| policy.as_ref());
        contents.rows().map(move |row| (contents, decided, row))
    });
    let (rows, more) = some(rows, limit);
    let rows = rows.into_iter().map(|(contents, decided, row)| {
        let PolicyRow { direction, identity, entry } = row;
        [
            contents.endpoint.to_string(),
            way(direction).to_owned(),
            identity.map_or("others".to_owned(), |identity| identity.to_string()),
            match (entry.first, entry.last) {
                (0, u16::MAX) => "any".to_owned(),
                (first, last) if first == last => first.to_string(),
                (first, last) => format!("{first}-{last}"),
            },
            entry.protocol.map_or("any".to_owned(), protocol),
            match entry.verdict {
                Verdict::Deny => "deny",
                Verdict::Allow => "allow",
                Verdict::Inspect => "inspect",
            }
            .to_owned(),
            contents.revision.to_string(),
            entry.rule.map_or_else(String::new, |index| rule(decided, index)),
        ]
    });
    let columns =
        ["endpoint", "direction", "identity", "port", "protocol", "verdict", "revision", "rule"];
    listing(columns, rows.collect(), more)
}

fn rule(decided: Option<&EndpointPolicy>, index: u32) -> String {
    match decided.and_then(|policy| policy.rules().get(index as usize)) {
        Some(rule) => place(rule),
        // Of a policy that this process has not set.
        None => format!("#{index}"),
    }
}

/// Who is where.
pub(super) fn ipcache(known: &BTreeMap<IpNet, u32>, limit: usize) -> Listing {
    let row = |(prefix, identity): (&IpNet, &u32)| [prefix.to_string(), identity.to_string()];
    let (rows, more) = some(known.iter(), limit);
    listing(["prefix", "identity"], rows.into_iter().map(row).collect(), more)
}

/// Who answers for what.
pub(super) fn services(contents: &BalancerContents, names: &ServiceNames, limit: usize) -> Listing {
    let row = |service: &ServiceContents, backend: String, state: &str| {
        let ServiceContents { frontend, protocol: number, external, .. } = service;
        let name = names.get(&(*frontend, *number, *external)).cloned().unwrap_or_default();
        let asked = if *external { "outside" } else { "inside" };
        let protocol = protocol(*number);
        [name, asked.to_owned(), frontend.to_string(), protocol, backend, state.to_owned()]
    };
    let mut all = Vec::new();
    for service in &contents.services {
        let backends = service.backends.iter();
        all.extend(backends.map(|backend| row(service, backend.to_string(), "active")));
        if service.backends.is_empty() {
            all.push(row(service, "none".to_owned(), "refused"));
        }
    }
    let nothing = String::new;
    all.extend(contents.draining.iter().map(|backend| {
        let state = "draining".to_owned();
        [nothing(), nothing(), nothing(), nothing(), backend.to_string(), state]
    }));
    all.sort();
    let (rows, more) = some(all.into_iter(), limit);
    let columns = ["service", "asked", "frontend", "protocol", "backend", "state"];
    listing(columns, rows, more)
}

/// Connections that are kept track of: some, of so many.
pub(super) fn connections(all: &[(TrackKey, Tracked)], count: usize) -> Listing {
    let row = |(key, tracked): &(TrackKey, Tracked)| {
        [
            key.endpoint.to_string(),
            way(tracked.opened()).to_owned(),
            protocol(key.protocol),
            end(key.local, key.local_port),
            end(key.remote, key.remote_port),
            by(key, tracked).to_owned(),
            stage(key, tracked).to_owned(),
            both(key, tracked, tracked.packets),
            both(key, tracked, tracked.bytes),
            tracked.identity.to_string(),
        ]
    };
    let columns = [
        "endpoint", "opened", "protocol", "workload", "peer", "by", "state", "packets", "bytes",
        "identity",
    ];
    listing(columns, all.iter().map(row).collect(), count.saturating_sub(all.len()))
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
    listing(["reason", "direction", "packets"], rows, 0)
}

/// What has become of a packet, in the words of logs and metrics.
pub(super) fn describe(reason: Reason) -> &'static str {
    match reason {
        Reason::Forwarded => "forwarded",
        Reason::ToProxy => "to_proxy",
        Reason::Opened => "opened",
        Reason::Policy => "policy",
        Reason::PolicyChanged => "policy_changed",
        Reason::NoPolicy => "not_ready",
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

fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    }
}

fn by(key: &TrackKey, tracked: &Tracked) -> &'static str {
    match (key.leg == Leg::Proxy as u8, tracked.is_inspected()) {
        (true, _) => "proxy",
        (false, true) => "inspected",
        (false, false) => "kernel",
    }
}

/// Whether answers do not pass the workload's interface: the proxy reads what comes to it, and answers the
/// peer from elsewhere.
fn is_answered_elsewhere(key: &TrackKey, tracked: &Tracked) -> bool {
    by(key, tracked) == "inspected" && tracked.opened() == Direction::Ingress
}

/// From the workload and to it, as far as that is seen.
fn both(key: &TrackKey, tracked: &Tracked, [out, back]: [u64; 2]) -> String {
    match is_answered_elsewhere(key, tracked) {
        true => format!("-/{back}"),
        false => format!("{out}/{back}"),
    }
}

fn stage(key: &TrackKey, tracked: &Tracked) -> &'static str {
    if tracked.state & state::RESET != 0 {
        "reset"
    } else if is_answered_elsewhere(key, tracked) {
        // What the peer does is all that is known.
        match tracked.state & state::ENDED_BY_PEER {
            0 => "at the proxy",
            _ => "closing",
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_the_proxy_answers_only_what_the_peer_does_is_shown() {
        let shown = |state, leg: Leg| {
            let key = TrackKey { protocol: 6, leg: leg as u8, ..TrackKey::default() };
            let tracked = Tracked { state, packets: [0, 6], ..Tracked::default() };
            let row = connections(&[(key, tracked)], 1).rows.remove(0);
            (row[6].clone(), row[7].clone())
        };
        let inbound = state::INGRESS | state::INSPECTED;
        for (state, leg, stage, packets) in [
            (inbound, Leg::Peer, "at the proxy", "-/6"),
            (inbound | state::ENDED_BY_PEER, Leg::Peer, "closing", "-/6"),
            (inbound | state::RESET_BY_PEER, Leg::Peer, "reset", "-/6"),
            // The proxy's answers to a workload that has opened it pass its interface.
            (state::INSPECTED, Leg::Peer, "opening", "0/6"),
            (state::INSPECTED | state::ANSWERED, Leg::Peer, "established", "0/6"),
            (state::INGRESS, Leg::Peer, "opening", "0/6"),
            (state::INGRESS | state::ANSWERED, Leg::Proxy, "established", "0/6"),
        ] {
            let expected = (stage.to_owned(), packets.to_owned());
            assert_eq!(shown(state, leg), expected, "{state} {leg:?}");
        }
    }
}
