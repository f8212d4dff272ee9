//! What an operator sees of decisions inside of the kernel: what the programs have counted themselves,
//! and the reasons of the denials that they told of.

use std::fmt;

use portreeve_policy::TrafficDirection;

use super::counters::{Counter, DIRECTIONS, place};
use super::metrics::{Sources, To};
use super::names::metric as name;
use crate::redirection::{
    KernelCounters, KernelDecisions, KernelPackets, KernelReason, NodeKernelCounters,
};

/// Denials that were told of, by direction and reason. One thread counts.
#[derive(Debug, Default)]
pub(super) struct KernelDenials([[Counter; KernelReason::ALL.len()]; 2]);

impl KernelDenials {
    pub(super) fn of(&self, direction: TrafficDirection, reason: KernelReason) -> &Counter {
        &self.0[place(direction)][reason as usize]
    }
}

/// What programs have counted.
#[derive(Debug)]
pub(super) enum Kernel {
    OfWorkload(KernelCounters),
    OfNode(NodeKernelCounters),
}

/// Writes the kernel's metrics, if programs in the kernel feed this proxy.
pub(super) fn encode(sources: &Sources, to: &mut To<'_>) -> fmt::Result {
    let Some(kernel) = &sources.kernel else { return Ok(()) };
    if let Kernel::OfWorkload(kernel) = kernel {
        decisions(kernel, to)?;
    }
    sources.counters(to, name::KERNEL_DENIALS, |group, family| {
        for direction in DIRECTIONS {
            for reason in KernelReason::ALL {
                let told = group.workers.iter().filter_map(|worker| worker.kernel.get());
                let sum = told.map(|told| told.of(direction, reason).get()).sum();
                let labels = [("direction", direction.as_str()), ("reason", reason.as_str())];
                family.add_if_any(&labels, sum)?;
            }
        }
        Ok(())
    })?;
    match kernel {
        Kernel::OfWorkload(kernel) => of_workload(kernel, to),
        Kernel::OfNode(kernel) => of_node(kernel, to),
    }
}

fn of_workload(kernel: &KernelCounters, to: &mut To<'_>) -> fmt::Result {
    for (name, value) in [
        (name::KERNEL_EVENTS_LOST, kernel.events_lost),
        (name::KERNEL_MAPS_FULL, kernel.maps_full),
        (name::KERNEL_SERVICES, kernel.services_translated),
        (name::KERNEL_SOCKETS_REFUSED, kernel.sockets_refused),
        (name::KERNEL_MESSAGES_JOINED, kernel.messages_joined),
    ] {
        to.counters(name, |family| family.add(&[], value))?;
    }
    Ok(())
}

fn of_node(kernel: &NodeKernelCounters, to: &mut To<'_>) -> fmt::Result {
    for (name, label, counted) in [
        (name::KERNEL_PACKETS, "outcome", &kernel.packets),
        (name::KERNEL_ACTIONS, "action", &kernel.actions),
    ] {
        to.counters(name, |family| {
            for KernelPackets { direction, outcome, packets } in counted {
                let labels = [("direction", direction.as_str()), (label, *outcome)];
                family.add_if_any(&labels, *packets)?;
            }
            Ok(())
        })?;
    }
    to.counters(name::KERNEL_EVENTS_LOST, |family| family.add(&[], kernel.events_lost))
}

fn decisions(kernel: &KernelCounters, to: &mut To<'_>) -> fmt::Result {
    to.counters(name::KERNEL_DECISIONS, |family| {
        for direction in DIRECTIONS {
            let KernelDecisions { allowed, denied, redirected } = match direction {
                TrafficDirection::Ingress => kernel.ingress,
                TrafficDirection::Egress => kernel.egress,
            };
            for (verdict, value) in [("allow", allowed), ("deny", denied), ("redirect", redirected)]
            {
                family.add(&[("direction", direction.as_str()), ("verdict", verdict)], value)?;
            }
        }
        Ok(())
    })
}
