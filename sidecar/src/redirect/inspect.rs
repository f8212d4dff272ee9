//! What is set up on this host, shown and taken away.

use std::fmt::Write as _;

use portreeve_ebpf::{Condition, Counters, InstanceStatus, ProgramState};

use super::arguments::{DetachArguments, StatusArguments};
use crate::Failure;
use crate::policy::Output;

/// Something is not in force.
const NOT_IN_FORCE: u8 = 3;

/// `portreeve redirect status`.
pub(super) fn status(arguments: &StatusArguments) -> Result<(), Failure> {
    let bpffs = &arguments.place.bpffs;
    let found = match &arguments.instance {
        Some(instance) => portreeve_ebpf::status(bpffs, instance).map(|status| vec![status]),
        None => portreeve_ebpf::instances(bpffs),
    };
    let found = found.map_err(Failure::new)?;
    let mut text = String::new();
    for status in &found {
        match arguments.output {
            Output::Text => describe(status, &mut text),
            Output::Json => {
                let json = serde_json::to_string(status).map_err(Failure::new)?;
                text.push_str(&json);
                text.push('\n');
            }
        }
    }
    if found.is_empty() && arguments.output == Output::Text {
        text = format!("nothing is set up below {}\n", bpffs.display());
    }
    crate::print(&text)?;
    match found.iter().all(|status| status.condition == Condition::InForce) {
        true => Ok(()),
        false => Err(Failure::silent(NOT_IN_FORCE)),
    }
}

/// For people. Writing to a string can't fail.
fn describe(status: &InstanceStatus, text: &mut String) {
    let _ = writeln!(text, "{}", status.instance);
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<10} {value}");
    };
    let or = |value: Option<String>, otherwise: &str| value.unwrap_or_else(|| otherwise.to_owned());
    let cgroup = status.cgroup.as_ref().map(|path| path.display().to_string());
    line("state", status.condition.to_string());
    line("cgroup", or(cgroup, "gone, or not in sight"));
    line("process", or(status.owner.map(|pid| pid.to_string()), "none"));
    let revision = status.policy.as_ref().and_then(|policy| policy.revision);
    let unknown = if status.policy.is_some() { "in force" } else { "none" };
    line("policy", or(revision.map(|revision| format!("revision {revision}")), unknown));
    let proxy: Vec<String> = status.proxy.iter().map(ToString::to_string).collect();
    line("proxy", if proxy.is_empty() { "none".to_owned() } else { proxy.join(", ") });
    let is = |state: ProgramState| status.programs.iter().filter(move |one| one.state == state);
    let mut programs = format!("{} attached", is(ProgramState::Attached).count());
    for gone in is(ProgramState::Gone) {
        let _ = write!(programs, ", {} gone", gone.program);
    }
    line("programs", programs);
    let maps = status.maps.iter().map(|map| match map.entries {
        Some(entries) => format!("{} {entries}/{}", map.map, map.capacity),
        None => format!("{} ?/{}", map.map, map.capacity),
    });
    line("maps", maps.collect::<Vec<_>>().join(", "));
    if let Some(counters) = &status.counters {
        let Counters { egress_allowed, egress_denied, egress_redirected, .. } = counters;
        let Counters { ingress_allowed, ingress_denied, ingress_redirected, .. } = counters;
        let counted = |allowed, denied, turned| {
            format!("{allowed} allowed, {denied} denied, {turned} turned to the proxy")
        };
        line("outbound", counted(egress_allowed, egress_denied, egress_redirected));
        line("inbound", counted(ingress_allowed, ingress_denied, ingress_redirected));
        if counters.events_lost > 0 {
            line("events", format!("{} lost", counters.events_lost));
        }
        if counters.map_full > 0 {
            line("refused", format!("{} because a map was full", counters.map_full));
        }
    }
}

/// `portreeve redirect detach`.
pub(super) fn detach(arguments: &DetachArguments) -> Result<(), Failure> {
    let bpffs = &arguments.place.bpffs;
    let instances = match &arguments.instance {
        Some(instance) => vec![instance.clone()],
        None => portreeve_ebpf::instances(bpffs)
            .map_err(Failure::new)?
            .into_iter()
            .map(|status| status.instance)
            .collect(),
    };
    if instances.is_empty() {
        return crate::print(&format!("nothing is set up below {}\n", bpffs.display()));
    }
    let mut failed = Vec::new();
    for instance in &instances {
        match portreeve_ebpf::detach(bpffs, instance) {
            Ok(detached) => {
                let (programs, maps) = (detached.programs.len(), detached.maps.len());
                let mut text = format!(
                    "{instance}: {programs} programs detached, {maps} maps removed; the workload's \
                     connections are not judged any more\n"
                );
                if let Some(owner) = detached.owner {
                    let _ = writeln!(
                        text,
                        "  process {owner} still runs for it: end it, nothing comes to it any more"
                    );
                }
                crate::print(&text)?;
            }
            Err(error) => failed.push(error.to_string()),
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(failed.join("\n"))),
    }
}
