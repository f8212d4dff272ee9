//! What the kernel has counted, for the proxy's metrics.

use std::io;
use std::sync::Arc;

use portreeve_core::redirection::{KernelCounting, KernelPackets, NodeKernelCounters};
use portreeve_ebpf::node::{NodeKernel, Reason};
use portreeve_ebpf_common::Direction;
use portreeve_policy::TrafficDirection;

use super::listing::describe;

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
                match reason {
                    Reason::EventLost => all.events_lost += packets,
                    _ => all.packets.push(KernelPackets {
                        direction,
                        outcome: describe(reason),
                        packets,
                    }),
                }
            }
        }
        Ok(all)
    })
}
