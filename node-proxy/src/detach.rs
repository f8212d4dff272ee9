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
    if removed.is_empty() {
        let others = match removed.device_is_anothers {
            true => "; the device `portreeve0` is used by another one, pinned elsewhere, and stays",
            false => "",
        };
        let nothing = format!("nothing is set up as instance `{name}` below {place}{others}\n");
        return print(&nothing).map(drop);
    }
    print(&format!("{name}: {}\n", describe(&removed))).map(drop)
}

fn describe(removed: &NodeRemoved) -> String {
    let (programs, maps) = (removed.programs.len(), removed.maps.len());
    let device = match (removed.device, removed.device_is_anothers) {
        (true, _) => "; the device `portreeve0`, its rules and its routes removed",
        (false, true) => "; the device `portreeve0` stays: another instance uses it",
        (false, false) => "",
    };
    format!(
        "{programs} programs detached, {maps} maps removed{device}; workloads are not judged any more"
    )
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
        let others = NodeRemoved { device: false, device_is_anothers: true, ..some };
        let said = describe(&others);
        assert!(
            said.contains("; the device `portreeve0` stays: another instance uses it;"),
            "{said}"
        );
    }
}
