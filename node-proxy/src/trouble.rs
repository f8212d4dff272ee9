//! Why the datapath can't be set up or taken away, and what to do about it.

use std::fmt::Write as _;
use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
use std::path::Path;

use portreeve_core::StartError;
use portreeve_core::telemetry::TelemetryError;
use portreeve_ebpf::node::NodeError;
use portreeve_ebpf::{InstanceName, Missing, SetupError};

use crate::command::Failure;
use crate::config;
use crate::state::OpenError;

const WITHOUT: &str = "`--datapath none` computes and shows policy, and enforces nothing";

/// Something has to be there first; `None`: it is.
pub(crate) fn missing(missing: &[Missing]) -> Option<Failure> {
    if missing.is_empty() {
        return None;
    }
    let mut text = "the programs inside of the kernel can't be set up yet:".to_owned();
    for one in missing {
        let _ = write!(text, "\n  {one}: {}", one.hint());
    }
    Some(Failure::new(format!("{text}\n  hint: {WITHOUT}")))
}

/// The kernel, or what is pinned there.
pub(crate) fn kernel(error: &NodeError) -> Failure {
    let NodeError::Setup(SetupError::InUse { instance, holder }) = error else {
        return Failure::new(format!("the programs inside of the kernel can't be set up: {error}"));
    };
    let by = holder.map_or("a process that can't be seen from here".to_owned(), |process| {
        format!("process {process}")
    });
    Failure::new(format!(
        "instance `{instance}` is in use by {by}\n  hint: end it first; one with another name \
         (`kernel.instance`) would judge beside it, and not in its place"
    ))
}

/// The command that removes an instance.
pub(crate) fn detach_command(bpffs: &Path, instance: &InstanceName) -> String {
    let bpffs = match bpffs == Path::new(config::BPFFS) {
        true => String::new(),
        false => format!(" --bpffs {}", bpffs.display()),
    };
    format!("portreeve-node detach{bpffs} --instance {instance}")
}

/// What the node knows from before.
pub(crate) fn node(error: &OpenError) -> Failure {
    match error {
        OpenError::State(error) => Failure::config(format!("error: {error}")),
        // Nobody has written that.
        OpenError::Datapath(_) => Failure::new(error),
    }
}

/// The proxy that all workloads share.
pub(crate) fn proxy(error: &StartError) -> Failure {
    let hint = match error {
        StartError::Admin { source, .. } if source.kind() == AddrInUse => {
            "choose another address with `--admin` or the key `admin`, or `off`"
        }
        StartError::Admin { source, .. } if source.kind() == AddrNotAvailable => {
            "no interface of this host has that address; choose another with `--admin` or the key `admin`, \
             or `off`"
        }
        StartError::Admin { source, .. } if source.kind() == PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; choose another with `--admin` or the key `admin`, \
             or `off`"
        }
        StartError::Telemetry(TelemetryError::Open { .. }) => {
            "the key `access_log.to` names it: a file in a folder that is there, `stdout` or `stderr`"
        }
        _ => return Failure::new(error),
    };
    Failure::new(format!("{error}\n  hint: {hint}"))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind::NotFound;

    use super::*;
    use crate::datapath::DatapathError;

    #[test]
    fn maps_that_can_not_be_read_are_no_trouble_of_the_configuration() {
        let error = OpenError::Datapath(DatapathError("can't read `OWN`".to_owned()));
        let failure = node(&error);
        assert_eq!(failure.code, 1);
        let said = "error: can't read which numbers are in use: can't read `OWN`";
        assert_eq!(failure.message, said);
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("endpoints.json"), "{").expect("written");
        let error = crate::identities::EndpointIds::open(folder.path(), std::time::Instant::now());
        assert_eq!(node(&error.expect_err("it is damaged").into()).code, 78);
    }

    #[test]
    fn each_trouble_has_a_hint_of_its_own() {
        let in_use = |kind: std::io::ErrorKind| StartError::Admin {
            address: ([127, 0, 0, 1], 15000).into(),
            source: kind.into(),
        };
        assert!(proxy(&in_use(AddrInUse)).message.contains("`--admin`"));
        assert!(proxy(&in_use(PermissionDenied)).message.contains("CAP_NET_BIND_SERVICE"));
        let said = proxy(&in_use(AddrNotAvailable)).message;
        assert!(said.contains("no interface of this host") && said.contains("`admin`"), "{said}");
        let (path, source) = ("/nowhere/log".into(), NotFound.into());
        let said = proxy(&TelemetryError::Open { path, source }.into()).message;
        assert!(said.contains("`/nowhere/log`") && said.contains("`access_log.to`"), "{said}");
        let taken = SetupError::InUse { instance: "node".to_owned(), holder: Some(7) };
        let said = kernel(&taken.into()).message;
        assert!(said.contains("process 7") && said.contains("kernel.instance"), "{said}");
        let nobody = missing(&[]);
        assert!(nobody.is_none());
        let lacking = [Missing::Capabilities(vec!["CAP_BPF"]), Missing::Bpffs("/nowhere".into())];
        let said = missing(&lacking).expect("something is missing").message;
        assert!(said.contains("run it as root") && said.contains("mount -t bpf"), "{said}");
        assert!(said.ends_with(WITHOUT), "{said}");
    }
}
