//! The thread that reads what the kernel tells, so that nobody waits for it and it waits for nobody. While
//! nothing happens it sleeps: no clock wakes it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use portreeve_core::redirection::{KernelVerdict, NodeReporter};
use portreeve_ebpf::node::{NodeEvent, NodeEvents, NodeKernel, Reason};
use portreeve_ebpf_common::Direction;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::Flows;
use super::decision::{Clock, decision};
use super::names::Names;
use super::packet::PacketNews;
use crate::datapath::DatapathError;
use crate::state::{Dated, News};

/// How many are read before the rest is looked after: who is denied all the time must not keep the daemon
/// from ending, nor from saying that events are lost.
const AT_ONCE: usize = 16_384;

/// Events are gathered for so long before they are read, if there were some just now: a flood wakes this
/// thread so often and not more.
const GATHER: Duration = Duration::from_millis(5);

/// How often it is looked at most whether events were lost.
const LOOK: Duration = Duration::from_secs(1);

/// How long events wait at the start until everything has a name.
const PATIENCE: Duration = Duration::from_secs(10);

/// What there is to be read, and by what it is understood.
#[derive(Debug)]
pub struct Told {
    /// Whose events they are.
    pub kernel: Arc<NodeKernel>,
    /// What their numbers stand for.
    pub names: Arc<Names>,
    /// Who takes them down.
    pub reporter: NodeReporter,
}

/// The thread. It ends when this is dropped, with everything taken down that was told.
#[derive(Debug)]
pub struct Reader {
    stop: Arc<Stop>,
    names: Arc<Names>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Stop {
    is_wanted: AtomicBool,
    wakes: OwnedFd,
}

impl Reader {
    /// Reads, and tells `flows`.
    ///
    /// # Errors
    /// When the ring buffer can't be opened, and when there is no thread to be had.
    pub fn start(told: Told, flows: Flows) -> Result<Self, DatapathError> {
        let failed = |error: &dyn std::fmt::Display| {
            DatapathError(format!("what the kernel tells can't be read: {error}"))
        };
        let events = told.kernel.events().map_err(|error| failed(&error))?;
        let wakes = eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| failed(&error))?;
        let stop = Arc::new(Stop { is_wanted: AtomicBool::new(false), wakes });
        let names = told.names.clone();
        let mut reading = Reading { told, events, flows, lost: Lost::default() };
        let stopped = stop.clone();
        let thread = thread::Builder::new()
            .name("kernel-events".to_owned())
            .spawn(move || reading.run(&stopped))
            .map_err(|error| failed(&error))?;
        Ok(Self { stop, names, thread: Some(thread) })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.is_wanted.store(true, Ordering::Relaxed);
        self.names.complete();
        // It counts to far more than 1 before writing fails.
        let _ = rustix::io::write(&self.stop.wakes, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's own.
struct Reading {
    told: Told,
    events: NodeEvents,
    flows: Flows,
    lost: Lost,
}

impl Reading {
    fn run(&mut self, stop: &Stop) {
        self.told.names.wait(PATIENCE);
        loop {
            // Asked before reading: what came before the end is still taken down.
            let ending = stop.is_wanted.load(Ordering::Relaxed);
            let (clock, now) = (Clock::now(), Instant::now());
            let read = self.read(clock, now);
            let flush = self.told.reporter.flush(now);
            let look = self.lost.look(read > 0, now, &self.told.kernel, &self.flows);
            if ending {
                return;
            }
            if read > 0 {
                thread::sleep(GATHER);
            }
            let again = flush.into_iter().chain(look).min();
            if let Err(error) = wait(&self.events, &stop.wakes, again) {
                tracing::error!("can't wait for what the kernel tells: {error}");
                thread::sleep(LOOK);
            }
        }
    }

    /// Takes down what is there. How many there were.
    fn read(&mut self, clock: Clock, now: Instant) -> usize {
        for count in 0..AT_ONCE {
            let Some(event) = self.events.next() else { return count };
            self.take(&event, clock, now);
        }
        AT_ONCE
    }

    fn take(&mut self, event: &NodeEvent, clock: Clock, now: Instant) {
        let known = self.told.names.of(event.endpoint, event.revision);
        let (name, decided) = known.map_or((None, None), |(name, policy)| (Some(name), policy));
        let decision = decision(event, clock);
        let (named, flows) = (name.as_deref(), &self.flows);
        let of = named.unwrap_or_default();
        self.told.reporter.report(of, decided.as_ref(), &decision, now, |flow| {
            let packet = || Box::new(PacketNews::new(named, event.endpoint, &decision, flow));
            match decision.verdict {
                KernelVerdict::Denied => {
                    flows.tell_dropped(|| Dated::at(flow.time, News::Dropped(packet())));
                }
                _ => flows.tell_opened(|| Dated::at(flow.time, News::Opened(packet()))),
            }
        });
    }
}

/// Sleeps until there is something to read, or to end, or it is time.
fn wait(events: &NodeEvents, wakes: &OwnedFd, until: Option<Instant>) -> io::Result<()> {
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    let left = left.map(|left| Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    });
    let mut ready = [PollFd::new(events, PollFlags::IN), PollFd::new(wakes, PollFlags::IN)];
    match poll(&mut ready, left.as_ref()) {
        Err(error) if error != rustix::io::Errno::INTR => Err(error.into()),
        _ => Ok(()),
    }
}

/// What was said of lost events.
#[derive(Debug, Default)]
struct Lost {
    known: Option<u64>,
    looked: Option<Instant>,
    /// There were events since it was looked last.
    is_due: bool,
}

impl Lost {
    /// Says so if more events were lost, but not all the time; those of the time before, too. When to
    /// look again.
    fn look(
        &mut self,
        has_read: bool,
        now: Instant,
        kernel: &NodeKernel,
        flows: &Flows,
    ) -> Option<Instant> {
        self.is_due |= has_read || self.looked.is_none();
        if !self.is_due {
            return None;
        }
        let next = self.looked.map_or(now, |looked| looked + LOOK);
        if now < next {
            return Some(next);
        }
        (self.looked, self.is_due) = (Some(now), false);
        let Ok(counters) = kernel.counters() else { return None };
        let all = [Direction::Egress, Direction::Ingress]
            .map(|direction| counters.get(Reason::EventLost, direction))
            .iter()
            .sum();
        match self.known.replace(all) {
            Some(before) if all > before => said(all - before, flows),
            None if all > 0 => tracing::warn!(
                "{all} events of the kernel were lost before this daemon began to read: they are \
                 missing in the access log, no packet was treated otherwise"
            ),
            _ => {}
        }
        None
    }
}

fn said(count: u64, flows: &Flows) {
    tracing::warn!(
        "{count} events of the kernel are missing in the access log: they came faster than they were \
         read; no packet was treated otherwise"
    );
    flows.tell_dropped(|| Dated::now(News::EventsLost { count }));
}
