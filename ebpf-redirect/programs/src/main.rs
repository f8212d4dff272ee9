//! The kernel programs of one workload: whatever a process of its cgroup opens, and whatever is opened
//! to it, is judged here at L3/L4; what needs L7 is turned to the proxy.
//!
//! | file | programs |
//! | --- | --- |
//! | `connect.rs` | `connect4`, `connect6`: verdict, service, redirect |
//! | `datagram.rs`, `translation.rs` | `sendmsg`, `recvmsg`: the same for sockets that are not connected |
//! | `peer_name.rs` | `getpeername`: the address that was asked for |
//! | `sockets.rs` | `sock_create`, `post_bind`, `sock_release`: which sockets there may be, who holds a port |
//! | `flows.rs` | `sock_ops`: where redirected connections wanted to go, by what the proxy sees of them |
//! | `inbound.rs` | `sk_lookup`: connections to the workload |
//! | `join.rs` | `sock_ops` of the proxy, `sk_msg`, `sk_skb`: messages from socket to socket |
//! | `socket_options.rs` | `setsockopt`: what joined sockets can't have |
//! | `original_destination.rs` | `getsockopt`: `SO_ORIGINAL_DST` for proxies that know nothing of this |
//!
//! `judge.rs`, `services.rs`, `conversations.rs`, `report.rs`, `context.rs` and `lookup.rs` are what they share; `maps.rs`
//! lists the maps.
//! Whatever is missing — a policy, a configuration, room in a map — the verdict is no.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "the only way to atomic operations")]

mod connect;
mod context;
mod conversations;
mod datagram;
mod flows;
mod inbound;
mod join;
mod judge;
mod lookup;
mod maps;
mod original_destination;
mod peer_name;
mod report;
mod services;
mod socket_options;
mod sockets;
mod translation;

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
