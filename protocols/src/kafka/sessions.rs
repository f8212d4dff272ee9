//! Share sessions (KIP-932) that were opened here.
//!
//! A broker remembers which topics a session is about, so a request that goes on with one need not
//! name them. Every topic of a session that was opened and extended over this connection was judged
//! here; one that was opened elsewhere may be about anything.

/// More than one member on a connection is rare.
const KEPT: usize = 64;

/// A group and a member.
type Opened = (Box<[u8]>, Box<[u8]>);

/// Groups and members with a session, under one policy.
#[derive(Debug, Default)]
pub(super) struct ShareSessions {
    revision: u64,
    open: Vec<Opened>,
}

impl ShareSessions {
    /// Whether a request of this epoch may be judged by the topics that it names: it opens a session,
    /// or goes on with one that was opened here under the policy in force.
    pub(super) fn knows(&mut self, epoch: i32, group: &[u8], member: &[u8], revision: u64) -> bool {
        if self.revision != revision {
            self.revision = revision;
            self.open.clear();
        }
        epoch == 0 || self.open.iter().any(|(g, m)| **g == *group && **m == *member)
    }

    /// A request of this epoch has been forwarded.
    pub(super) fn forwarded(&mut self, epoch: i32, group: &[u8], member: &[u8]) {
        if epoch > 0 {
            return;
        }
        self.open.retain(|(g, m)| **g != *group || **m != *member);
        if epoch == 0 {
            if self.open.len() >= KEPT {
                self.open.remove(0);
            }
            self.open.push((group.into(), member.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_known_where_it_was_opened_and_under_the_policy_it_was() {
        let mut sessions = ShareSessions::default();
        assert!(sessions.knows(0, b"g", b"m", 1));
        assert!(!sessions.knows(1, b"g", b"m", 1));
        sessions.forwarded(0, b"g", b"m");
        assert!(sessions.knows(1, b"g", b"m", 1));
        assert!(!sessions.knows(1, b"g", b"other", 1));
        assert!(!sessions.knows(2, b"g", b"m", 2), "policy has changed");
        sessions.forwarded(0, b"g", b"m");
        sessions.forwarded(-1, b"g", b"m");
        assert!(!sessions.knows(1, b"g", b"m", 2), "it was closed");
    }
}
