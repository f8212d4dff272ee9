//! What programs read from and write to a socket address's context. Each word by itself: LLVM would join
//! neighbours, which the verifier refuses.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_sk_storage_get,
};
use aya_ebpf::programs::SockAddrContext;
use portreeve_ebpf_common::{Address, Endpoint, SocketState};

use crate::maps::SOCKETS;

/// What a system call is refused with, when it is not EPERM.
pub const ECONNREFUSED: i32 = 111;

/// The program lets the system call go on.
pub const GO_ON: i32 = 1;
/// The system call ends with EPERM, or what `bpf_set_retval` has set.
pub const STOP: i32 = 0;

/// The address of a system call.
#[derive(Clone, Copy)]
pub struct Call {
    context: *mut bpf_sock_addr,
    v6: bool,
}

impl Call {
    /// Of a program for IPv4 addresses.
    #[inline(always)]
    pub fn v4(context: &SockAddrContext) -> Self {
        Self { context: context.sock_addr, v6: false }
    }

    /// Of a program for IPv6 addresses, mapped ones among them.
    #[inline(always)]
    pub fn v6(context: &SockAddrContext) -> Self {
        Self { context: context.sock_addr, v6: true }
    }

    /// The address in the system call.
    #[inline(always)]
    pub fn endpoint(self) -> Endpoint {
        let sa = self.context;
        // SAFETY: the context lives as long as the program runs.
        unsafe {
            let address = match self.v6 {
                false => Address::v4(read_volatile(&raw const (*sa).user_ip4)),
                true => Address([
                    read_volatile(&raw const (*sa).user_ip6[0]),
                    read_volatile(&raw const (*sa).user_ip6[1]),
                    read_volatile(&raw const (*sa).user_ip6[2]),
                    read_volatile(&raw const (*sa).user_ip6[3]),
                ]),
            };
            let port = read_volatile(&raw const (*sa).user_port);
            Endpoint::new(address, u16::from_be(port as u16))
        }
    }

    /// Puts another in its place. One of the other family is not put there: `false`.
    #[inline(always)]
    pub fn set(self, endpoint: Endpoint) -> bool {
        let sa = self.context;
        let words = endpoint.address.0;
        if !self.v6 && !endpoint.address.is_v4() {
            return false;
        }
        // SAFETY: as above; the kernel lets programs of these kinds write these words.
        unsafe {
            match self.v6 {
                false => write_volatile(&raw mut (*sa).user_ip4, words[3]),
                true => {
                    write_volatile(&raw mut (*sa).user_ip6[0], words[0]);
                    write_volatile(&raw mut (*sa).user_ip6[1], words[1]);
                    write_volatile(&raw mut (*sa).user_ip6[2], words[2]);
                    write_volatile(&raw mut (*sa).user_ip6[3], words[3]);
                }
            }
            write_volatile(&raw mut (*sa).user_port, (endpoint.port as u16).to_be() as u32);
        }
        true
    }

    /// Puts loopback in the place of "any". The kernel would do so, too, unless the socket is bound to an
    /// address: then it goes to that one, and policy has judged another.
    #[inline(always)]
    pub fn set_reached(self, endpoint: Endpoint) -> bool {
        let address = endpoint.address.reached();
        address == endpoint.address || self.set(Endpoint { address, ..endpoint })
    }

    /// The IP protocol of the socket.
    #[inline(always)]
    pub fn protocol(self) -> u8 {
        // SAFETY: as above.
        unsafe { read_volatile(&raw const (*self.context).protocol) as u8 }
    }

    /// The mark of the socket.
    #[allow(dead_code, reason = "the programs of one workload know the proxy by its cgroup")]
    #[inline(always)]
    pub fn mark(self) -> u32 {
        // SAFETY: as above; a socket address's program always has a socket.
        unsafe {
            let sk = (*self.context).__bindgen_anon_1.sk;
            if sk.is_null() { 0 } else { read_volatile(&raw const (*sk).mark) }
        }
    }

    /// The port that the socket sends from.
    #[inline(always)]
    pub fn local_port(self) -> u32 {
        // SAFETY: as above; a socket address's program always has a socket.
        unsafe {
            let sk = (*self.context).__bindgen_anon_1.sk;
            if sk.is_null() { 0 } else { read_volatile(&raw const (*sk).src_port) }
        }
    }

    /// The address and port that the socket sends from; no address if it is bound to none.
    #[inline(always)]
    pub fn local(self) -> Option<Endpoint> {
        // SAFETY: as above.
        unsafe {
            let sk = (*self.context).__bindgen_anon_1.sk;
            if sk.is_null() {
                return None;
            }
            let v6 = [
                read_volatile(&raw const (*sk).src_ip6[0]),
                read_volatile(&raw const (*sk).src_ip6[1]),
                read_volatile(&raw const (*sk).src_ip6[2]),
                read_volatile(&raw const (*sk).src_ip6[3]),
            ];
            let v4 = read_volatile(&raw const (*sk).src_ip4);
            let address = either(read_volatile(&raw const (*sk).family), v4, v6);
            Some(Endpoint::new(address, read_volatile(&raw const (*sk).src_port) as u16))
        }
    }

    #[inline(always)]
    pub fn cookie(self) -> u64 {
        // SAFETY: the helper takes the context.
        unsafe { bpf_get_socket_cookie(self.context.cast()) }
    }

    /// Cookie of the socket's network namespace.
    #[inline(always)]
    pub fn netns(self) -> u64 {
        // SAFETY: the helper takes the context.
        unsafe { bpf_get_netns_cookie(self.context.cast()) }
    }

    /// What is kept with the socket, if anything is.
    #[inline(always)]
    pub fn state(self) -> Option<&'static mut SocketState> {
        self.storage(0)
    }

    /// What is kept with the socket; nothing if there is no memory.
    #[inline(always)]
    pub fn state_or_new(self) -> Option<&'static mut SocketState> {
        self.storage(1)
    }

    #[inline(always)]
    fn storage(self, flags: u64) -> Option<&'static mut SocketState> {
        // SAFETY: the storage lives as long as the socket, which lives as long as the program runs.
        unsafe {
            let sk = (*self.context).__bindgen_anon_1.sk;
            if sk.is_null() {
                return None;
            }
            let map = (&raw const SOCKETS).cast_mut().cast();
            bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), flags)
                .cast::<SocketState>()
                .as_mut()
        }
    }
}

/// The address of a socket of either family. Both are read before one is chosen: LLVM would turn a choice
/// of what to read into arithmetic on the context, which the verifier refuses.
#[inline(always)]
pub fn either(family: u32, v4: u32, v6: [u32; 4]) -> Address {
    const AF_INET: u32 = 2;
    if family == AF_INET { Address::v4(v4) } else { Address(v6) }
}
