//! Services of the node for those who are not on it: programs of the devices that lead outside. They judge
//! nothing; who answers on this node is judged at the interface of that workload, with the client's own
//! address.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use portreeve_ebpf_common::node::{Reason, mark, scope};
use portreeve_ebpf_common::{Address, Direction, Endpoint, ServiceKey};

use crate::answer::answer;
use crate::balance::{Found, about, choose, has_services, is_direct, keep_outside, look, settled};
use crate::maps::{CONFIG, OWN};
use crate::packet::{Role, read};
use crate::proxy::{is_for_host, mark_of};
use crate::report::count;
use crate::rewrite::{rewrite, rewrite_cited};
use crate::scratch::{Scratch, scratch};
use crate::services::{Balanced, balance};
use crate::track::now;
use crate::workload::{DROP, PASS};

/// What comes from outside: the device's ingress.
#[classifier]
#[inline(always)]
pub fn portreeve_from_outside(context: TcContext) -> i32 {
    if !is_for_host(&context) {
        // Another's, which the link shows to all.
        return PASS;
    }
    let Some(scratch) = scratch() else { return PASS };
    if read(&context, scope::FROM_OUTSIDE, &mut scratch.packet).is_err() {
        // What it is is for others to say.
        return PASS;
    }
    if scratch.packet.is_icmp_error() {
        return correct(&context, scratch, scope::FROM_OUTSIDE);
    }
    if !has_services(&scratch.packet) {
        return PASS;
    }
    match asked(scratch) {
        Found::Nothing => PASS,
        Found::Backend | Found::Itself => translate(&context, scratch, Direction::Ingress),
        Found::NoBackend => {
            count(Reason::NoBackend, Direction::Ingress);
            let Scratch { packet, room, .. } = scratch;
            answer(&context, packet, Direction::Egress, room).unwrap_or(DROP)
        }
        Found::NoRoom => {
            count(Reason::MapFull, Direction::Ingress);
            DROP
        }
    }
}

/// What leaves for outside: the device's egress.
#[classifier]
#[inline(always)]
pub fn portreeve_to_outside(context: TcContext) -> i32 {
    if mark_of(&context) == mark::ANSWER {
        return PASS;
    }
    let Some(scratch) = scratch() else { return PASS };
    if read(&context, scope::TO_OUTSIDE, &mut scratch.packet).is_err() {
        return PASS;
    }
    if scratch.packet.is_icmp_error() {
        return correct(&context, scratch, scope::TO_OUTSIDE);
    }
    if !has_services(&scratch.packet) {
        return PASS;
    }
    let Scratch { packet, balancing, .. } = scratch;
    look(&mut balancing.ends, packet, scope::TO_OUTSIDE);
    let nothing = ServiceKey::default();
    match settled::<true>(balancing, packet, &nothing, now()) {
        true => translate(&context, scratch, Direction::Egress),
        false => PASS,
    }
}

/// Has an error cite what its receiver has sent: without it nobody would learn that a packet is too long.
#[inline(always)]
fn correct(context: &TcContext, scratch: &mut Scratch, scope: u32) -> i32 {
    let Scratch { packet, balancing, .. } = scratch;
    let Some(places) = about::<true>(context, balancing, packet, scope) else { return PASS };
    match rewrite_cited(context, packet, places, &balancing.ends, &balancing.translation) {
        Ok(()) => PASS,
        Err(_) => DROP,
    }
}

#[inline(always)]
fn translate(context: &TcContext, scratch: &Scratch, way: Direction) -> i32 {
    let Scratch { packet, balancing, .. } = scratch;
    match rewrite(context, packet, &balancing.ends, &balancing.translation) {
        Ok(()) => {
            count(Reason::Translated, way);
            PASS
        }
        Err(reason) => {
            count(reason, way);
            DROP
        }
    }
}

/// What somebody outside has asked for.
#[inline(always)]
fn asked(scratch: &mut Scratch) -> Found {
    let Scratch { packet, balancing, key, .. } = scratch;
    let now = now();
    look(&mut balancing.ends, packet, scope::FROM_OUTSIDE);
    let service = ServiceKey::external(balancing.ends.destination, packet.protocol);
    if settled::<true>(balancing, packet, &service, now) {
        return Found::Backend;
    }
    if packet.role() == Role::Continues {
        return Found::Nothing;
    }
    let hash = balancing.ends.hash();
    match balance(service, || balancing.ends.client(), || [hash, 0]) {
        Balanced::NotAService => Found::Nothing,
        Balanced::NoBackend => Found::NoBackend,
        Balanced::Backend(backend, number) => {
            choose(balancing, backend, number, now);
            // SAFETY: copied at once.
            let here = unsafe { OWN.get(&backend.address) }.copied();
            match here {
                Some(endpoint) if is_direct(balancing, key, endpoint, now) => Found::NoRoom,
                Some(_) => keep_outside(balancing, None, now),
                None => match own_name(backend.address) {
                    Some(node) => keep_outside(balancing, Some(node), now),
                    None => Found::NoRoom,
                },
            }
        }
    }
}

/// In whose name packets go on to a backend on another node.
#[inline(always)]
fn own_name(backend: Address) -> Option<Endpoint> {
    // SAFETY: copied at once.
    let config = unsafe { CONFIG.get(&0) }?;
    let node = if backend.is_v4() { config.node_v4 } else { config.node_v6 };
    (!node.is_unspecified()).then_some(Endpoint::new(node, 0))
}
