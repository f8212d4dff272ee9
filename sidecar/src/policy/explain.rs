//! `portreeve policy explain`: one question, the answer, and the way to it.

use std::fmt::Write;

use portreeve_policy::case::{AskedPeer, HttpQuestion, KafkaQuestion, L7Request, Question};
use portreeve_policy::{
    Directory, Endpoint, EntryTrace, Explanation, Labels, Options, Protocol, Repository,
    RequestTrace, TrafficDirection, explain,
};
use serde_json::{Value, json};

use super::Output;
use super::test::{normalise, rule};
use crate::Failure;
use crate::cli::PolicyExplainArguments;

/// Answers the question that the flags ask.
pub(crate) fn run(arguments: &PolicyExplainArguments) -> Result<(), Failure> {
    let sources = portreeve_core::read_policy_files(&arguments.policy).map_err(Failure::new)?;
    let repository = Repository::parse(sources)
        .map_err(|errors| Failure { code: 1, message: errors.to_string() })?;
    let namespace = arguments.workload_namespace.as_str();
    let labels = labels("--workload-labels", &arguments.workload_labels)?;
    let subject = Endpoint::new(labels.clone().placed(namespace).short(), namespace, labels);
    let question = question(arguments)?;
    let mut directory = Directory::default();
    match &question.peer {
        AskedPeer::Labels(labels) => directory.hypothetical.push(labels.clone()),
        AskedPeer::Named(address, names) => {
            for name in names {
                directory.names.learn(name, [*address]);
            }
        }
        _ => {}
    }
    let options = Options { host_firewall: true, ..Options::default() };
    let found = explain(&repository, &subject, &directory, &options, &question, &normalise);
    let text = match arguments.output {
        Output::Text => text(&found, question.l7.is_some()),
        Output::Json => format!("{}\n", json(&found)),
    };
    crate::print(&text)?;
    match found.answer {
        portreeve_policy::case::Answer::ResolveError => Err(Failure::silent(1)),
        _ => Ok(()),
    }
}

fn usage(message: impl std::fmt::Display) -> Failure {
    Failure { code: 2, message: format!("error: {message}") }
}

fn labels(flag: &str, text: &str) -> Result<Labels, Failure> {
    text.parse().map_err(|error| usage(format!("{flag}: {error}")))
}

fn question(arguments: &PolicyExplainArguments) -> Result<Question, Failure> {
    let direction = match arguments.direction.as_str() {
        "egress" => TrafficDirection::Egress,
        _ => TrafficDirection::Ingress,
    };
    let peer = match (&arguments.peer_labels, arguments.peer_address) {
        (Some(text), _) => {
            let labels = labels("--peer-labels", text)?;
            AskedPeer::Labels(labels.placed(&arguments.workload_namespace))
        }
        (None, Some(address)) if arguments.peer_name.is_empty() => AskedPeer::Address(address),
        (None, Some(address)) => AskedPeer::Named(address, arguments.peer_name.clone()),
        (None, None) => return Err(usage("say who: --peer-labels or --peer-address")),
    };
    let protocol = match arguments.protocol.to_ascii_uppercase().as_str() {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        "ICMP" => Protocol::Icmp,
        "ICMPV6" => Protocol::IcmpV6,
        other => return Err(usage(format!("--protocol: `{other}` is not a protocol"))),
    };
    let port = arguments.port;
    Ok(Question { direction, peer, protocol, port, l7: request(arguments)? })
}

fn request(arguments: &PolicyExplainArguments) -> Result<Option<L7Request>, Failure> {
    let mut request = L7Request {
        dns: arguments.dns.clone(),
        tls: arguments.sni.clone(),
        ..L7Request::default()
    };
    let PolicyExplainArguments { method, path, host, header, .. } = arguments;
    if method.is_some() || path.is_some() || host.is_some() || !header.is_empty() {
        let headers: Option<Vec<_>> = header
            .iter()
            .map(|text| {
                let (name, value) = text.split_once(':')?;
                Some((name.trim().to_owned(), value.trim().to_owned()))
            })
            .collect();
        request.http = Some(HttpQuestion {
            method: method.clone().unwrap_or_else(|| "GET".to_owned()),
            path: Err(path.clone().unwrap_or_else(|| "/".to_owned())),
            host: host.clone().unwrap_or_default(),
            headers: headers.ok_or_else(|| usage("--header: write `Name: value`"))?,
        });
    }
    if let Some(api_key) = arguments.kafka_api {
        request.kafka = Some(KafkaQuestion {
            api_key,
            topics: arguments.topic.clone(),
            group: arguments.group.clone(),
            client_id: arguments.client_id.clone().unwrap_or_default(),
            ..KafkaQuestion::default()
        });
    }
    let L7Request { http, kafka, dns, tls, .. } = &request;
    let said = http.is_some() || kafka.is_some() || dns.is_some() || tls.is_some();
    Ok(said.then_some(request))
}

