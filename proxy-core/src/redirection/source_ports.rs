//! Ports that the proxy's own connections to the workload come from.
//!
//! They are chosen here and not by the kernel: it gives no port twice to who binds before connecting,
//! not even one of a connection that has just ended, and a busy proxy would be out of them in a minute.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What Linux takes unless told otherwise.
const USUAL: (u16, u16) = (32_768, 60_999);

/// The ports for outgoing connections.
#[derive(Debug)]
pub(super) struct SourcePorts {
    ports: Box<[u16]>,
    next: AtomicUsize,
}

impl SourcePorts {
    /// Those of this host.
    pub(super) fn of_this_host() -> Self {
        let read = |name: &str| {
            fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default()
        };
        let mut ports = Self::new(&read("ip_local_port_range"), &read("ip_local_reserved_ports"));
        ports.shuffle();
        ports
    }

    /// In an order that nobody can foresee: who holds the next port before the proxy does would be taken for
    /// it while it connects.
    fn shuffle(&mut self) {
        let random = RandomState::new();
        for place in (1..self.ports.len()).rev() {
            let other = random.hash_one(place) % (place as u64 + 1);
            self.ports.swap(place, usize::try_from(other).unwrap_or_default());
        }
    }

    /// `range` as `32768 60999`, `reserved` as `8080,9000-9100`.
    pub(super) fn new(range: &str, reserved: &str) -> Self {
        let mut ends = range.split_whitespace().map_while(|end| end.parse().ok());
        let (first, last) = match (ends.next(), ends.next()) {
            (Some(first), Some(last)) if first <= last => (first, last),
            _ => USUAL,
        };
        let reserved: Vec<(u16, u16)> = reserved.trim().split(',').filter_map(span).collect();
        let free = |port: &u16| !reserved.iter().any(|(from, to)| (*from..=*to).contains(port));
        Self { ports: (first..=last).filter(free).collect(), next: AtomicUsize::new(0) }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ports.len()
    }

    /// The next one. No other connection gets it before all have had their turn.
    pub(super) fn next(&self) -> Option<u16> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.ports.get(turn.checked_rem(self.ports.len())?).copied()
    }
}

fn span(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    Some((from.parse().ok()?, to.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_has_its_turn_and_reserved_ones_never() {
        let ports = SourcePorts::new("100\t107\n", "101,103-105\n");
        let taken: Vec<_> = (0..6).filter_map(|_| ports.next()).collect();
        assert_eq!(taken, [100, 102, 106, 107, 100, 102]);
    }

    #[test]
    fn a_range_that_cannot_be_read_is_the_usual_one() {
        let ports = SourcePorts::new("", "");
        assert_eq!((ports.next(), ports.len()), (Some(USUAL.0), 28_232));
    }

    #[test]
    fn without_a_port_there_is_none() {
        assert_eq!(SourcePorts::new("100 100", "100").next(), None);
    }
}
