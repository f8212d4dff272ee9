//! The socket, line by line.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portreeve_policy::Options;

use super::*;
use crate::datapath::{Datapath, NoDatapath, Recording};
use crate::state::NodeOptions;

fn node(state: &std::path::Path, datapath: Box<dyn Datapath>) -> Node {
    let options = NodeOptions {
        name: "node-1".to_owned(),
        policy: Options::default(),
        identity_linger: Duration::from_secs(1),
    };
    Node::open(options, state, datapath, Box::new(NoDatapath), Instant::now()).unwrap()
}

/// Serves in another thread, as long as `ask` asks.
fn with_server(ask: impl FnOnce(&std::path::Path)) {
    with_server_of(Box::new(NoDatapath), ask);
}

fn with_server_of(datapath: Box<dyn Datapath>, ask: impl FnOnce(&std::path::Path)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.sock");
    let node = Arc::new(Mutex::new(node(folder.path(), datapath)));
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let (listening, ready) = std::sync::mpsc::channel();
    let place = path.clone();
    let serving = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::listen(&place).unwrap();
            listening.send(()).unwrap();
            tokio::select! {
                () = server.serve(node) => {}
                _ = ended => {}
            }
        });
    });
    ready.recv().unwrap();
    ask(&path);
    drop(end);
    serving.join().unwrap();
}

fn lines(stream: &UnixStream) -> impl Iterator<Item = String> {
    BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap)
}

#[test]
fn several_may_be_asked_on_one_connection() {
    with_server(|path| {
        let mut stream = UnixStream::connect(path).unwrap();
        let asked = "{\"request\":\"endpoint-list\"}\n{\"request\":\"endpoint-get\",\"endpoint\":\"x\"}\n\
                     {\"request\":\"bpf-list\",\"table\":\"ct\"}\n";
        stream.write_all(asked.as_bytes()).unwrap();
        let said: Vec<String> = lines(&stream).take(3).collect();
        assert_eq!(
            said,
            [
                "{\"ok\":[]}",
                "{\"error\":{\"code\":\"not-found\",\"message\":\"there is no endpoint `x`\\n  hint: \
                 `portreeve-node endpoint list` shows those that there are\"}}",
                "{\"error\":{\"code\":\"no-datapath\",\"message\":\"no datapath: the daemon runs without one, \
                 and has no tables\"}}"
            ]
        );
    });
}

#[test]
fn a_large_table_keeps_nobody_else_waiting() {
    let recording = Recording::default();
    recording.recorder.read_slowly(Duration::from_secs(2));
    with_server_of(Box::new(recording), |path| {
        let (mut slow, mut other) =
            (UnixStream::connect(path).unwrap(), UnixStream::connect(path).unwrap());
        slow.write_all(b"{\"request\":\"bpf-list\",\"table\":\"ct\",\"limit\":5}\n").unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let asked = Instant::now();
        other.write_all(b"{\"request\":\"endpoint-list\"}\n").unwrap();
        assert_eq!(lines(&other).next().unwrap(), "{\"ok\":[]}");
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        let table = lines(&slow).next().unwrap();
        assert_eq!(table, "{\"ok\":{\"columns\":[],\"more\":0,\"rows\":[]}}");
        let asked = "{\"request\":\"bpf-list\",\"table\":\"lb\",\"endpoint\":\"x\"}\n";
        other.write_all(asked.as_bytes()).unwrap();
        assert!(lines(&other).next().unwrap().contains("\"bad-request\""));
    });
}

#[test]
fn what_is_no_request_is_refused_and_the_connection_goes_on() {
    with_server(|path| {
        let mut stream = UnixStream::connect(path).unwrap();
        let asked = "hello\n{\"request\":\"status\",\"more\":1}\n{\"request\":\"shutdown\"}\n\
                     {\"request\":\"service-list\"}\n";
        stream.write_all(asked.as_bytes()).unwrap();
        let said: Vec<String> = lines(&stream).take(4).collect();
        for refused in [&said[0], &said[2]] {
            assert!(refused.starts_with("{\"error\":{\"code\":\"bad-request\""), "{refused}");
        }
        assert_eq!(said[3], "{\"ok\":[]}");
    });
}

#[test]
fn a_line_without_an_end_is_not_read_for_ever() {
    with_server(|path| {
        let mut stream = UnixStream::connect(path).unwrap();
        // The rest may not even be taken any more.
        let _ = stream.write_all(&vec![b'x'; 1 << 20]);
        let first = lines(&stream).next().unwrap_or_default();
        assert!(first.contains("bad-request"), "{first}");
    });
}

#[test]
fn two_daemons_do_not_answer_at_one_place() {
    with_server(|path| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(async { Server::listen(path) }).unwrap_err().to_string();
        assert!(error.contains("somebody answers at") && error.contains("hint"), "{error}");
        let file = path.with_extension("txt");
        std::fs::write(&file, "somebody's").unwrap();
        let error = runtime.block_on(async { Server::listen(&file) }).unwrap_err().to_string();
        assert!(error.contains("a file of another kind"), "{error}");
        assert!(file.exists());
    });
}
