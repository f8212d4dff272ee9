//! Policy: identity → class, then class, protocol and port → verdict.

use core::ffi::c_void;

use aya_ebpf::btf_maps::lpm_trie::Key;
use portreeve_ebpf_common::node::NodePolicyKey;
use portreeve_ebpf_common::{Address, Direction, PolicyValue, Verdict};

use crate::maps::{HOSTS, POLICIES, PREFIXES};
use crate::packet::put;

/// The policy of one endpoint, taken once: no answer mixes two.
#[derive(Clone, Copy)]
pub struct Policy {
    trie: *mut c_void,
    pub revision: u32,
}

/// A verdict, and what is told of it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Judged {
    pub verdict: Verdict,
    pub revision: u32,
    pub identity: u32,
    pub rule: u32,
}

impl Judged {
    /// Nothing was asked.
    pub const NOTHING: Self = Self { verdict: Verdict::Deny, revision: 0, identity: 0, rule: 0 };
}

impl Judged {
    /// Makes it [`Judged::NOTHING`].
    #[inline(always)]
    pub fn begin(&mut self) {
        put(&mut self.verdict, Verdict::Deny);
        put(&mut self.revision, 0);
        put(&mut self.identity, 0);
        put(&mut self.rule, 0);
    }
}

impl Policy {
    /// The one in force.
    #[inline(always)]
    pub fn of(endpoint: u32) -> Option<Self> {
        // SAFETY: a trie that is replaced is freed when no program holds it.
        let trie = unsafe { POLICIES.get(&endpoint) }?;
        let trie = core::ptr::from_ref(trie).cast_mut().cast();
        let header = entry(trie, &NodePolicyKey::HEADER)?;
        Some(Self { trie, revision: header.0[0] })
    }

    /// What it says of a connection with `peer`: to its port for egress, to the workload's for ingress.
    #[inline(always)]
    pub fn judge(&self, direction: Direction, peer: Address, protocol: u8, port: u16) -> Judged {
        let identity = identify(peer);
        let mut judged = Judged { identity, revision: self.revision, ..Judged::NOTHING };
        let Some(class) = entry(self.trie, &NodePolicyKey::identity(identity)) else {
            return judged;
        };
        let key = NodePolicyKey::port(class.class(direction), protocol, port, 16);
        let Some(found) = entry(self.trie, &key) else { return judged };
        judged.verdict = found.as_verdict();
        judged.rule = found.0[1];
        judged
    }
}

/// Who has an address; 0 if nobody knows.
#[inline(always)]
pub fn identify(address: Address) -> u32 {
    // SAFETY: copied at once.
    if let Some(identity) = unsafe { HOSTS.get(&address) } {
        return *identity;
    }
    PREFIXES.get(&Key::new(128, address.0)).copied().unwrap_or(0)
}

#[inline(always)]
fn entry(trie: *mut c_void, key: &NodePolicyKey) -> Option<PolicyValue> {
    const { assert!(size_of::<NodePolicyKey>() == size_of::<Key<[u32; 3]>>()) };
    // SAFETY: the trie is an inner map of POLICIES, whose keys and values these are; the value is copied
    // before another one can take its place.
    unsafe {
        let found = aya_ebpf::helpers::generated::bpf_map_lookup_elem(
            trie,
            core::ptr::from_ref(key).cast_mut().cast(),
        );
        found.cast::<PolicyValue>().as_ref().copied()
    }
}
