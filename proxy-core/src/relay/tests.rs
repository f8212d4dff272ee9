//! The relay over real sockets, with gates small enough to see through.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portreeve_protocols::gate::{Close, Direction, Gate, Op, Phase, UpstreamFailure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{End, Relay, Session};
use crate::endpoints::Role;
use crate::redirection::{Target, Way};
use crate::runtime::{Crowd, Registry, Signals};

/// Looks at nothing.
struct Tunnel;

impl<H: ?Sized> Gate<H> for Tunnel {
    fn step(&mut self, _: Direction, _: &[u8], _: &mut Vec<u8>, _: &mut H) -> Op {
        Op::Forward(Op::FOREVER)
    }
    fn end(&mut self, _: Direction, _: &[u8], _: &mut Vec<u8>, _: &mut H) -> Op {
        Op::NeedInput
    }
    fn upstream_failed(&mut self, _: UpstreamFailure, _: &mut H) {}
    fn timed_out(&mut self, _: &mut Vec<u8>, _: &mut H) -> Op {
        Op::Close(Close::Abort)
    }
    fn phase(&self) -> Phase {
        Phase::Tunnel
    }
}

/// Requests are lines; one that begins with `x` is denied, its answer waits for its turn among
/// the answers (lines, too) of the requests before it.
#[derive(Default)]
struct Lines {
    /// `true` for each answer that the upstream owes, `false` for a denial.
    due: std::collections::VecDeque<bool>,
    failed: bool,
    /// The answer under way ends with the bytes being forwarded.
    answering: bool,
}

impl<H: ?Sized> Gate<H> for Lines {
    fn step(&mut self, direction: Direction, input: &[u8], out: &mut Vec<u8>, _: &mut H) -> Op {
        let line = input.iter().position(|&b| b == b'\n').map(|at| at as u64 + 1);
        match direction {
            Direction::Request => match line {
                None => Op::NeedInput,
                Some(n) if input[0] == b'x' => {
                    self.due.push_back(false);
                    Op::Discard(n)
                }
                Some(n) => {
                    self.due.push_back(true);
                    Op::Forward(n)
                }
            },
            Direction::Response => {
                if std::mem::take(&mut self.answering) {
                    self.due.pop_front();
                }
                match (self.due.front(), line) {
                    (Some(true), _) if self.failed => {
                        self.due.pop_front();
                        out.extend_from_slice(b"failed\n");
                        Op::Inject
                    }
                    (Some(true), Some(n)) => {
                        self.answering = true;
                        Op::Forward(n)
                    }
                    (Some(false), _) => {
                        self.due.pop_front();
                        out.extend_from_slice(b"denied\n");
                        Op::Inject
                    }
                    _ => Op::NeedInput,
                }
            }
        }
    }
    fn end(&mut self, direction: Direction, _: &[u8], _: &mut Vec<u8>, _: &mut H) -> Op {
        match direction {
            Direction::Request => Op::NeedInput,
            Direction::Response => Op::Close(Close::Graceful),
        }
    }
    fn upstream_failed(&mut self, _: UpstreamFailure, _: &mut H) {
        self.failed = true;
    }
    fn timed_out(&mut self, out: &mut Vec<u8>, _: &mut H) -> Op {
        out.extend_from_slice(b"too late\n");
        Op::Inject
    }
    fn phase(&self) -> Phase {
        match self.due.is_empty() {
            true => Phase::Idle,
            false => Phase::Response,
        }
    }
}

struct Plain {
    upstream: SocketAddr,
    now: Instant,
    opened: Arc<AtomicU64>,
    revoked: Arc<AtomicBool>,
}

