//! `portreeve redirect --to`: a proxy of another make gets the workload's connections. This sets it up
//! and returns; nothing of this project runs then but the programs in the kernel.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use portreeve_core::{PolicyFiles, read_policy_files};
use portreeve_ebpf::{PolicyTable, prepare};
use portreeve_ebpf_common::Verdict;
use portreeve_policy::{
    Action, ConnectionVerdict, Directory, Endpoint, EndpointPolicy, Labels, Options, Protocol,
    Repository,
};

use super::arguments::ToArguments;
use super::{Capacity, InstanceName, Outbound, Settings};
use crate::{Failure, config};

/// Sets it up, or puts another policy in force.
pub(super) fn run(arguments: &ToArguments) -> Result<(), Failure> {
    let settings = settings(arguments)?;
    let (instance, bpffs) = (&settings.instance, &settings.bpffs);
    let before = portreeve_ebpf::status(bpffs, instance).ok().and_then(|status| status.policy);
    let revision = before.and_then(|policy| policy.revision).unwrap_or_default();
    let revision = u64::from(revision.wrapping_add(1).max(1));
    let table = match arguments.policy.is_empty() {
        true => PolicyTable::everything_inspected(),
        false => PolicyTable::new(&policy(arguments)?, revision, for_another),
    };
    let mut prepared = prepare(&settings).map_err(Failure::new)?;
    prepared.set_policy(&table).map_err(Failure::new)?;
    prepared.attach().map_err(Failure::new)?;

    let to: Vec<String> = arguments.to.iter().map(ToString::to_string).collect();
    let (what, judged) = match arguments.policy.is_empty() {
        true => ("all TCP connections", "every one of them".to_owned()),
        false => {
            let judged = format!(
                "what policy wants to be read ({} entries, revision {revision}); what it denies is refused, \
                 what it allows goes straight out",
                table.len()
            );
            ("TCP connections", judged)
        }
    };
    crate::print(&format!(
        "{instance}: {what} that processes of {} open are turned to {}\n  \
         turned are  {judged}\n  \
         undo with   portreeve redirect detach --instance {instance}{}\n",
        settings.cgroup.display(),
        to.join(" and "),
        if *bpffs == Path::new(super::BPFFS) {
            String::new()
        } else {
            format!(" --bpffs {}", bpffs.display())
        },
    ))
}

fn settings(arguments: &ToArguments) -> Result<Settings, Failure> {
    let cgroup = arguments.cgroup.clone().unwrap_or_default();
    check_addresses(&arguments.to)?;
    let proxy_cgroup = match &arguments.proxy_cgroup {
        Some(path) => path.clone(),
        None => all_cgroups()?,
    };
    let instance = arguments.instance.clone();
    Ok(Settings {
        instance: instance.unwrap_or_else(|| InstanceName::of_cgroup(&cgroup)),
        cgroup,
        bpffs: arguments.place.bpffs.clone(),
        loopback_is_own: arguments.loopback == "own",
        other_sockets: false,
        tell_redirects: false,
        outbound: Outbound::Foreign { to: arguments.to.clone(), proxy_cgroup },
        // Nothing of the other proxy's is known that inbound connections could be handed to.
        inbound: false,
        join_sockets: false,
        capacity: Capacity::default(),
    })
}

fn check_addresses(to: &[SocketAddr]) -> Result<(), Failure> {
    let more_than_one =
        |is_of: fn(&SocketAddr) -> bool| to.iter().filter(|to| is_of(to)).count() > 1;
    if more_than_one(SocketAddr::is_ipv4) || more_than_one(SocketAddr::is_ipv6) {
        return Err(config::usage("--to: name one address for each address family"));
    }
    match to.iter().find(|to| to.ip().is_unspecified() || to.port() == 0) {
        Some(to) => {
            let message =
                format!("--to: nobody can connect to `{to}`; name an address of the proxy");
            Err(config::usage(&message))
        }
        None => Ok(()),
    }
}

/// The root of all cgroups.
fn all_cgroups() -> Result<PathBuf, Failure> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").map_err(Failure::new)?;
    cgroup_mount(&mounts).map(PathBuf::from).ok_or_else(|| {
        Failure::new("cgroup v2 is not mounted: `mount -t cgroup2 none /sys/fs/cgroup`")
    })
}

/// `cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0`
fn cgroup_mount(mounts: &str) -> Option<&str> {
    let mut fields = mounts.lines().map(|line| line.split(' ').skip(1));
    fields.find_map(|mut fields| {
        let at = fields.next()?;
        (fields.next()? == "cgroup2").then_some(at)
    })
}

fn policy(arguments: &ToArguments) -> Result<EndpointPolicy, Failure> {
    let workload = arguments.workload_labels.as_deref().unwrap_or_default();
    let labels: Labels =
        workload.parse().map_err(|error| config::usage(&format!("--workload-labels: {error}")))?;
    let endpoint = Endpoint::new("workload", arguments.workload_namespace.as_str(), labels);
    let directory = Directory::from(config::flag_peers(&arguments.peer)?);
    let files = PolicyFiles { paths: arguments.policy.clone(), watch: false };
    let sources = read_policy_files(&files.paths).map_err(Failure::policy)?;
    let repository = Repository::parse(sources).map_err(Failure::policy)?;
    for warning in repository.warnings().iter().filter(|warning| !warning.advice) {
        eprintln!("{warning}");
    }
    EndpointPolicy::resolve(&repository, &endpoint, &directory, &Options::default())
        .map_err(Failure::policy)
}

/// What becomes of a verdict where another proxy reads, in whatever protocol. It may not be able to have
/// a peer prove who it is, and it gets no datagrams.
fn for_another(protocol: Protocol, verdict: ConnectionVerdict) -> Verdict {
    match verdict.action {
        Action::Deny => Verdict::Deny,
        _ if verdict.needs_authentication() => Verdict::Deny,
        Action::Allow => Verdict::Allow,
        Action::Inspect(_) if protocol == Protocol::Tcp => Verdict::Inspect,
        Action::Inspect(as_what) if as_what.is_observed_only() => Verdict::Allow,
        _ => Verdict::Deny,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_cgroups_is_found_among_mounts() {
        let mounts = "\
proc /proc proc rw 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nosuid 0 0
";
        assert_eq!(cgroup_mount(mounts), Some("/sys/fs/cgroup/unified"));
        assert_eq!(cgroup_mount("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn one_address_of_each_family_is_a_proxy() {
        let parse = |text: &str| -> Vec<SocketAddr> {
            text.split(' ').map(|address| address.parse().expect("an address")).collect()
        };
        assert!(check_addresses(&parse("127.0.0.1:15001 [::1]:15001")).is_ok());
        for wrong in ["127.0.0.1:1 127.0.0.2:1", "0.0.0.0:1", "[::]:1", "127.0.0.1:0"] {
            let failure = check_addresses(&parse(wrong)).expect_err(wrong);
            assert_eq!(failure.code, 2);
        }
    }
}
