//! What this program does as a process of a test.

use std::io::{BufRead, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;

use portreeve_ebpf::{Capacity, ListenerSlot, Outbound, Settings, prepare};

use crate::policy::allowing;
use crate::talker;
use crate::traffic::{inspecting, v4};

pub(crate) fn run(arguments: &[String]) {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["workload", cgroup] => workload(cgroup),
        ["proxy", instance, cgroup, bpffs, port] => {
            proxy(instance, cgroup, bpffs, port.parse().expect("a port"));
        }
        ["joining", instance, cgroup, bpffs, own] => joining(instance, cgroup, bpffs, own),
        ["refused", instance, cgroup, bpffs] => refused(instance, cgroup, bpffs),
        _ => panic!("{arguments:?}"),
    }
}

/// Sets up, and says what came of it.
fn refused(instance: &str, cgroup: &str, bpffs: &str) {
    say("ready");
    let attached = prepare(&settings(instance, cgroup, bpffs))
        .and_then(|prepared| prepared.attach().map(drop));
    say(&attached.map_or_else(|error| error.to_string(), |()| "attached".to_owned()));
}

fn say(line: &str) {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).expect("somebody listens");
}

fn lines() -> impl Iterator<Item = String> {
    std::io::stdin().lock().lines().map_while(Result::ok)
}

fn workload(cgroup: &str) {
    std::fs::write(format!("{cgroup}/cgroup.procs"), "0").expect("the cgroup takes it");
    say("ready");
    let mut listeners = Vec::new();
    let mut sockets = Vec::new();
    let mut streams = Vec::new();
    for line in lines() {
        let words: Vec<_> = line.split(' ').collect();
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        match words[..] {
            ["connect", to] => say(&outcome(&TcpStream::connect(address(to)))),
            ["listen", on] => {
                let listener = TcpListener::bind(address(on));
                say(&outcome(&listener));
                listeners.extend(listener);
            }
            ["bind", on] => {
                let socket = UdpSocket::bind(address(on));
                say(&outcome(&socket));
                sockets.extend(socket);
            }
            // Connects, and says whom it believes to have reached.
            ["hold", to] => match TcpStream::connect(address(to)) {
                Ok(stream) => {
                    say(&stream.peer_addr().expect("connected").to_string());
                    streams.push(stream);
                }
                failed => say(&outcome(&failed)),
            },
            ["open", kind, to] => match talker::open(kind, address(to)) {
                Ok(stream) => {
                    streams.push(stream);
                    say("ok");
                }
                failed => say(&outcome(&failed)),
            },
            ["talk", messages, size] => {
                say(&outcome(&talker::talk(last(&streams), number(messages), number(size))));
            }
            ["send", size] => say(&outcome(&talker::send(last(&streams), number(size)))),
            ["end"] => say(&outcome(&talker::end(last(&streams)))),
            ["option", name] => say(&outcome(&talker::option(last(&streams), name))),
            ["close"] => {
                listeners.clear();
                streams.clear();
                sockets.clear();
                say("ok");
            }
            // Connects until the file is there: how often, and what else than expected came of it.
            ["hammer", to, expected, stop] => hammer(address(to), expected, stop),
            ["prepare", instance, bpffs] => {
                let error = prepare(&settings(instance, cgroup, bpffs)).expect_err("it is inside");
                say(&error.to_string().replace('\n', " "));
            }
            _ => panic!("{line}"),
        }
    }
}

fn last(streams: &[TcpStream]) -> &TcpStream {
    streams.last().expect("one was opened")
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

fn outcome<T>(result: &std::io::Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => {
            error.raw_os_error().map_or_else(|| error.to_string(), |number| number.to_string())
        }
    }
}

fn hammer(to: SocketAddr, expected: &str, stop: &str) {
    let (mut connects, mut wrong) = (0_u64, Vec::new());
    // Looked for now and then: it takes longer than a refusal.
    while connects % 16 != 0 || !std::path::Path::new(stop).exists() {
        let outcome = outcome(&TcpStream::connect(to));
        connects += 1;
        if outcome != expected && wrong.len() < 5 {
            wrong.push(outcome);
        }
    }
    say(&format!("{connects} wrong:{}", wrong.join(",")));
}

fn proxy(instance: &str, cgroup: &str, bpffs: &str, port: u16) {
    let mut prepared = prepare(&settings(instance, cgroup, bpffs)).expect("prepared");
    prepared.set_policy(&allowing(1, &[port])).expect("a policy");
    let redirect = prepared.attach().expect("attached");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    redirect.register(ListenerSlot::OutboundV4, listener.as_fd()).expect("registered");
    say("ready");
    lines().for_each(drop);
}

/// A proxy that joins, says again what comes in the first ten messages, and then reads no more.
fn joining(instance: &str, cgroup: &str, bpffs: &str, own: &str) {
    std::fs::write(format!("{own}/cgroup.procs"), "0").expect("the cgroup takes it");
    let settings = Settings { join_sockets: true, ..settings(instance, cgroup, bpffs) };
    let mut prepared = prepare(&settings).expect("prepared");
    prepared.set_policy(&inspecting()).expect("a policy");
    let redirect = prepared.attach().expect("attached");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = v4(listener.local_addr().expect("bound"));
    redirect.set_proxy(Some(address), None).expect("a proxy");
    redirect.register(ListenerSlot::OutboundV4, listener.as_fd()).expect("registered");
    say("ready");
    let (mut client, _) = listener.accept().expect("a connection");
    let mut message = [0; 640];
    for piece in message.chunks_mut(64) {
        client.read_exact(piece).expect("a message");
        client.write_all(piece).expect("an answer");
    }
    lines().for_each(drop);
}

fn settings(instance: &str, cgroup: &str, bpffs: &str) -> Settings {
    Settings {
        instance: instance.parse().expect("a name"),
        cgroup: cgroup.into(),
        bpffs: bpffs.into(),
        loopback_is_own: false,
        other_sockets: false,
        tell_redirects: false,
        outbound: Outbound::Own,
        inbound: true,
        join_sockets: false,
        capacity: Capacity::default(),
    }
}
