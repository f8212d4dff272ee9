//! The loads that h2load can't make: streams of messages, connections and streams that are open and
//! silent. They run in this process, on the load's core.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::client::{Call, Connection, run};
use super::{CHAT, GET, GOOD, SMALL, WATCH, message};
use crate::Failure;
use crate::process::{Running, pin_this_thread};

/// No load takes longer.
pub(super) const AT_MOST: Duration = Duration::from_secs(60);

/// How long messages are exchanged.
const CHAT_FOR: Duration = Duration::from_secs(2);
/// Connections with a stream of messages each.
const CHATS: usize = 8;
/// Messages of a stream that are on their way.
const IN_FLIGHT: usize = 8;

/// Microseconds of the proxy's CPU a message that went there and came back.
pub fn chat(proxy: &Running) -> Result<f64, Failure> {
    pin_this_thread();
    let address = proxy.address;
    run(AT_MOST, async {
        let before = proxy.cpu();
        let until = Instant::now() + CHAT_FOR;
        let chats: Vec<_> = (0..CHATS).map(|_| tokio::spawn(one_chat(address, until))).collect();
        let mut messages = 0;
        for chat in chats {
            messages += chat.await??;
        }
        Ok((proxy.cpu() - before) * 1e6 / messages as f64)
    })
}

/// How many messages came back, which are as many as were sent.
async fn one_chat(address: SocketAddr, until: Instant) -> Result<usize, Failure> {
    let connection = Connection::open(address).await?;
    let mut call = connection.call(Call::new(CHAT, GOOD)).await?;
    let message = message(SMALL);
    let (mut said, mut heard) = (0, 0);
    loop {
        while said < heard + IN_FLIGHT && Instant::now() < until {
            call.say(message.clone())?;
            said += 1;
        }
        if heard == said {
            break;
        }
        heard = call.hear().await?;
    }
    call.end().await?.allowed(said)?;
    Ok(said)
}

/// Idle connections to measure.
const IDLE: usize = 1000;

/// KiB of a connection that has asked once and waits.
pub fn idle_kib(proxy: &Running) -> Result<f64, Failure> {
    run(AT_MOST, async {
        let before = proxy.memory_kib();
        let connections = open(proxy.address, IDLE).await?;
        let after = settled(proxy).await;
        drop(connections);
        Ok(after.saturating_sub(before) as f64 / IDLE as f64)
    })
}

/// Connections with open streams, and how many on each.
const WATCHING: usize = 100;
const WATCHES: usize = 50;

/// KiB of a stream that has both sides' fields and waits; what its connection takes is not counted.
pub fn watch_kib(proxy: &Running) -> Result<f64, Failure> {
    run(AT_MOST, async {
        let connections = open(proxy.address, WATCHING).await?;
        let before = settled(proxy).await;
        let mut watches = Vec::new();
        for connection in &connections {
            for _ in 0..WATCHES {
                watches.push(connection.call(Call::new(WATCH, GOOD)).await?);
            }
        }
        let after = settled(proxy).await;
        let count = watches.len();
        // None of them was given up meanwhile.
        for watch in watches {
            watch.end().await?.allowed(0)?;
        }
        Ok(after.saturating_sub(before) as f64 / count as f64)
    })
}

/// So many connections, each of which has made a call.
pub(super) async fn open(address: SocketAddr, count: usize) -> Result<Vec<Connection>, Failure> {
    let mut connections = Vec::new();
    for _ in 0..count {
        let connection = Connection::open(address).await?;
        connection.unary(Call::new(GET, GOOD), message(SMALL)).await?.allowed(1)?;
        connections.push(connection);
    }
    Ok(connections)
}

/// Resident memory when all has come to rest.
async fn settled(proxy: &Running) -> u64 {
    tokio::time::sleep(Duration::from_millis(300)).await;
    proxy.memory_kib()
}
