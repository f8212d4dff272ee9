//! The upstream side of a pair: absent until something is to be sent, then one connection.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::net::TcpStream;

use crate::redirection::Target;

type Opening = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// The upstream connection.
pub(super) enum Upstream {
    /// Nothing has been sent yet, or opening failed.
    Absent,
    /// Being opened.
    Connecting(Opening),
    /// Paired with the client.
    Open(TcpStream),
}

impl Upstream {
    /// Starts to open a connection.
    pub(super) fn connecting(target: Target) -> Self {
        Self::Connecting(Box::pin(target.connect()))
    }

    /// Carries the opening on; `Ready(None)` when there is none under way.
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<()>>> {
        let Self::Connecting(opening) = self else { return Poll::Ready(None) };
        opening.as_mut().poll(cx).map(|result| {
            Some(match result {
                Ok(stream) => {
                    *self = Self::Open(stream);
                    Ok(())
                }
                Err(error) => {
                    *self = Self::Absent;
                    Err(error)
                }
            })
        })
    }

    pub(super) fn stream(&mut self) -> Option<&mut TcpStream> {
        match self {
            Self::Open(stream) => Some(stream),
            _ => None,
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    pub(super) fn is_connecting(&self) -> bool {
        matches!(self, Self::Connecting(_))
    }
}
