//! What joined sockets bring, and what they cost, in one run: `cargo run --release -p portreeve-benches --bin
//! sockmap`, as root. `--quick` measures less often.
//!
//! The connections of two cgroups are compared. Both are turned to this process; those of one are joined.
//! They take turns, so that noise meets both; medians of the ratios of all rounds are shown.

use std::net::{SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::AsFd;

use portreeve_benches::Failure;
use portreeve_benches::redirect::ground::Ground;
use portreeve_benches::redirect::messages;
use portreeve_benches::redirect::worker::{self, Work, measure};
use portreeve_ebpf::{
    Capacity, ListenerSlot, Outbound, PolicyTable, Redirect, Settings, detach, prepare,
};

const ASKED: &str = "10.50.3.1:80";
const INSTANCES: [&str; 2] = ["separate", "joined"];

fn main() -> Result<(), Failure> {
    if worker::run()? {
        return Ok(());
    }
    let quick = std::env::args().any(|argument| argument == "--quick");
    let rounds = if quick { 5 } else { 21 };
    let ground = Ground::enter()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let redirects = [attach(&ground, &listener, false)?, attach(&ground, &listener, true)?];
    messages::serve(listener);
    println!("Medians of {rounds} rounds; ratio: joined to separate.\n");
    println!("| what | over TCP | joined | ratio |\n| --- | --- | --- | --- |");
    for size in [64, 1024, 65536] {
        compare(&ground, rounds, &format!("{size} B there and back"), Work::PingPong(size))?;
    }
    for size in [64, 1024, 65536] {
        compare(&ground, rounds, &format!("{size} B one way"), Work::OneWay(size))?;
    }
    let [separate, joined] = redirects;
    let joined = joined.counters()?.messages_joined;
    if joined == 0 || separate.counters()?.messages_joined > 0 {
        return Err("other messages were joined than were to be".into());
    }
    println!("\n{joined} messages were joined.");
    for instance in INSTANCES {
        detach(&ground.bpffs, &instance.parse()?)?;
    }
    Ok(())
}

fn attach(ground: &Ground, listener: &TcpListener, joined: bool) -> Result<Redirect, Failure> {
    let mut prepared = prepare(&Settings {
        instance: INSTANCES[usize::from(joined)].parse()?,
        cgroup: ground.cgroup(joined),
        bpffs: ground.bpffs.clone(),
        loopback_is_own: false,
        other_sockets: true,
        tell_redirects: false,
        outbound: Outbound::Own,
        inbound: false,
        join_sockets: joined,
        capacity: Capacity::default(),
    })?;
    prepared.set_policy(&PolicyTable::everything_inspected())?;
    let redirect = prepared.attach()?;
    let SocketAddr::V4(proxy) = listener.local_addr()? else {
        return Err("not an IPv4 address".into());
    };
    redirect.register(ListenerSlot::OutboundV4, listener.as_fd())?;
    redirect.set_proxy(Some(SocketAddrV4::new(*proxy.ip(), proxy.port())), None)?;
    Ok(redirect)
}

/// Both in turns; prints a line.
fn compare(ground: &Ground, rounds: usize, what: &str, work: Work) -> Result<(), Failure> {
    let to: SocketAddr = ASKED.parse()?;
    let (mut all, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
    for round in 0..=rounds {
        let separate = measure(&ground.cgroup(false), work, to, false)?;
        let joined = measure(&ground.cgroup(true), work, to, false)?;
        // The first warms up.
        if round > 0 {
            all[0].push(separate);
            all[1].push(joined);
            ratios.push(joined / separate);
        }
    }
    let (unit, scale) = match work {
        Work::PingPong(_) => ("µs", 1000.0),
        _ => ("MiB/s", 1.0),
    };
    let [separate, joined] = all.map(|figures| median(figures) / scale);
    println!("| {what} | {separate:.1} {unit} | {joined:.1} {unit} | {:.2} |", median(ratios));
    Ok(())
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}
