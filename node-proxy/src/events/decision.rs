//! An event of the kernel's in the proxy's words.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use portreeve_core::redirection::{KernelDecision, KernelReason, KernelVerdict};
use portreeve_ebpf::node::{NodeEvent, NodeEventKind, Reason};
use portreeve_ebpf_common::{Direction, Endpoint};
use portreeve_policy::{Protocol, TrafficDirection};

use super::names::now;

/// The same instant on two clocks.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    monotonic: u64,
    system: SystemTime,
}

impl Clock {
    pub(super) fn now() -> Self {
        Self { monotonic: now(), system: SystemTime::now() }
    }

    /// When an event was, in everybody's time.
    fn time(self, monotonic: u64) -> SystemTime {
        match self.monotonic.checked_sub(monotonic) {
            Some(ago) => self.system - Duration::from_nanos(ago),
            None => self.system + Duration::from_nanos(monotonic - self.monotonic),
        }
    }
}

/// What was decided. A rule means something only in the policy that decided.
pub(super) fn decision(event: &NodeEvent, clock: Clock) -> KernelDecision {
    KernelDecision {
        time: clock.time(event.time),
        direction: match event.direction {
            direction if direction == Direction::Egress as u8 => TrafficDirection::Egress,
            _ => TrafficDirection::Ingress,
        },
        protocol: protocol(event.protocol),
        source: Some(address(event.source)),
        destination: address(event.destination),
        service: None,
        verdict: match event.kind {
            kind if kind == NodeEventKind::Opened as u8 => KernelVerdict::Allowed,
            _ => KernelVerdict::Denied,
        },
        reason: reason(event.reason),
        identity: event.identity,
        rule: event.rule.checked_sub(1),
        revision: 0,
    }
}

fn protocol(number: u8) -> Protocol {
    match number {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        132 => Protocol::Sctp,
        1 => Protocol::Icmp,
        58 => Protocol::IcmpV6,
        other => Protocol::Ip(other),
    }
}

fn reason(number: u8) -> KernelReason {
    let Some(reason) = Reason::ALL.get(usize::from(number)) else { return KernelReason::Policy };
    match reason {
        Reason::Policy => KernelReason::Policy,
        Reason::PolicyChanged => KernelReason::PolicyChanged,
        Reason::NoPolicy | Reason::NoEndpoint => KernelReason::NotReady,
        Reason::Spoofed => KernelReason::SpoofedSource,
        Reason::Malformed => KernelReason::Malformed,
        Reason::NotTracked => KernelReason::NotTracked,
        Reason::Fragment => KernelReason::Fragment,
        Reason::ProxyAway => KernelReason::ProxyAway,
        Reason::MapFull => KernelReason::MapFull,
        Reason::OtherLink => KernelReason::NotIp,
        Reason::NoBackend => KernelReason::NoBackend,
        Reason::Crowded => KernelReason::TooManyConnections,
        // Of a connection that passes it is policy that says so.
        Reason::Forwarded
        | Reason::ToProxy
        | Reason::Opened
        | Reason::EventLost
        | Reason::Answered
        | Reason::TurnedBack
        | Reason::Translated => KernelReason::Policy,
    }
}

fn address(endpoint: Endpoint) -> SocketAddr {
    let address = Ipv6Addr::from(endpoint.address.to_bytes()).to_canonical();
    SocketAddr::new(address, u16::try_from(endpoint.port).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use portreeve_ebpf_common::Address;

    use super::*;

    #[test]
    fn an_event_is_a_decision_in_everybodys_time() {
        let clock = Clock { monotonic: 5_000_000_000, system: SystemTime::UNIX_EPOCH };
        let at =
            |last, port| Endpoint::new(Address::v4(u32::from_ne_bytes([10, 0, 0, last])), port);
        let event = NodeEvent {
            time: 5_000_000_001,
            endpoint: 3,
            kind: NodeEventKind::Dropped as u8,
            reason: Reason::Policy as u8,
            direction: Direction::Ingress as u8,
            protocol: 132,
            identity: 300,
            rule: 8,
            source: at(1, 4000),
            destination: at(2, 53),
            ..NodeEvent::default()
        };
        let told = decision(&event, clock);
        assert_eq!(told.time, SystemTime::UNIX_EPOCH + Duration::from_nanos(1));
        assert_eq!((told.direction, told.protocol), (TrafficDirection::Ingress, Protocol::Sctp));
        assert_eq!(told.source.map(|at| at.to_string()).as_deref(), Some("10.0.0.1:4000"));
        assert_eq!(told.destination.to_string(), "10.0.0.2:53");
        assert_eq!((told.verdict, told.reason), (KernelVerdict::Denied, KernelReason::Policy));
        assert_eq!((told.identity, told.rule), (300, Some(7)));
    }

    #[test]
    fn every_reason_to_drop_has_its_name() {
        let drops = Reason::ALL.into_iter().filter(|reason| reason.is_drop());
        let names: Vec<_> = drops.map(|drop| reason(drop as u8).as_str()).collect();
        let expected = [
            "policy",
            "policy_changed",
            "not_ready",
            "not_ready",
            "spoofed_source",
            "malformed",
            "not_tracked",
            "fragment",
            "proxy_away",
            "map_full",
            "not_ip",
            "no_backend",
            "too_many_connections",
        ];
        assert_eq!(names, expected);
    }
}
