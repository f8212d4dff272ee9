//! Much of it: bodies of gigabytes with flat memory, ten thousand idle connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use portreeve_tests::client::Client;
use portreeve_tests::sidecar::{Setup, Sidecar};
use portreeve_tests::upstream::{OK, serve};
use portreeve_tests::{Need, trial};

/// Bytes of the large bodies.
const LARGE: u64 = 4 << 30;
/// Idle connections.
const IDLE: u64 = 10_000;
/// Those of them with an upstream connection; the others were only ever denied. Two descriptors
/// each, here and in the proxy, have to fit a usual limit of 20,000.
const WITH_UPSTREAM: u64 = 9_500;

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    // Client, proxy and upstream are on this machine; the first and the last in this process.
    let files = Need::Files(IDLE + WITH_UPSTREAM + 300);
    let tests = vec![
        trial("a_4_gib_upload_takes_no_memory", &[], upload),
        trial("a_4_gib_download_takes_no_memory", &[], download),
        trial("ten_thousand_idle_connections_stay_usable", &[files], idle),
    ];
    libtest_mimic::run(&arguments, tests).exit();
}

fn block() -> Vec<u8> {
    (0..1 << 20).map(|i: u32| i.to_le_bytes()[1]).collect()
}

/// Writes [`LARGE`] bytes.
fn write_large(stream: &mut TcpStream) -> std::io::Result<()> {
    let block = block();
    (0..LARGE / block.len() as u64).try_for_each(|_| stream.write_all(&block))
}

/// Reads so many bytes and returns a sum of them.
fn read_large(stream: &mut TcpStream, mut left: u64) -> u64 {
    let mut buffer = vec![0; 1 << 20];
    let mut sum: u64 = 0;
    while left > 0 {
        let n = stream.read(&mut buffer).expect("more of the body");
        assert!(n > 0, "the body ended {left} bytes early");
        left -= n as u64;
        sum = buffer[..n].iter().fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)));
    }
    sum
}

fn expected_sum() -> u64 {
    let of_one: u64 = block().iter().map(|byte| u64::from(*byte)).sum();
    of_one * (LARGE / (1 << 20))
}

/// Most memory used until the work is done.
fn most_memory<T: Send>(sidecar: &Sidecar, work: impl FnOnce() -> T + Send) -> (T, u64) {
    thread::scope(|scope| {
        let work = scope.spawn(work);
        let mut most = 0;
        while !work.is_finished() {
            most = most.max(sidecar.memory());
            thread::sleep(Duration::from_millis(20));
        }
        (work.join().expect("the work succeeds"), most)
    })
}

fn assert_flat(before: u64, most: u64) {
    assert!(most < before + 4096, "from {before} KiB to {most} KiB");
}

/// Reads a head, byte by byte.
fn skip_head(stream: &mut TcpStream) {
    let mut seen = [0; 4];
    while &seen != b"\r\n\r\n" {
        seen.rotate_left(1);
        stream.read_exact(&mut seen[3..]).expect("a head");
    }
}

fn upload() {
    let (upstream, _) = serve(|mut stream, _| {
        skip_head(&mut stream);
        let sum = read_large(&mut stream, LARGE).to_string();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{sum}", sum.len());
        stream.write_all(answer.as_bytes()).expect("sent");
    });
    let sidecar = Setup::new(upstream).start();
    let before = sidecar.memory();
    let mut client = sidecar.connect();
    let (answer, most) = most_memory(&sidecar, move || {
        client.send(format!(
            "POST /upload HTTP/1.1\r\nHost: shop\r\nContent-Length: {LARGE}\r\n\r\n"
        ));
        write_large(&mut client.stream).expect("sent");
        client.stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        client.response()
    });
    assert_eq!(String::from_utf8_lossy(&answer.body), expected_sum().to_string());
    assert_flat(before, most);
}

fn download() {
    let (upstream, _) = serve(|mut stream, _| {
        skip_head(&mut stream);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
        stream.write_all(head.as_bytes()).and_then(|()| write_large(&mut stream)).expect("sent");
    });
    let sidecar = Setup::new(upstream).start();
    let before = sidecar.memory();
    let mut client = sidecar.connect();
    let (sum, most) = most_memory(&sidecar, move || {
        client.send("GET /public/large HTTP/1.1\r\nHost: shop\r\n\r\n");
        skip_head(&mut client.stream);
        read_large(&mut client.stream, LARGE)
    });
    assert_eq!(sum, expected_sum());
    assert_flat(before, most);
}

fn idle() {
    // One thread for all upstream connections: ten thousand threads are another test.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let upstream = listener.local_addr().expect("an address");
    thread::spawn(move || {
        runtime.block_on(async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                tokio::spawn(async move {
                    let mut buffer = [0; 1024];
                    while let Ok(1..) = stream.read(&mut buffer).await {
                        if stream.write_all(OK).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
    });
    let sidecar = Setup::new(upstream).start();
    let before = sidecar.memory();
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..IDLE {
        let mut client = sidecar.connect();
        let (path, status) =
            if number < WITH_UPSTREAM { ("/public/a", 200) } else { ("/private", 403) };
        assert_eq!(client.get(path).status, status);
        clients.push(client);
    }
    let each = (sidecar.memory() - before) as f64 / IDLE as f64;
    println!("{each:.2} KiB for each of {IDLE} idle connections, both sides open");
    for client in clients[..9_000].iter_mut().step_by(97) {
        assert_eq!(client.get("/public/b").status, 200);
    }
    assert_eq!(
        sidecar.metric("portreeve_connections_active{direction=\"ingress\"}"),
        Some(IDLE as f64)
    );
    assert!(each < 3.0, "{each:.2} KiB a connection");
}
