//! Servers behind the proxy.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tempfile::TempDir;

use crate::{eventually, free_address};

/// What an upstream received, a connection each.
#[derive(Clone, Default)]
pub struct Received(Arc<Mutex<Vec<Vec<u8>>>>);

impl Received {
    fn begin(&self) -> usize {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Vec::new());
        all.len() - 1
    }

    fn add(&self, connection: usize, bytes: &[u8]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all[connection].extend_from_slice(bytes);
    }

    /// All that was received, as text.
    #[must_use]
    pub fn text(&self) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&all.concat()).into_owned()
    }

    /// How many connections there were.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Forgets it all.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A server on a thread for each connection.
///
/// # Panics
/// When there is no free port.
pub fn serve(
    handle: impl Fn(TcpStream, &dyn Fn(&[u8])) + Send + Sync + 'static,
) -> (SocketAddr, Received) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    let received = Received::default();
    let shared = received.clone();
    let handle = Arc::new(handle);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (handle, received) = (handle.clone(), shared.clone());
            thread::spawn(move || {
                let connection = received.begin();
                handle(stream, &|bytes| received.add(connection, bytes));
            });
        }
    });
    (address, received)
}

/// Answers every request that ends in an empty line with the same bytes; bodies are taken for what
/// they look like, on purpose: this is the reader that smuggling is meant for.
#[must_use]
pub fn answering(answer: &'static [u8]) -> (SocketAddr, Received) {
    serve(move |mut stream, received| {
        let mut seen = Vec::new();
        let mut buffer = [0; 16 * 1024];
        let mut answered = 0;
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            received(&buffer[..n]);
            seen.extend_from_slice(&buffer[..n]);
            let heads = seen.windows(4).filter(|window| window == b"\r\n\r\n").count();
            for _ in answered..heads {
                if stream.write_all(answer).is_err() {
                    return;
                }
            }
            answered = answered.max(heads);
        }
    })
}

/// A plain 200.
pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A server that is a program of the system, ended with this value.
pub struct Program {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it serves from.
    pub folder: TempDir,
}

impl Program {
    /// Starts a program that is to listen on a free port; `configure` gets the folder and the
    /// address and returns the command.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(configure: impl FnOnce(&Path, SocketAddr) -> Command) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let address = free_address();
        let child = configure(folder.path(), address)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("stderr")).expect("a file"))
            .spawn()
            .expect("the program runs");
        eventually("the upstream to listen", || TcpStream::connect(address).ok());
        Self { child, address, folder }
    }

    /// nginx, serving its folder's `www` and taking uploads.
    #[must_use]
    pub fn nginx(nginx: &Path) -> Self {
        Self::nginx_that_listens(nginx, "")
    }

    /// The same, with HTTP/2 in place of HTTP/1.1.
    #[must_use]
    pub fn nginx_with_http2(nginx: &Path) -> Self {
        Self::nginx_that_listens(nginx, "http2")
    }

    fn nginx_that_listens(nginx: &Path, how: &str) -> Self {
        Self::start(|folder, address| {
            let www = folder.join("www/public");
            std::fs::create_dir_all(&www).expect("a folder");
            std::fs::write(www.join("hello"), "hello from nginx\n").expect("a file");
            std::fs::write(www.join("large"), vec![b'x'; 1 << 20]).expect("a file");
            let path = folder.display();
            let config = format!(
                "daemon off; worker_processes 1; pid {path}/pid; error_log {path}/error;\n\
                 user root; events {{ worker_connections 4096; }}\n\
                 http {{ access_log off; client_max_body_size 0; keepalive_requests 10000000;\n\
                 client_body_temp_path {path}/body; proxy_temp_path {path}/p; fastcgi_temp_path {path}/f;\n\
                 uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n\
                 server {{ listen {address} {how}; root {path}/www;\n\
                 location /upload {{ return 201 \"taken\\n\"; }} }} }}\n"
            );
            std::fs::write(folder.join("nginx.conf"), config).expect("a file");
            let mut command = Command::new(nginx);
            command.arg("-c").arg(folder.join("nginx.conf")).arg("-p").arg(folder);
            command
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A server with workers of its own is asked to end; a killed one would leave them behind.
        if let Ok(pid) = i32::try_from(self.child.id())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
