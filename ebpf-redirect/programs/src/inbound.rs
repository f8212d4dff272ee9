//! Connections and datagrams to the workload's ports. A refusal is seen at once: TCP answers with a
//! reset, UDP with "port unreachable".

use core::ptr::read_volatile;

use aya_ebpf::bindings::{bpf_sk_lookup, sk_action};
use aya_ebpf::macros::sk_lookup;
use aya_ebpf::programs::SkLookupContext;
use portreeve_ebpf_common::{
    Address, Counter, Direction, Endpoint, EventKind, EventReason, FlowKey, ListenerSlot, PortKey,
    Verdict, flags, protocol,
};

use crate::conversations::{begin, is_answer};
use crate::judge::{Judged, judge};
use crate::lookup::{local, remote};
use crate::maps::{EXEMPT, LISTENERS, PORTS, config};
use crate::report::{Parties, count, refuse, tell};

/// Which socket gets what has come, asked for whatever belongs to no connection yet.
#[sk_lookup]
pub fn portreeve_sk_lookup(context: SkLookupContext) -> u32 {
    let parties = parties(context.lookup);
    if !is_held(parties.asked, parties.protocol) || is_own(&parties) {
        return sk_action::SK_PASS;
    }
    let Some(config) = config() else {
        refuse(EventReason::NotReady, &parties, &Judged::NOTHING);
        return sk_action::SK_DROP;
    };
    if config.flags & flags::LOOPBACK_IS_OWN != 0 && parties.source.address.is_loopback() {
        return sk_action::SK_PASS;
    }
    let port = parties.asked.port as u16;
    let judged = judge(Direction::Ingress, parties.source.address, parties.protocol, port);
    if !judged.ready {
        refuse(EventReason::NotReady, &parties, &judged);
        return sk_action::SK_DROP;
    }
    match judged.verdict {
        Verdict::Allow => {
            if parties.protocol == protocol::UDP {
                begin(Direction::Ingress, parties.source, parties.asked.port);
            }
            count(Counter::IngressAllowed);
            sk_action::SK_PASS
        }
        Verdict::Inspect if parties.protocol == protocol::TCP => {
            let slot = match parties.asked.address.is_v4() {
                true => ListenerSlot::InboundV4,
                false => ListenerSlot::InboundV6,
            };
            if LISTENERS.redirect_sk_lookup(&context, slot as u32, 0).is_err() {
                refuse(EventReason::ProxyAway, &parties, &judged);
                return sk_action::SK_DROP;
            }
            count(Counter::IngressRedirected);
            if config.flags & flags::TELL_REDIRECTS != 0 {
                tell(EventKind::Redirected, EventReason::Policy, &parties, &judged);
            }
            sk_action::SK_PASS
        }
        _ => {
            refuse(EventReason::Policy, &parties, &judged);
            sk_action::SK_DROP
        }
    }
}

/// Whether a process of the workload holds this port, at this address or at all.
#[inline(always)]
fn is_held(local: Endpoint, protocol: u8) -> bool {
    let mut key = PortKey { local, protocol: protocol as u32 };
    // SAFETY: only looked at.
    unsafe {
        if PORTS.get(&key).is_some() {
            return true;
        }
        key.local.address = Address::UNSPECIFIED;
        if PORTS.get(&key).is_some() {
            return true;
        }
        if !local.address.is_v4() {
            return false;
        }
        key.local.address = Address::UNSPECIFIED_V4;
        PORTS.get(&key).is_some()
    }
}

/// Whether it is the proxy's own connection to the workload, or an answer to the workload's datagram.
#[inline(always)]
fn is_own(parties: &Parties) -> bool {
    if parties.protocol == protocol::UDP {
        return is_answer(Direction::Ingress, parties.source, parties.asked.port);
    }
    let key = FlowKey { client: parties.source, proxy: parties.asked };
    // SAFETY: only looked at.
    unsafe { EXEMPT.get(&key).is_some() }
}

#[inline(always)]
fn parties(lookup: *mut bpf_sk_lookup) -> Parties {
    // SAFETY: the context lives as long as the program runs.
    let protocol = unsafe { read_volatile(&raw const (*lookup).protocol) as u8 };
    let asked = local(lookup);
    Parties {
        cookie: 0,
        direction: Direction::Ingress,
        protocol,
        source: remote(lookup),
        asked,
        destination: asked,
    }
}
