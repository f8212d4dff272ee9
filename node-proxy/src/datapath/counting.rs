//! What the kernel has counted, for the proxy's metrics.

use std::io;
use std::sync::Arc;

use portreeve_core::redirection::{KernelCounting, KernelPackets, NodeKernelCounters};
use portreeve_ebpf::node::{NodeKernel, Reason};
use portreeve_ebpf_common::Direction;
use portreeve_policy::TrafficDirection;

use super::listing::describe;

/// Whether a packet of which this is counted is counted once more, by what became of it.
fn is_besides(reason: Reason) -> bool {
    matches!(reason, Reason::Opened | Reason::Translated | Reason::Answered)
}

/// Counts by asking the kernel.
pub fn counting(kernel: Arc<NodeKernel>) -> KernelCounting {
    KernelCounting::by(move || {
        let counters = kernel.counters().map_err(io::Error::other)?;
        let mut all = NodeKernelCounters::default();
        for reason in Reason::ALL {
            for (way, direction) in [
                (Direction::Egress, TrafficDirection::Egress),
                (Direction::Ingress, TrafficDirection::Ingress),
            ] {
                let packets = counters.get(reason, way);
                let counted = KernelPackets { direction, outcome: describe(reason), packets };
                match reason {
                    Reason::EventLost => all.events_lost += packets,
                    reason if is_besides(reason) => all.actions.push(counted),
                    _ => all.packets.push(counted),
                }
            }
        }
        Ok(all)
    })
}

#[cfg(test)]
mod tests {
    use portreeve_core::redirection::KernelReason;

    use super::*;

    #[test]
    fn outcomes_are_called_as_in_the_log_and_actions_are_no_outcomes() {
        let in_the_log: Vec<&str> =
            KernelReason::ALL.iter().map(|reason| reason.as_str()).collect();
        // What is told of by no event has no name there.
        let of_metrics = ["forwarded", "to_proxy", "turned_back", "no_endpoint", "event_lost"];
        for reason in Reason::ALL.into_iter().filter(|reason| !is_besides(*reason)) {
            let name = describe(reason);
            assert!(in_the_log.contains(&name) || of_metrics.contains(&name), "{name}");
            assert_eq!(
                reason.is_drop(),
                in_the_log.contains(&name) || name == "no_endpoint",
                "{name}"
            );
        }
        assert!(Reason::ALL.into_iter().filter(|it| is_besides(*it)).all(|it| !it.is_drop()));
    }
}
