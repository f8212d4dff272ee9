//! Set up, killed, set up again, taken away.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;

use aya::EbpfLoader;
use aya::programs::Program;
use portreeve_ebpf::{
    Condition, ListenerSlot, ProgramState, SetupError, detach, instances, prepare, status,
};
use portreeve_ebpf_common::{PolicyKey, protocol};

use crate::Test;
use crate::host::{Hammers, Host, name, server};
use crate::policy::allowing;

pub(crate) const TESTS: &[Test] = &[
    ("each_program_is_taken_by_the_kernel", each_program_is_taken_by_the_kernel),
    ("a_killed_proxy_leaves_the_workload_closed", killed),
    ("started_again_under_load_nothing_gets_through", started_again_under_load),
    ("a_detached_instance_leaves_nothing", a_detached_instance_leaves_nothing),
    ("a_half_built_instance_is_seen_and_taken_away", half_built),
    ("what_is_dropped_before_it_is_attached_leaves_nothing", dropped),
    ("two_instances_do_not_meet", two_instances_do_not_meet),
    ("a_cgroup_that_was_made_anew_is_attached_to", made_anew),
    ("ports_that_were_bound_before_are_counted_and_counted_off", ports_bound_before),
    ("an_instance_without_inbound_lets_go_of_the_namespace", without_inbound),
];

fn each_program_is_taken_by_the_kernel(_: &Host) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/object/portreeve.bpf.o");
    let mut object = EbpfLoader::new().load_file(path).expect("the object");
    let mut loaded = 0;
    for (name, program) in object.programs_mut() {
        let result = match program {
            Program::CgroupSock(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSockopt(program) => program.load(),
            Program::SockOps(program) => program.load(),
            Program::SkLookup(program) => program.load(),
            Program::SkMsg(program) => program.load(),
            Program::SkSkb(program) => program.load(),
            other => panic!("{name} is of a kind nobody loads: {:?}", other.prog_type()),
        };
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
        loaded += 1;
    }
    assert!(loaded >= 15, "{loaded}");
}

fn killed(host: &Host) {
    let (allowed, denied) = (server(), server());
    let mut workload = host.workload("one");
    let proxy = host.proxy("one", allowed.port());
    let seen = status(&host.bpffs(), &name("one")).expect("a status");
    assert_eq!((seen.condition, seen.owner), (Condition::InForce, Some(proxy.id())));
    assert_eq!(seen.listeners, ["outbound IPv4"]);
    let pins = host.pinned();
    proxy.kill();
    let seen = status(&host.bpffs(), &name("one")).expect("a status");
    assert_eq!((seen.condition, seen.owner), (Condition::NoProxy, None));
    assert!(seen.condition.to_string().contains("no proxy listens"));
    assert_eq!(seen.cgroup, Some(host.cgroup("one")));
    assert_eq!(host.pinned(), pins);
    assert_eq!([workload.connect(allowed), workload.connect(denied)], ["ok", "1"]);
    let proxy = host.proxy("one", denied.port());
    assert_eq!(host.pinned(), pins, "the same ones");
    assert_eq!([workload.connect(allowed), workload.connect(denied)], ["1", "ok"]);
    drop(proxy);
}

fn started_again_under_load(host: &Host) {
    let (allowed, denied) = (server(), server());
    host.proxy("one", allowed.port()).kill();
    let hammers = Hammers::start(host, "one", allowed, denied);
    for _ in 0..4 {
        host.proxy("one", allowed.port()).kill();
    }
    // Many times: what could get through would do so within microseconds.
    for _ in 0..40 {
        drop(prepare(&host.settings("one")).expect("prepared").attach().expect("attached"));
    }
    hammers.check();
}

fn a_detached_instance_leaves_nothing(host: &Host) {
    let denied = server();
    let mut workload = host.workload("one");
    let proxy = host.proxy("one", 1);
    assert_eq!(workload.connect(denied), "1");
    let detached = detach(&host.bpffs(), &name("one")).expect("detached");
    assert_eq!(detached.owner, Some(proxy.id()));
    assert_eq!(detached.programs.len(), 14, "{:?}", detached.programs);
    assert_eq!(detached.maps.len(), 17, "{:?}", detached.maps);
    assert_eq!(host.pinned(), Vec::<String>::new());
    assert_eq!(workload.connect(denied), "ok", "the workload is free");
    assert_eq!(instances(&host.bpffs()).expect("a list"), []);
    let again = detach(&host.bpffs(), &name("one")).expect_err("it is gone").to_string();
    assert!(again.contains("no instance `one`"), "{again}");
}

fn half_built(host: &Host) {
    // Killed between the maps and the links, and between links.
    std::mem::forget(prepare(&host.settings("one")).expect("prepared"));
    let seen = status(&host.bpffs(), &name("one")).expect("a status");
    assert_eq!(seen.condition, Condition::HalfBuilt);
    assert!(detach(&host.bpffs(), &name("one")).expect("detached").programs.is_empty());
    assert_eq!(host.pinned(), Vec::<String>::new());

    let denied = server();
    host.proxy("two", 1).kill();
    for program in ["connect4", "connect6", "sk_lookup"] {
        let link = format!("portreeve/two/links/portreeve_{program}");
        fs::remove_file(host.bpffs().join(link)).expect("it was pinned");
    }
    let mut workload = host.workload("two");
    assert_eq!(workload.connect(denied), "ok", "as much as is attached");
    let seen = status(&host.bpffs(), &name("two")).expect("a status");
    assert_eq!(seen.condition, Condition::HalfBuilt);
    let connect4 = seen.programs.iter().find(|one| one.program == "portreeve_connect4");
    assert_eq!(connect4.map(|one| one.state), Some(ProgramState::Absent));
    host.proxy("two", 1).kill();
    assert_eq!(workload.connect(denied), "1", "started again, it is whole");
    detach(&host.bpffs(), &name("two")).expect("detached");
    assert_eq!(host.pinned(), Vec::<String>::new());
}

