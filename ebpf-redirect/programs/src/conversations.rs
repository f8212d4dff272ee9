//! Datagrams have no connections, but answers: what policy has let one of two begin, the other may answer.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use portreeve_ebpf_common::{
    Conversation, ConversationKey, Direction, Endpoint, Verdict, protocol,
};

use crate::judge::judge;
use crate::maps::REPLIES;

/// Whether a datagram in `direction` answers what `remote`, or the workload's `port`, has begun. That is
/// judged by the policy of now: an answer to what may not be begun any more is none.
#[inline(always)]
pub fn is_answer(direction: Direction, remote: Endpoint, port: u32) -> bool {
    let key = ConversationKey { remote, port };
    let Some(conversation) = REPLIES.get_ptr_mut(&key) else { return false };
    // SAFETY: the helper takes nothing; an entry that is reused meanwhile is another conversation's, whose
    // time this one's would lengthen by no more than itself.
    let (now, opened) = unsafe { (bpf_ktime_get_ns(), (*conversation).opened) };
    // SAFETY: as above.
    let since = unsafe { (*conversation).since };
    if opened == direction as u32 || now.wrapping_sub(since) > Conversation::TIMEOUT {
        return false;
    }
    let (began, asked) = match direction {
        Direction::Ingress => (Direction::Egress, remote.port),
        Direction::Egress => (Direction::Ingress, port),
    };
    let judged = judge(began, remote.address, protocol::UDP, asked as u16);
    if judged.verdict as u32 != Verdict::Allow as u32 {
        return false;
    }
    // SAFETY: as above.
    unsafe { (*conversation).since = now };
    true
}

/// A datagram in `direction` was let pass: what comes back is an answer.
#[inline(always)]
pub fn begin(direction: Direction, remote: Endpoint, port: u32) {
    let key = ConversationKey { remote, port };
    // SAFETY: the helper takes nothing.
    let since = unsafe { bpf_ktime_get_ns() };
    // When there is no room the oldest is forgotten; its answers are judged as if they began something.
    let _ = REPLIES.insert(&key, &Conversation { since, opened: direction as u32, pad: 0 }, 0);
}
