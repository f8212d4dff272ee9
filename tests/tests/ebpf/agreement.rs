//! Two enforcers, one policy: random policies are put into a real kernel, thousands of random questions are
//! asked with real sockets, and the answers compared with the engine's.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::thread;

use portreeve_core::carried_out;
use portreeve_ebpf::{Outbound, PolicyTable, Redirect, Settings, kernel_verdict, prepare};
use portreeve_ebpf_common::{ListenerSlot, Verdict};
use portreeve_policy::fuzz::random::{Dice, Question, Scenario};
use portreeve_policy::{Protocol, TrafficDirection};
use portreeve_tests::workload::Host;

pub(crate) const CASES: &[(&str, fn())] =
    &[("kernel_and_engine_agree_on_thousands_of_questions", agree)];

const SCENARIOS: u64 = 40;
const QUESTIONS: usize = 300;

/// Where the workload listens: ports that random policies are about.
const PORTS: [u16; 7] = [53, 80, 81, 443, 1024, 8080, 9092];

fn agree() {
    let mut host = Host::new("agree");
    host.route_everything();
    let mut servers = Vec::new();
    for port in PORTS {
        servers.push(format!("word@10.50.0.1:{port}"));
        servers.push(format!("word@[fd50::1]:{port}"));
        servers.push(format!("udp@10.50.0.1:{port}"));
        servers.push(format!("udp@[fd50::1]:{port}"));
    }
    host.serve(Some("app"), &servers.iter().map(String::as_str).collect::<Vec<_>>());
    let settings = Settings {
        instance: "agree".parse().expect("a name"),
        cgroup: host.cgroup("app"),
        bpffs: host.bpffs.clone(),
        loopback_is_own: false,
        other_sockets: false,
        tell_redirects: false,
        outbound: Outbound::Own,
        inbound: true,
        join_sockets: false,
        capacity: Default::default(),
    };
    // The thread alone enters the namespace.
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            host.enter();
            ask_everything(&host, &settings);
        });
        if let Err(panic) = asking.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn ask_everything(host: &Host, settings: &Settings) {
    let mut prepared = prepare(settings).expect("it can be set up");
    prepared.set_policy(&PolicyTable::empty()).expect("a policy");
    let redirect = prepared.attach().expect("attached");
    let _listeners = listen(&redirect);
    let mut told = BTreeMap::new();
    for seed in 0..SCENARIOS {
        let mut dice = Dice::new(seed);
        let scenario = Scenario::any(&mut dice);
        let table = PolicyTable::new(&scenario.policy, seed + 1, |protocol, verdict| {
            kernel_verdict(protocol, &carried_out(protocol, verdict))
        });
        redirect.set_policy(&table).expect("it fits");
        let questions: Vec<Question> = (0..QUESTIONS)
            .map(|_| {
                let question = scenario.question(&mut dice);
                to_a_port_that_is_there(question, &mut dice)
            })
            .filter(|question| can_be_asked(question.address))
            .collect();
        for (direction, cgroup) in
            [(TrafficDirection::Egress, "app"), (TrafficDirection::Ingress, "other")]
        {
            let questions: Vec<&Question> =
                questions.iter().filter(|question| question.direction == direction).collect();
            let lines = questions.iter().fold(String::new(), |mut lines, question| {
                let _ = writeln!(lines, "{}", line(question));
                lines
            });
            let answers = host.probe_with(cgroup, "questions", &lines);
            let answers: Vec<&str> = answers.lines().collect();
            assert_eq!(answers.len(), questions.len());
            for (question, answer) in questions.into_iter().zip(answers) {
                let expected = expected(&scenario, question);
                assert_eq!(
                    answer, expected,
                    "kernel and engine differ, seed {seed}: {question:?}\n{}",
                    scenario.text
                );
                *told.entry((direction.as_str(), expected)).or_insert(0) += 1;
            }
        }
    }
    // Each verdict was really among the answers.
    for verdict in ["deny", "allow", "inspect"] {
        for direction in ["egress", "ingress"] {
            assert!(told.get(&(direction, verdict)) > Some(&50), "{told:?}");
        }
    }
}

/// What the engine says, carried out as the proxy does.
fn expected(scenario: &Scenario, question: &Question) -> &'static str {
    let Question { direction, address, protocol, port } = *question;
    let policy = &scenario.policy;
    // A connection to "any" goes to loopback.
    let reached = match address.to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    let verdict = policy.connection(direction, policy.identify(reached), protocol, port);
    match kernel_verdict(protocol, &carried_out(protocol, verdict)) {
        Verdict::Deny => "deny",
        Verdict::Allow => "allow",
        Verdict::Inspect => "inspect",
    }
}

fn to_a_port_that_is_there(question: Question, dice: &mut Dice) -> Question {
    match question.direction {
        TrafficDirection::Egress => question,
        TrafficDirection::Ingress => Question { port: PORTS[dice.below(PORTS.len())], ..question },
    }
}

/// The kernel itself refuses to send from, and to, what stands for many.
fn can_be_asked(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let loopback_broadcast = v4.octets() == [127, 255, 255, 255];
            v4.octets()[0] < 224 && v4.octets()[0] != 0 && !loopback_broadcast
        }
        IpAddr::V6(v6) => !v6.is_multicast() && !v6.is_unspecified() && !v6.is_unicast_link_local(),
    }
}

fn line(question: &Question) -> String {
    let protocol = match question.protocol {
        Protocol::Udp => "udp",
        _ => "tcp",
    };
    let Question { direction, address, port, .. } = question;
    match direction {
        TrafficDirection::Egress => format!("{protocol} {address} {port}"),
        TrafficDirection::Ingress => format!("{protocol}-from {} {port}", address.to_canonical()),
    }
}

/// The proxy: it greets who is turned to it.
fn listen(redirect: &Redirect) -> Vec<TcpListener> {
    let mut listeners = Vec::new();
    for (address, outbound, inbound) in [
        ("127.0.0.1:15001", ListenerSlot::OutboundV4, ListenerSlot::InboundV4),
        ("[::1]:15001", ListenerSlot::OutboundV6, ListenerSlot::InboundV6),
    ] {
        let listener = TcpListener::bind(address).expect("a port");
        for slot in [outbound, inbound] {
            redirect.register(slot, listener.as_fd()).expect("registered");
        }
        let accepting = listener.try_clone().expect("a listener");
        thread::spawn(move || {
            for client in accepting.incoming().flatten() {
                let _ = (&client).write_all(b"inspect\n");
            }
        });
        listeners.push(listener);
    }
    let at = |address: &str| address.parse::<SocketAddr>().ok();
    let (Some(SocketAddr::V4(v4)), Some(SocketAddr::V6(v6))) =
        (at("127.0.0.1:15001"), at("[::1]:15001"))
    else {
        unreachable!("both are addresses")
    };
    redirect.set_proxy(Some(v4), Some(v6)).expect("set");
    listeners
}
