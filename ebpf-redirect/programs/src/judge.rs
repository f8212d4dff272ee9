//! Policy: address → class, then class, protocol and port → verdict.

use aya_ebpf::btf_maps::lpm_trie::Key;
use portreeve_ebpf_common::{Address, Direction, PolicyKey, PolicyValue, Verdict};

use crate::maps::POLICY;

/// A verdict, and what an event says of it.
#[derive(Clone, Copy)]
pub struct Judged {
    pub verdict: Verdict,
    /// The policy's; 0 where it was not asked for, since nobody is told.
    pub revision: u32,
    pub identity: u32,
    pub rule: u32,
    /// A policy is there, and restricts this direction.
    pub enforced: bool,
    /// There is a policy.
    pub ready: bool,
}

impl Judged {
    /// Nothing was asked.
    pub const NOTHING: Self = Self {
        verdict: Verdict::Deny,
        revision: 0,
        identity: 0,
        rule: 0,
        enforced: true,
        ready: false,
    };
}

/// What policy says of a connection with `peer`: to its port for egress, to the workload's for ingress.
///
/// All of it is asked of one trie, taken once: no answer mixes two policies.
#[inline(always)]
pub fn judge(direction: Direction, peer: Address, protocol: u8, port: u16) -> Judged {
    let mut judged = Judged::NOTHING;
    let Some(trie) = POLICY.get(0) else { return judged };
    let trie = core::ptr::from_ref(trie).cast_mut().cast();
    let who = PolicyKey::address(peer, PolicyKey::WHOLE_ADDRESS);
    if let Some(who) = entry(trie, &who) {
        judged.identity = who.0[0];
        let where_to = PolicyKey::port(who.class(direction), protocol, port, 16);
        if let Some(found) = entry(trie, &where_to) {
            judged.verdict = found.as_verdict();
            judged.rule = found.0[1];
        }
    }
    // What is let by is told to nobody: the cheapest way is the most frequent one.
    if let Verdict::Allow = judged.verdict {
        judged.ready = true;
        return judged;
    }
    if let Some(header) = entry(trie, &PolicyKey::HEADER) {
        judged.ready = true;
        judged.revision = header.0[0];
        judged.enforced = header.is_enforced(direction);
    }
    judged
}

/// The header alone.
#[inline(always)]
pub fn header() -> Option<PolicyValue> {
    let trie = POLICY.get(0)?;
    entry(core::ptr::from_ref(trie).cast_mut().cast(), &PolicyKey::HEADER)
}

#[inline(always)]
fn entry(trie: *mut core::ffi::c_void, key: &PolicyKey) -> Option<PolicyValue> {
    const { assert!(size_of::<PolicyKey>() == size_of::<Key<[u32; 5]>>()) };
    // SAFETY: the trie is an inner map of POLICY, whose keys and values these are; the value is copied
    // before another one can take its place.
    unsafe {
        let found = aya_ebpf::helpers::generated::bpf_map_lookup_elem(
            trie,
            core::ptr::from_ref(key).cast_mut().cast(),
        );
        found.cast::<PolicyValue>().as_ref().copied()
    }
}
