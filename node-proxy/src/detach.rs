//! `portreeve-node detach`: an instance's programs, maps and routes taken away.

use portreeve_ebpf::InstanceName;
use portreeve_ebpf::node::{NodeCapacity, NodeKernel, NodeRemoved, NodeSettings, missing};

use crate::cli::DetachArguments;
use crate::command::{Failure, print};
use crate::trouble;

/// Removes what is there, and says what it was.
pub(crate) fn run(arguments: &DetachArguments) -> Result<(), Failure> {
    let DetachArguments { instance, bpffs } = arguments;
    let instance = instance
        .parse::<InstanceName>()
        .map_err(|error| Failure::usage(format!("error: --instance: {error}")))?;
    if let Some(one) = missing(bpffs).first() {
        return Err(Failure::new(format!("{one}\n  hint: {}", one.hint())));
    }
    let (bpffs, capacity) = (bpffs.clone(), NodeCapacity::default());
    let settings = NodeSettings { instance, bpffs, capacity };
    let removed = NodeKernel::remove(&settings).map_err(|error| trouble::kernel(&error))?;
    let (name, place) = (&settings.instance, settings.bpffs.display());
    let said = match removed.is_empty() {
        true => {
            let others = others(&removed);
            format!("nothing is set up as instance `{name}` below {place}{others}\n")
        }
        false => format!("{name}: {}\n", describe(&removed)),
    };
    print(&said).map(drop)
}

/// Who is there still.
fn others(NodeRemoved { device_is_anothers, neighbours, .. }: &NodeRemoved) -> String {
    let names: Vec<_> = neighbours.iter().map(|name| format!("`{name}`")).collect();
    let are = if names.len() == 1 { "is" } else { "are" };
    let stays = "the device `portreeve0` stays";
    match (device_is_anothers, names.is_empty()) {
        (true, true) => format!("; {stays}: an instance that is pinned elsewhere uses it"),
        (true, false) => format!("; {} {are} there, and {stays}", names.join(", ")),
        (false, false) => format!("; {} {are} there", names.join(", ")),
        (false, true) => String::new(),
    }
}

fn describe(removed: &NodeRemoved) -> String {
    let (programs, maps) = (removed.programs.len(), removed.maps.len());
    let device = match removed.device {
        true => "; the device `portreeve0`, its rules and its routes removed",
        false => "",
    };
    let others = others(removed);
    let judged = match others.is_empty() {
        true => "workloads are not judged any more",
        false => "this instance judges no workloads any more",
    };
    format!("{programs} programs detached, {maps} maps removed{device}{others}; {judged}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_said() {
        let some = NodeRemoved {
            programs: vec!["7-from".to_owned(), "7-to".to_owned()],
            maps: vec!["OWN".to_owned()],
            device: true,
            device_is_anothers: false,
            neighbours: Vec::new(),
        };
        assert_eq!(
            describe(&some),
            "2 programs detached, 1 maps removed; the device `portreeve0`, its rules and its routes \
             removed; workloads are not judged any more"
        );
        let elsewhere = NodeRemoved { device: false, device_is_anothers: true, ..some };
        assert_eq!(
            describe(&elsewhere),
            "2 programs detached, 1 maps removed; the device `portreeve0` stays: an instance that is pinned \
             elsewhere uses it; this instance judges no workloads any more"
        );
        let beside = NodeRemoved { neighbours: vec![InstanceName::of_node()], ..elsewhere };
        assert_eq!(
            describe(&beside),
            "2 programs detached, 1 maps removed; `node` is there, and the device `portreeve0` stays; this \
             instance judges no workloads any more"
        );
    }
}
