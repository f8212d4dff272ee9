//! What the kernel tells of, taken down: read from the ring buffer on a thread of its own, so that no
//! worker waits for it and it waits for no worker.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use portreeve_core::Redirection;
use portreeve_core::redirection::{KernelDecision, KernelReason, KernelVerdict, Reporter};
use portreeve_ebpf::Events;
use portreeve_ebpf_common::{Direction, Endpoint, Event, EventKind, EventReason, protocol};
use portreeve_policy::{Protocol, TrafficDirection};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::kernel::{Kernel, now};
use crate::Failure;

/// How long it waits for an event before it hands on what it has.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// How many are taken down before the rest is looked after: who is denied all the time must not keep the
/// proxy from ending, nor from saying that events are lost.
const AT_ONCE: usize = 16_384;

/// How often it is said at most that events were lost.
const WARNINGS: Duration = Duration::from_secs(10);

/// The thread.
#[derive(Debug)]
pub(super) struct EventThread {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl EventThread {
    pub(super) fn start(
        events: Events,
        kernel: Arc<Kernel>,
        reporter: Reporter,
    ) -> Result<Self, Failure> {
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let thread = thread::Builder::new()
            .name("kernel-events".to_owned())
            .spawn(move || read(events, &kernel, reporter, &stopped))
            .map_err(Failure::new)?;
        Ok(Self { stop, thread })
    }

    /// Takes down what is there, and ends.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
    }
}

fn read(mut events: Events, kernel: &Kernel, mut reporter: Reporter, stop: &AtomicBool) {
    let mut lost = Lost::default();
    loop {
        // Asked before reading: what came before the end is still taken down.
        let ending = stop.load(Ordering::Relaxed);
        let clock = Clock::now();
        for event in std::iter::from_fn(|| events.next()).take(AT_ONCE) {
            if let Some(decision) = decision(&event, clock, kernel.is_ours(event.time)) {
                reporter.report(&decision);
            }
        }
        reporter.flush();
        lost.look(kernel);
        if ending {
            return;
        }
        let mut ready = [PollFd::new(&events, PollFlags::IN)];
        if let Err(error) = poll(&mut ready, Some(&PATIENCE))
            && error != rustix::io::Errno::INTR
        {
            tracing::error!("can't wait for the kernel's decisions: {error}");
            thread::sleep(Duration::from_millis(200));
        }
    }
}

/// What was said of lost events.
#[derive(Default)]
struct Lost {
    known: Option<u64>,
    said: Option<Instant>,
}

impl Lost {
    /// Warns if more events were lost since it was said last, but not all the time. Those that were lost
    /// while no proxy ran are said, too.
    fn look(&mut self, kernel: &Kernel) {
        if self.said.is_some_and(|said| said.elapsed() < WARNINGS) {
            return;
        }
        self.said = Some(Instant::now());
        let Ok(counters) = kernel.counters() else { return };
        let more = counters.events_lost.saturating_sub(self.known.unwrap_or_default());
        if more > 0 {
            tracing::warn!(
                "{more} decisions of the kernel are missing in the access log: they came faster than they \
                 were read; `redirect.capacity.events` gives them more room"
            );
        }
        self.known = Some(counters.events_lost);
    }
}

/// The same instant on two clocks.
#[derive(Clone, Copy)]
struct Clock {
    monotonic: u64,
    system: SystemTime,
}

impl Clock {
    fn now() -> Self {
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

/// An event in the proxy's words. `ours`: a policy of this proxy decided.
fn decision(event: &Event, clock: Clock, ours: bool) -> Option<KernelDecision> {
    let destination = address(event.destination);
    let asked = address(event.asked);
    Some(KernelDecision {
        time: clock.time(event.time),
        direction: match event.direction {
            direction if direction == Direction::Egress as u8 => TrafficDirection::Egress,
            _ => TrafficDirection::Ingress,
        },
        protocol: match event.protocol {
            protocol::TCP => Protocol::Tcp,
            protocol::UDP => Protocol::Udp,
            other => Protocol::Ip(other),
        },
        source: Some(address(event.source)).filter(|source| source.port() != 0),
        destination,
        service: (asked != destination && asked.port() != 0).then_some(asked),
        verdict: match event.kind {
            kind if kind == EventKind::Denied as u8 => KernelVerdict::Denied,
            kind if kind == EventKind::Redirected as u8 => KernelVerdict::Redirected,
            _ => return None,
        },
        reason: reason(event.reason),
        identity: event.identity,
        rule: event.rule.checked_sub(1).filter(|_| ours),
        revision: if ours { event.revision.into() } else { 0 },
    })
}

fn reason(number: u8) -> KernelReason {
    match EventReason::ALL.get(usize::from(number)) {
        Some(EventReason::NotReady) => KernelReason::NotReady,
        Some(EventReason::ProxyAway) => KernelReason::ProxyAway,
        Some(EventReason::NoBackend) => KernelReason::NoBackend,
        Some(EventReason::SocketKind) => KernelReason::SocketKind,
        Some(EventReason::OtherNamespace) => KernelReason::OtherNamespace,
        Some(EventReason::MapFull) => KernelReason::MapFull,
        Some(EventReason::Policy) | None => KernelReason::Policy,
    }
}

fn address(endpoint: Endpoint) -> SocketAddr {
    let address = Ipv6Addr::from(endpoint.address.to_bytes()).to_canonical();
    SocketAddr::new(address, u16::try_from(endpoint.port).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use portreeve_ebpf_common::Address;

    fn endpoint(last: u8, port: u16) -> Endpoint {
        Endpoint::new(Address::v4(u32::from_ne_bytes([10, 0, 0, last])), port)
    }

    #[test]
    fn an_event_is_a_decision_in_everybodys_time() {
        let clock = Clock { monotonic: 5_000_000_000, system: SystemTime::UNIX_EPOCH };
        let event = Event {
            time: 5_000_000_001,
            kind: EventKind::Denied as u8,
            reason: EventReason::NoBackend as u8,
            direction: Direction::Egress as u8,
            protocol: 17,
            revision: 3,
            identity: 300,
            rule: 8,
            asked: endpoint(1, 53),
            destination: endpoint(2, 5353),
            ..Event::default()
        };
        let told = decision(&event, clock, true).expect("a decision");
        assert_eq!(told.time, SystemTime::UNIX_EPOCH + Duration::from_nanos(1));
        assert_eq!((told.direction, told.protocol), (TrafficDirection::Egress, Protocol::Udp));
        assert_eq!((told.source, told.destination.to_string()), (None, "10.0.0.2:5353".to_owned()));
        assert_eq!(told.service.map(|service| service.to_string()).as_deref(), Some("10.0.0.1:53"));
        assert_eq!((told.verdict, told.reason), (KernelVerdict::Denied, KernelReason::NoBackend));
        assert_eq!((told.identity, told.rule, told.revision), (300, Some(7), 3));

        // Before this proxy was there, its numbers meant something else.
        let early = decision(&Event { time: 1, ..event }, clock, false).expect("a decision");
        assert_eq!((early.rule, early.revision), (None, 0));
    }

    #[test]
    fn every_reason_has_its_name() {
        let names = [
            "policy",
            "not_ready",
            "proxy_away",
            "no_backend",
            "socket_kind",
            "other_namespace",
            "map_full",
        ];
        for (number, name) in (0..).zip(names) {
            assert_eq!(reason(number).as_str(), name);
        }
    }
}