impl Session for Plain {
    fn set_now(&mut self, now: Instant) {
        self.now = now;
    }
    fn now(&self) -> Instant {
        self.now
    }
    fn upstream(&self) -> Target {
        Target { address: self.upstream, limit: Duration::from_secs(5), way: Way::Straight }
    }
    fn upstream_opened(&mut self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }
    fn upstream_failed(&mut self, _: &io::Error) {}
    fn time_allowed(&self, phase: Phase) -> Option<Duration> {
        (phase == Phase::Idle).then_some(Duration::from_millis(50))
    }
    fn timed_out(&mut self, _: Phase) {}
    fn review(&mut self) {}
    fn revoked(&self) -> bool {
        self.revoked.load(Ordering::Relaxed)
    }
    fn closed(&mut self, _: End, _: u64, _: u64) {}
}

/// A client whose connection runs through a relay, and the listener that stands for the upstream.
struct Bench {
    client: TcpStream,
    upstream: TcpListener,
    registry: Arc<Registry>,
    opened: Arc<AtomicU64>,
    revoked: Arc<AtomicBool>,
}

async fn bench<G: Gate<Plain> + Send + Unpin + 'static>(gate: G) -> Bench {
    let upstream = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let front = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let client = TcpStream::connect(front.local_addr().expect("bound")).await.expect("front");
    let (accepted, _) = front.accept().await.expect("a client");
    let registry = Arc::new(Registry::new(Arc::new(Crowd::new(10))));
    let (opened, revoked) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let session = Plain {
        upstream: upstream.local_addr().expect("bound"),
        now: Instant::now(),
        opened: opened.clone(),
        revoked: revoked.clone(),
    };
    let registration = registry.register(Role::Client).expect("room");
    tokio::spawn(Relay::new(accepted, gate, session, registration));
    Bench { client, upstream, registry, opened, revoked }
}

async fn read_some(stream: &mut TcpStream) -> String {
    let mut buffer = [0; 256];
    let n = stream.read(&mut buffer).await.expect("bytes");
    String::from_utf8_lossy(&buffer[..n]).into_owned()
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("the end");
    text
}

#[tokio::test]
async fn allowed_lines_pass_and_answers_return() {
    let mut bench = bench(Lines::default()).await;
    bench.client.write_all(b"one\n").await.expect("sent");
    let (mut server, _) = bench.upstream.accept().await.expect("the upstream");
    assert_eq!(read_some(&mut server).await, "one\n");
    server.write_all(b"1\n").await.expect("sent");
    assert_eq!(read_some(&mut bench.client).await, "1\n");
}