fn dropped(host: &Host) {
    let mut prepared = prepare(&host.settings("one")).expect("prepared");
    prepared.set_policy(&allowing(1, &[])).expect("a policy");
    assert_ne!(host.pinned(), Vec::<String>::new());
    drop(prepared);
    assert_eq!(host.pinned(), Vec::<String>::new());

    // What was attached before, stays.
    host.proxy("two", 1).kill();
    let pins = host.pinned();
    drop(prepare(&host.settings("two")).expect("prepared"));
    assert_eq!(host.pinned(), pins);
    assert_eq!(host.workload("two").connect(server()), "1");
}

fn two_instances_do_not_meet(host: &Host) {
    let (first, second) = (server(), server());
    let (mut one, mut two) = (host.workload("one"), host.workload("two"));
    let mut proxies = [host.proxy("one", first.port()), host.proxy("two", second.port())];
    assert_eq!([one.connect(first), one.connect(second)], ["ok", "1"]);
    assert_eq!([two.connect(first), two.connect(second)], ["1", "ok"]);
    let seen = instances(&host.bpffs()).expect("a list");
    let seen: Vec<_> = seen.iter().map(|one| (one.instance.as_str(), one.owner)).collect();
    let owners = proxies.each_mut().map(|proxy| Some(proxy.id()));
    assert_eq!(seen, [("one", owners[0]), ("two", owners[1])]);
    detach(&host.bpffs(), &name("one")).expect("detached");
    assert_eq!([one.connect(first), one.connect(second)], ["ok", "ok"]);
    assert_eq!([two.connect(first), two.connect(second)], ["1", "ok"]);
}

fn made_anew(host: &Host) {
    let denied = server();
    host.proxy("one", 1).kill();
    fs::remove_dir(host.cgroup("one")).expect("nobody is in it");
    let seen = eventually(host, |seen| seen == Condition::WorkloadGone);
    assert_eq!(seen, Condition::WorkloadGone);
    let mut workload = host.workload("one");
    assert_eq!(workload.connect(denied), "ok", "another cgroup, of the same name");
    host.proxy("one", 1).kill();
    assert_eq!(workload.connect(denied), "1");
}

/// A cgroup goes some time after its folder.
fn eventually(host: &Host, is_it: impl Fn(Condition) -> bool) -> Condition {
    let mut seen = Condition::InForce;
    for _ in 0..500 {
        seen = status(&host.bpffs(), &name("one")).expect("a status").condition;
        if is_it(seen) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    seen
}

fn ports_bound_before(host: &Host) {
    let mut workload = host.workload("one");
    // Of a cgroup below, too.
    let mut below = host.workload("one/below");
    assert_eq!(workload.ask("listen 127.0.0.1:7001"), "ok");
    assert_eq!(workload.ask("bind [::1]:7002"), "ok");
    assert_eq!(below.ask("listen [::]:7003"), "ok");
    let mut prepared = prepare(&host.settings("one")).expect("prepared");
    // The workload's own are closed to everybody.
    let own = PolicyKey::port(2, protocol::TCP, 0, 0);
    let policy = allowing(1, &[]).entries().filter(|(key, _)| *key != own).collect();
    prepared.set_policy(&policy).expect("a policy");
    let redirect = prepared.attach().expect("attached");
    let ports = || {
        let seen = status(&host.bpffs(), &name("one")).expect("a status");
        seen.maps.iter().find(|map| map.map == "PORTS").and_then(|map| map.entries)
    };
    assert_eq!(ports(), Some(3));
    let refused = |address: &str| {
        let to: SocketAddr = address.parse().expect("an address");
        std::net::TcpStream::connect(to).map_err(|error| error.kind()).map(drop)
    };
    for address in ["127.0.0.1:7001", "127.0.0.1:7003", "[::1]:7003"] {
        assert_eq!(refused(address), Err(std::io::ErrorKind::ConnectionRefused), "{address}");
    }
    redirect.set_policy(&allowing(2, &[])).expect("a policy");
    assert_eq!(refused("127.0.0.1:7001"), Ok(()), "it was policy that refused");
    // Bound while programs look on, then seen again by a second start.
    assert_eq!(workload.ask("listen 127.0.0.1:7004"), "ok");
    assert_eq!(ports(), Some(4));
    drop(redirect);
    drop(prepare(&host.settings("one")).expect("prepared").attach().expect("attached again"));
    assert_eq!(ports(), Some(4));
    assert_eq!([workload.ask("close"), below.ask("close")], ["ok", "ok"]);
    assert_eq!(ports(), Some(0), "each was counted once");
}

fn without_inbound(host: &Host) {
    let has_lookup = || host.pinned().iter().any(|path| path.ends_with("sk_lookup"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut settings = host.settings("one");
    let redirect = prepare(&settings).expect("prepared").attach().expect("attached");
    redirect.register(ListenerSlot::OutboundV4, listener.as_fd()).expect("registered");
    assert!(has_lookup());
    let condition = status(&host.bpffs(), &name("one")).expect("a status").condition;
    assert_eq!(condition, Condition::NoPolicy);
    let taken = prepare(&settings).expect_err("it is in use");
    assert!(
        matches!(taken, SetupError::InUse { holder, .. } if holder == Some(std::process::id()))
    );
    drop(redirect);
    settings.inbound = false;
    drop(prepare(&settings).expect("prepared").attach().expect("attached"));
    assert!(!has_lookup());
}
