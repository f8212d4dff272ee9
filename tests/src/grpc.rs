//! A gRPC server that counts what reaches it, and can do to its clients what servers do: refuse,
//! be slow, send them elsewhere, go.
//!
//! Messages are bytes and nothing is generated. What a client compressed is sent back as it came, so
//! that a client which can read it proves that nobody touched it. Nobody but tests calls this.

mod answers;
mod wire;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};

/// Who refuses what the suite's policy forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denials {
    /// Somebody before the server; it serves whatever arrives.
    Before,
    /// The server, in the words of the proxy: for clients that are run without one.
    Here,
}

/// What a server has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Connections, ever.
    pub connections: usize,
    /// Connections that are open.
    pub open: usize,
    /// Calls by path, those refused here aside.
    pub calls: BTreeMap<String, usize>,
    /// Of these, the ones whose client went before their answer's end.
    pub cancelled: BTreeMap<String, usize>,
    /// `grpc-timeout` of each call that had one, with its path.
    pub timeouts: Vec<(String, String)>,
}

/// What the server's parts share.
struct Shared {
    denials: Denials,
    seen: Mutex<Seen>,
    go_away: Notify,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running server, ended with this value.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Server {
    /// Starts one on a port that is free.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn start(denials: Denials) -> Self {
        let shared = Shared { denials, seen: Mutex::default(), go_away: Notify::new() };
        let address = crate::free_address();
        let mut server = Self { address, shared: Arc::new(shared), running: None };
        server.revive();
        server
    }

    /// What it has seen.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.shared.seen().clone()
    }

    /// Asks every connection's client to make another: GOAWAY.
    pub fn go_away(&self) {
        self.shared.go_away.notify_waiters();
    }

    /// Ends it, and every connection with it.
    ///
    /// # Panics
    /// When it has failed.
    pub fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            thread.join().expect("the server ends");
        }
    }

    /// Starts it again, where it was.
    ///
    /// # Panics
    /// When the port is no longer free.
    pub fn revive(&mut self) {
        self.stop();
        // A program that is being started elsewhere in this process holds every socket for a moment.
        let bind = || std::net::TcpListener::bind(self.address).ok();
        let listener = crate::eventually("the port to be free", bind);
        listener.set_nonblocking(true).expect("no blocking");
        let (stop, stopped) = oneshot::channel::<()>();
        let shared = self.shared.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                let accepting = tokio::spawn(accept(listener, shared));
                // Its end is the end of the runtime, and of every task in it.
                let _ = stopped.await;
                accepting.abort();
            });
        });
        self.running = Some((stop, thread));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("an option");
        tokio::spawn(serve(stream, Open::count(shared.clone())));
    }
}

/// An open connection.
struct Open(Arc<Shared>);

impl Open {
    fn count(shared: Arc<Shared>) -> Self {
        let mut seen = shared.seen();
        seen.connections += 1;
        seen.open += 1;
        drop(seen);
        Self(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.seen().open -= 1;
    }
}

async fn serve(stream: TcpStream, open: Open) {
    let shared = open.0.clone();
    let service = service_fn(|request| answers::answer(shared.clone(), request));
    let connection = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(64 * 1024)
        .initial_connection_window_size(WINDOW)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut asked = Some(Box::pin(open.0.go_away.notified()));
    // A client that goes without a word is no failure of the server.
    let _ = poll_fn(|context| {
        if asked.as_mut().is_some_and(|asked| asked.as_mut().poll(context).is_ready()) {
            asked = None;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(context)
    })
    .await;
}

/// h2 ends a connection on which unread DATA frames of a few bytes pile up, and takes half of this
/// window for their measure; clients which send 4,000 messages at once put each into a frame.
const WINDOW: u32 = 16 << 20;
