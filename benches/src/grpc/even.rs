//! Unary calls at an even rate, as a sidecar has them most of its life.
//!
//! A clock says when calls are due; they are made whether or not those before have been
//! answered, and a call's time runs from the moment it was due. So a proxy that stalls pays for each
//! call that waits meanwhile, and one that can't keep up shows it.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::client::{Call, Connection, run};
use super::load::{AT_MOST, open};
use super::{GET, GOOD, SMALL, message};
use crate::Failure;
use crate::process::{Running, pin_this_thread};

/// Calls a second.
const RATE: u32 = 2000;
const LASTS: Duration = Duration::from_secs(4);
const CONNECTIONS: usize = 16;

/// What an even load gave.
pub struct Even {
    /// CPU of the proxy a call.
    pub cpu_micros: f64,
    /// Median time to the answer.
    pub p50_micros: f64,
    /// The time that one in a hundred exceeds.
    pub p99_micros: f64,
}

type Times = Arc<Mutex<Vec<Duration>>>;

/// `RATE` calls a second, over connections in turn.
pub fn rate(proxy: &Running) -> Result<Even, Failure> {
    pin_this_thread();
    run(AT_MOST, async {
        let connections = open(proxy.address, CONNECTIONS).await?;
        let times = Times::default();
        let interval = Duration::from_secs(1) / RATE;
        let count = LASTS.as_nanos().div_ceil(interval.as_nanos());
        let before = proxy.cpu();
        let mut clock = clock(interval);
        let mut calls = Vec::new();
        let message = message(SMALL);
        for (_, connection) in (0..count).zip(connections.iter().cycle()) {
            let due = clock.recv().await.ok_or("the clock has stopped")?;
            let call = one(connection.clone(), message.clone(), due, times.clone());
            calls.push(tokio::spawn(call));
        }
        for call in calls {
            call.await??;
        }
        let spent = proxy.cpu() - before;
        let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
        times.sort();
        let percentile = |of: usize| times[times.len() * of / 100].as_secs_f64() * 1e6;
        Ok(Even {
            cpu_micros: spent * 1e6 / times.len() as f64,
            p50_micros: percentile(50),
            p99_micros: percentile(99),
        })
    })
}

async fn one(
    connection: Connection,
    message: Bytes,
    due: Instant,
    times: Times,
) -> Result<(), Failure> {
    let answer = connection.unary(Call::new(GET, GOOD), message).await?;
    let time = due.elapsed();
    answer.allowed(1)?;
    times.lock().unwrap_or_else(PoisonError::into_inner).push(time);
    Ok(())
}

/// Says when calls are due, from a thread of its own: the runtime's timers know milliseconds only.
/// It ends when nobody listens any more.
fn clock(interval: Duration) -> UnboundedReceiver<Instant> {
    let (say, due) = unbounded_channel();
    std::thread::spawn(move || {
        // Without it the kernel may be 50 µs late on purpose.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let mut next = Instant::now() + interval;
        loop {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            if say.send(next).is_err() {
                break;
            }
            next += interval;
        }
    });
    due
}