#[tokio::test]
async fn a_denied_line_never_opens_the_upstream() {
    let mut bench = bench(Lines::default()).await;
    bench.client.write_all(b"x\n").await.expect("sent");
    assert_eq!(read_some(&mut bench.client).await, "denied\n");
    assert_eq!(bench.opened.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn denials_come_in_their_turn_and_denied_bytes_stay_here() {
    let mut bench = bench(Lines::default()).await;
    bench.client.write_all(b"a\nxb\nc\nxd\nxe\nf\n").await.expect("sent");
    let (mut server, _) = bench.upstream.accept().await.expect("the upstream");
    assert_eq!(read_some(&mut server).await, "a\nc\nf\n");
    server.write_all(b"A\nC\nF\n").await.expect("sent");
    let mut answers = String::new();
    while !answers.ends_with("F\n") {
        answers += &read_some(&mut bench.client).await;
    }
    assert_eq!(answers, "A\ndenied\nC\ndenied\ndenied\nF\n");
}

#[tokio::test]
async fn an_upstream_that_is_down_is_answered_for() {
    let mut bench = bench(Lines::default()).await;
    let dead = std::mem::replace(
        &mut bench.upstream,
        TcpListener::bind("127.0.0.1:0").await.expect("a port"),
    );
    drop(dead);
    bench.client.write_all(b"a\nx\n").await.expect("sent");
    let mut answers = String::new();
    while !answers.ends_with("denied\n") {
        answers += &read_some(&mut bench.client).await;
    }
    assert_eq!(answers, "failed\ndenied\n");
}

#[tokio::test]
async fn half_close_passes_both_ways() {
    let mut bench = bench(Tunnel).await;
    bench.client.write_all(b"question").await.expect("sent");
    bench.client.shutdown().await.expect("half-closed");
    let (mut server, _) = bench.upstream.accept().await.expect("the upstream");
    assert_eq!(read_to_end(&mut server).await, "question");
    server.write_all(b"answer").await.expect("sent");
    server.shutdown().await.expect("half-closed");
    assert_eq!(read_to_end(&mut bench.client).await, "answer");
}

#[tokio::test]
async fn a_clients_reset_reaches_the_upstream() {
    let mut bench = bench(Tunnel).await;
    bench.client.write_all(b"hello").await.expect("sent");
    let (mut server, _) = bench.upstream.accept().await.expect("the upstream");
    assert_eq!(read_some(&mut server).await, "hello");
    bench.client.set_zero_linger().expect("linger");
    drop(bench.client);
    let error = server.read(&mut [0; 8]).await.expect_err("a reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn revoked_connections_are_reset() {
    let mut bench = bench(Tunnel).await;
    bench.client.write_all(b"hello").await.expect("sent");
    let (mut server, _) = bench.upstream.accept().await.expect("the upstream");
    assert_eq!(read_some(&mut server).await, "hello");
    bench.revoked.store(true, Ordering::Relaxed);
    bench.registry.signal_all(Signals::REVIEW);
    let error = bench.client.read(&mut [0; 8]).await.expect_err("a reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn an_idle_connection_meets_its_deadline() {
    let begin = Instant::now();
    let mut bench = bench(Lines::default()).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    // However long it has taken until here.
    bench.registry.sweep(begin + Duration::from_millis(20));
    bench.client.write_all(b"x\n").await.expect("sent");
    assert_eq!(read_some(&mut bench.client).await, "denied\n", "not yet due");
    tokio::time::sleep(Duration::from_millis(80)).await;
    bench.registry.sweep(Instant::now());
    assert_eq!(read_to_end(&mut bench.client).await, "too late\n");
}

#[tokio::test]
async fn draining_ends_a_connection_between_messages_only() {
    let mut bench = bench(Lines::default()).await;
    bench.client.write_all(b"a\n").await.expect("sent");
    let (mut server, _) = bench.upstream.accept().await.expect("the upstream");
    assert_eq!(read_some(&mut server).await, "a\n");
    bench.registry.signal_all(Signals::DRAIN);
    tokio::time::sleep(Duration::from_millis(20)).await;
    server.write_all(b"A\n").await.expect("sent");
    assert_eq!(read_to_end(&mut bench.client).await, "A\n");
}

/// Far more than the sockets hold, in both directions at once, with readers that lag behind: what
/// arrives is what was sent, and a full socket makes the relay stop reading.
#[tokio::test]
async fn long_streams_arrive_whole_past_slow_readers() {
    const BYTES: usize = 48 << 20;
    let bench = bench(Tunnel).await;
    let (mut client_in, mut client_out) = bench.client.into_split();
    let first = tokio::spawn(async move {
        client_out.write_all(&pattern(1, BYTES)).await.expect("sent");
        client_out.shutdown().await.expect("ended");
    });
    let (server, _) = bench.upstream.accept().await.expect("the upstream");
    let (mut server_in, mut server_out) = server.into_split();
    let second = tokio::spawn(async move {
        server_out.write_all(&pattern(2, BYTES)).await.expect("sent");
        server_out.shutdown().await.expect("ended");
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!first.is_finished(), "nobody reads, so somebody must wait");
    let (mut at_server, mut at_client) = (Vec::new(), Vec::new());
    server_in.read_to_end(&mut at_server).await.expect("all");
    client_in.read_to_end(&mut at_client).await.expect("all");
    assert!(at_server == pattern(1, BYTES), "client to server differs");
    assert!(at_client == pattern(2, BYTES), "server to client differs");
    first.await.expect("done");
    second.await.expect("done");
}

fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    (0..bytes / 8)
        .flat_map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_le_bytes()
        })
        .collect()
}
