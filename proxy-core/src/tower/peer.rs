//! Who asks, as extensions of a request: set by whoever accepts the connection or checks a credential.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Extensions;
use portreeve_policy::Labels;

use crate::guard;

/// The peer's labels, from a source that the program trusts: a verified token, a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer(pub Arc<Labels>);

/// The SPIFFE id that the peer has proved to have, by mutual TLS for instance. Its trust domain must
/// be among [`GuardConfig::trust_domains`](guard::GuardConfig::trust_domains); see
/// [`spiffe_labels`](guard::spiffe_labels) for what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpiffeId(pub Arc<str>);

/// The address of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// A peer, in one of the ways to know one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Known {
    /// By labels.
    Labels(Peer),
    /// By SPIFFE id.
    Spiffe(SpiffeId),
    /// By address.
    Address(PeerAddr),
}

impl Known {
    /// The best that a request's extensions say.
    pub(super) fn of(extensions: &Extensions) -> Option<Self> {
        let labels = || extensions.get::<Peer>().cloned().map(Self::Labels);
        let spiffe = || extensions.get::<SpiffeId>().cloned().map(Self::Spiffe);
        let address = || extensions.get::<PeerAddr>().copied().map(Self::Address);
        labels().or_else(spiffe).or_else(address)
    }
}

impl From<Peer> for Known {
    fn from(peer: Peer) -> Self {
        Self::Labels(peer)
    }
}

impl From<SpiffeId> for Known {
    fn from(id: SpiffeId) -> Self {
        Self::Spiffe(id)
    }
}

impl From<PeerAddr> for Known {
    fn from(address: PeerAddr) -> Self {
        Self::Address(address)
    }
}

impl<'a> From<Option<&'a Known>> for guard::Peer<'a> {
    fn from(known: Option<&'a Known>) -> Self {
        match known {
            None => Self::Unknown,
            Some(Known::Labels(Peer(labels))) => Self::Labels(labels),
            Some(Known::Spiffe(SpiffeId(id))) => Self::Spiffe(id),
            Some(Known::Address(PeerAddr(address))) => Self::Address(*address),
        }
    }
}
