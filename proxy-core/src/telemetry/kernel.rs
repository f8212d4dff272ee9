//! What an operator sees of decisions inside of the kernel: what the programs have counted themselves,
//! and the reasons of the denials that they told of.

use std::fmt;

use portreeve_policy::TrafficDirection;

use super::counters::{Counter, DIRECTIONS, place};
use super::metrics::{Sources, To};
use super::names::metric as name;
use crate::redirection::{KernelCounters, KernelDecisions, KernelReason};

/// Denials that were told of, by direction and reason. One thread counts.
#[derive(Debug, Default)]
pub(super) struct KernelDenials([[Counter; KernelReason::ALL.len()]; 2]);

impl KernelDenials {
    pub(super) fn of(&self, direction: TrafficDirection, reason: KernelReason) -> &Counter {
        &self.0[place(direction)][reason as usize]
    }
}

/// Writes the kernel's metrics, if programs in the kernel feed this proxy.
pub(super) fn encode(sources: &Sources, to: &mut To<'_>) -> fmt::Result {
    let Some(kernel) = &sources.kernel else { return Ok(()) };
    decisions(kernel, to)?;
    to.counters(name::KERNEL_DENIALS, |family| {
        for direction in DIRECTIONS {
            for reason in KernelReason::ALL {
                let workers = sources.groups.iter().flat_map(|group| &group.workers);
                let told = workers.filter_map(|worker| worker.kernel.get());
                let sum = told.map(|told| told.of(direction, reason).get()).sum();
                let labels = [("direction", direction.as_str()), ("reason", reason.as_str())];
                family.add_if_any(&labels, sum)?;
            }
        }
        Ok(())
    })?;
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
