//! The kernel programs of a node: whatever a workload sends, and whatever is sent to it, passes one of
//! them at the host's end of the workload's interface.
//!
//! | file | what |
//! | --- | --- |
//! | `workload.rs` | `from_workload`, `to_workload`: the way of a packet |
//! | `proxy.rs` | `to_proxy`; what hands packets to the proxy's sockets |
//! | `pace.rs` | how fast a workload may open connections |
//! | `waiting.rs`, `../lookup.rs` | `again`: first packets for it whose ends another connection still has |
//! | `outside.rs` | `from_outside`, `to_outside`: services of the node, for those who are not on it |
//! | `packet.rs` | headers: IPv4, IPv6 and its extensions, fragments |
//! | `track.rs` | connections: found, made, gone on with |
//! | `connection.rs` | what policy says of one that goes on, of a new one, of the proxy's |
//! | `discovery.rs` | who is on the link |
//! | `judge.rs` | identity, then class, protocol and port → verdict |
//! | `balance.rs`, `../services.rs` | who asks for a service gets a backend |
//! | `dial.rs`, `../translation.rs`, `../peer_name.rs` | the same at the system call |
//! | `rewrite.rs` | addresses and ports of a packet that become others |
//! | `answer.rs` | who is refused and is told so: a reset, or "prohibited" |
//! | `report.rs` | events and counters |
//! | `maps.rs`, `scratch.rs` | the maps, and the one that is a program's memory |
//!
//! Every function is part of its program: one that is not has a name of its own, which says where it was
//! built.
//!
//! Whatever is missing — an endpoint, a policy, room in a map, a listener — the packet is dropped, and
//! counted.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "the only way to atomic operations")]

mod answer;
mod balance;
mod connection;
#[expect(dead_code, reason = "all of it is used by the programs of one workload")]
#[path = "../context.rs"]
mod context;
mod dial;
mod discovery;
mod judge;
#[path = "../lookup.rs"]
mod lookup;
mod maps;
mod outside;
mod pace;
mod packet;
#[path = "../peer_name.rs"]
mod peer_name;
mod proxy;
mod report;
mod rewrite;
mod scratch;
#[path = "../services.rs"]
mod services;
mod track;
#[path = "../translation.rs"]
mod translation;
mod waiting;
mod workload;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // The verifier refuses a program that could come here.
    loop {}
}

/// What the kernel asks for before it lends its helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