/// The explanation as a person reads it.
fn text(found: &Explanation, asks: bool) -> String {
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = writeln!(out, "{}\n", found.question);
    let by = match &found.rule {
        Some(rule) if rule.policy.is_empty() => format!(", by {}", rule.entry),
        Some(rule) => format!(", by {} {}", rule.policy, rule.entry),
        None => String::new(),
    };
    let _ = writeln!(out, "answer: {} ({}{by})", found.answer.as_str(), found.reason);
    if !found.connection.is_empty() {
        let _ = writeln!(out, "the connection is {}", found.connection);
    }
    let _ = writeln!(out, "the peer is {}\n", found.peer);
    let _ = writeln!(out, "policies");
    for policy in &found.policies {
        let mark = if policy.selects { "yes" } else { "no " };
        let audit = if policy.audit { ", in audit mode" } else { "" };
        let _ = writeln!(
            out,
            "  {mark}  {} ({}) is for {}{audit}",
            policy.policy, policy.source, policy.subject
        );
    }
    if !found.enforced {
        let _ = writeln!(out, "\nnone of them restricts this direction");
    }
    if !found.entries.is_empty() {
        let _ = writeln!(out, "\nentries of the policies that select the workload");
    }
    for entry in &found.entries {
        write_entry(&mut out, entry);
    }
    let refused = found.rule.is_none() && asks;
    if let Some(nearest) = found.nearest().filter(|_| refused) {
        let _ = writeln!(
            out,
            "\nthe nearest rule is {} {}: {}",
            nearest.rule.policy,
            nearest.rule.entry,
            nearest.mismatches.join("; ")
        );
    }
    out
}

fn write_entry(out: &mut String, entry: &EntryTrace) {
    let mark = if entry.matches() { "yes" } else { "no " };
    let what = match (entry.denies, entry.audit) {
        (false, false) => "allows",
        (true, false) => "denies",
        (_, true) => "audits",
    };
    let _ = writeln!(out, "  {mark}  {} {} {what}", entry.rule.policy, entry.rule.entry);
    let tick = |matches| if matches { "is the peer" } else { "is not the peer" };
    let _ = writeln!(out, "         {}: {}", entry.peers, tick(entry.peer_matches));
    let tick = |matches| if matches { "is the port" } else { "is not the port" };
    let _ = writeln!(out, "         {}: {}", entry.ports, tick(entry.port_matches));
    for RequestTrace { rule, mismatches } in &entry.requests {
        let last = rule.entry.rsplit("rules.").next().unwrap_or(&rule.entry);
        let text = match mismatches.as_slice() {
            [] => "matches".to_owned(),
            mismatches => mismatches.join("; "),
        };
        let _ = writeln!(out, "         {last}: {text}");
    }
}

/// The explanation as a program reads it.
fn json(found: &Explanation) -> Value {
    let request = |request: &RequestTrace| json!({ "rule": rule(&request.rule), "mismatches": request.mismatches });
    let entry = |entry: &EntryTrace| {
        json!({
            "rule": rule(&entry.rule),
            "denies": entry.denies,
            "audit": entry.audit,
            "peers": entry.peers,
            "peer_matches": entry.peer_matches,
            "ports": entry.ports,
            "port_matches": entry.port_matches,
            "requests": entry.requests.iter().map(request).collect::<Vec<_>>(),
        })
    };
    let policies = found.policies.iter().map(|policy| {
        json!({
            "policy": policy.policy,
            "kind": policy.kind,
            "source": policy.source,
            "rule": policy.rule,
            "selects": policy.selects,
            "subject": policy.subject,
            "audit": policy.audit,
        })
    });
    json!({
        "question": found.question,
        "answer": found.answer.as_str(),
        "effective": if found.answer.is_allowed() { "allow" } else { "deny" },
        "reason": found.reason,
        "connection": found.connection,
        "rule": found.rule.as_ref().map(rule),
        "peer": found.peer,
        "enforced": found.enforced,
        "policies": policies.collect::<Vec<_>>(),
        "entries": found.entries.iter().map(entry).collect::<Vec<_>>(),
        "nearest": found.nearest().map(request),
    })
}
