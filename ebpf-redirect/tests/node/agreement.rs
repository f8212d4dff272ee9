//! Random policies and random packets: the kernel decides as the policy engine does. The programs are
//! run by themselves (`BPF_PROG_TEST_RUN`), as if on the loopback interface.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use portreeve_core::carried_out;
use portreeve_ebpf::kernel_verdict;
use portreeve_ebpf::node::{NodeEvent, NodeEventKind, NodePolicyTable, Reason, endpoint_flags};
use portreeve_ebpf_common::Verdict;
use portreeve_policy::fuzz::random::{Dice, Question, Scenario};
use portreeve_policy::{ConnectionVerdict, Protocol, TrafficDirection};

use super::Test;
use super::net::Node;
use super::packets::{DROP, ENDPOINT, PASS, own, packet, prepare, run};

pub(crate) const TESTS: &[Test] = &[("the_kernel_decides_as_the_engine_does", agreement)];

fn judged(protocol: Protocol, verdict: ConnectionVerdict) -> Verdict {
    kernel_verdict(protocol, &carried_out(protocol, verdict))
}

fn agreement(node: &mut Node) {
    let mut dice = Dice::new(21);
    let mut events = node.kernel().events().expect("events");
    let (mut seen, mut without_ports) = (BTreeSet::new(), HashSet::new());
    // Up to half of all ports: the others are for what is asked again.
    let mut port = 0_u16;
    for _ in 0..150 {
        let scenario = Scenario::any(&mut dice);
        // Anew each time: one who opens this many at once would not be let.
        prepare(node, endpoint_flags::TELL_FLOWS);
        let policy = &scenario.policy;
        let who = policy.addresses().map(|(prefix, who)| (prefix, who.get()));
        node.kernel().sync_identities(who).expect("room");
        let table = NodePolicyTable::new(policy, judged);
        node.kernel().set_policy(ENDPOINT, &table).expect("room");
        for _ in 0..100 {
            let Some(question) = question(&scenario, &mut dice, &mut without_ports) else {
                continue;
            };
            let Question { direction, address, protocol, port: asked } = question;
            port = (port + 1) & 0x7fff;
            let egress = direction == TrafficDirection::Egress;
            let (from, to) = if egress { (own(address), address) } else { (address, own(address)) };
            let (did, _) = run(node, egress, &packet(from, to, protocol, port, asked), 1);

            let identity = policy.identify(address);
            let verdict = policy.connection(direction, identity, protocol, asked);
            let rule = verdict.rule.map_or(0, |rule| u32::try_from(rule.index() + 1).unwrap_or(0));
            let expected = judged(protocol, verdict);
            let event = events.next();
            let answer = event.map(|event| match (event.kind, event.reason) {
                (kind, _) if kind == NodeEventKind::Opened as u8 => Verdict::Allow,
                (_, reason) if reason == Reason::ProxyAway as u8 => Verdict::Inspect,
                (_, reason) if reason == Reason::Policy as u8 => Verdict::Deny,
                (_, other) => panic!("{other}: {question:?}"),
            });
            let context = format!("{question:?}\n{}", scenario.text);
            // Messages that open nothing are not told of.
            let is_message = matches!(protocol, Protocol::Icmp | Protocol::IcmpV6);
            assert!(event.is_some() || is_message, "{context}");
            assert_eq!(answer.unwrap_or(Verdict::Allow), expected, "{context}");
            // Nobody listens, so that what is to be read is dropped.
            assert_eq!(did, if expected == Verdict::Allow { PASS } else { DROP }, "{context}");
            // Asked again, from another port: what was said is remembered now.
            if !matches!(protocol, Protocol::Ip(_)) {
                let again = packet(from, to, protocol, port | 0x8000, asked);
                assert_eq!(run(node, egress, &again, 1).0, did, "{context}");
                let told =
                    |event: NodeEvent| (event.kind, event.reason, event.rule, event.identity);
                assert_eq!(events.next().map(told), event.map(told), "{context}");
            }
            if let Some(event) = event {
                assert_eq!((event.identity, event.rule), (identity.get(), rule), "{context}");
            }
            seen.insert(format!("{protocol} {expected:?} {}", rule != 0));
        }
    }
    assert!(seen.len() > 16, "{seen:#?}");
}

/// One of the scenario's, of any protocol.
fn question(
    scenario: &Scenario,
    dice: &mut Dice,
    without_ports: &mut HashSet<IpAddr>,
) -> Option<Question> {
    let mut question = scenario.question(dice);
    question.address = question.address.to_canonical();
    match dice.below(8) {
        0 => question.protocol = Protocol::Sctp,
        1 => {
            let echo = if question.address.is_ipv4() { [8, 5] } else { [128, 139] };
            question.protocol =
                if question.address.is_ipv4() { Protocol::Icmp } else { Protocol::IcmpV6 };
            question.port = echo[dice.below(2)];
        }
        2 => {
            (question.protocol, question.port) = (Protocol::Ip(47), 0);
            // A second one would belong to the first.
            without_ports.insert(question.address).then_some(())?;
        }
        _ => {}
    }
    Some(question)
}
