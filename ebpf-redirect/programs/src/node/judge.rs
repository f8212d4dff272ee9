//! Policy: identity → class, then class, protocol and port → verdict. What a policy has said is remembered,
//! so that it costs the same however much the policy says.

use core::ffi::c_void;

use aya_ebpf::btf_maps::lpm_trie::Key;
use portreeve_ebpf_common::node::{EndpointEntry, NodePolicyKey, VerdictKey};
use portreeve_ebpf_common::{Address, Direction, PolicyValue, Verdict};

use crate::maps::{HOSTS, POLICIES, PREFIXES, VERDICTS};
use crate::packet::put;

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
    #[inline(always)]
    fn of(said: PolicyValue, asked: &VerdictKey) -> Self {
        let VerdictKey { revision, identity, .. } = *asked;
        Self { verdict: said.as_verdict(), revision, identity, rule: said.0[1] }
    }

    /// Nothing was asked.
    #[inline(always)]
    pub fn begin(&mut self) {
        put(&mut self.verdict, Verdict::Deny);
        put(&mut self.revision, 0);
        put(&mut self.identity, 0);
        put(&mut self.rule, 0);
    }
}

/// What an endpoint's policy says of a connection with `peer`: to its port for egress, to the workload's for
/// ingress. Nothing if it has none.
#[inline(always)]
pub fn judge(
    endpoint: &EndpointEntry,
    direction: Direction,
    peer: Address,
    protocol: u8,
    port: u16,
) -> Option<Judged> {
    // A revision is always taken before the identity: whoever has the address afterwards is judged again under
    // a higher one.
    let mut key = VerdictKey {
        endpoint: endpoint.endpoint,
        revision: endpoint.revision,
        identity: identify(peer),
        asked: VerdictKey::asked(direction, protocol, port),
    };
    // SAFETY: copied at once.
    if let Some(said) = unsafe { VERDICTS.get(&key) }.copied() {
        return Some(Judged::of(said, &key));
    }
    // SAFETY: a trie that is replaced is freed when no program holds it.
    let trie = unsafe { POLICIES.get(&endpoint.endpoint) }?;
    // The policy, taken once: no answer mixes two. It may be a later one than the entry says.
    let trie = core::ptr::from_ref(trie).cast_mut().cast();
    key.revision = entry(trie, &NodePolicyKey::HEADER)?.0[0];
    key.identity = identify(peer);
    let said = entry(trie, &NodePolicyKey::identity(key.identity))
        .and_then(|class| {
            entry(trie, &NodePolicyKey::port(class.class(direction), protocol, port, 16))
        })
        .unwrap_or(PolicyValue([0; 3]));
    // Who is refused is not to push out what others may: he could ask for whatever he likes.
    if !matches!(said.as_verdict(), Verdict::Deny) {
        let _ = VERDICTS.insert(&key, &said, 0);
    }
    Some(Judged::of(said, &key))
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
