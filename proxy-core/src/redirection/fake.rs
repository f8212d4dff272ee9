//! A stand-in for the kernel, for tests of this crate's own.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use portreeve_policy::{EndpointPolicy, TrafficDirection};

use super::{Exemption, KernelCounters, Redirection, Refusal};

/// Notes who is exempt, and who still is.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    asked: Mutex<Vec<(SocketAddr, SocketAddr)>>,
    open: Arc<AtomicUsize>,
}

impl Notes {
    /// Both ends of every connection that was to be exempt.
    pub(crate) fn asked(&self) -> Vec<(SocketAddr, SocketAddr)> {
        self.asked.lock().unwrap().clone()
    }

    /// How many still are.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Redirection for Notes {
    fn original_destination(&self, _: SocketAddr, _: SocketAddr) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn exempt(&self, from: SocketAddr, to: SocketAddr) -> io::Result<Exemption> {
        self.asked.lock().unwrap().push((from, to));
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Open(self.open.clone())))
    }
    fn listening(&self, _: TrafficDirection, _: SocketAddr, _: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }
    fn policy(&self, _: u64, _: &EndpointPolicy) -> Result<(), Refusal> {
        Ok(())
    }
    fn counters(&self) -> io::Result<KernelCounters> {
        Ok(KernelCounters::default())
    }
}
