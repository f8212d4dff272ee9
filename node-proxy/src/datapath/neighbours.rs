//! Instances beside this one: of two that have programs on an interface, the one that was attached first
//! decides, by whatever policy it had last.

use portreeve_ebpf::node::{Neighbour, NodeKernel};

use crate::trouble::detach_command;

/// What is wrong as long as there are others.
pub(super) fn troubles(kernel: &NodeKernel) -> Vec<String> {
    match kernel.neighbours() {
        Ok(all) => all.iter().map(trouble).collect(),
        Err(error) => {
            vec![format!("it is not known whether other instances judge as well: {error}")]
        }
    }
}

fn trouble(Neighbour { instance, path, holder }: &Neighbour) -> String {
    // As it stands in `<bpffs>/portreeve-node/<instance>`.
    let bpffs = path.ancestors().nth(2).unwrap_or(path);
    let end = match holder {
        Some(process) => format!("end its daemon, process {process}, and then "),
        None => String::new(),
    };
    format!(
        "instance `{instance}` is still there, pinned in `{}`: where it was attached first, its policy decides, \
         and not this one's\n  hint: {end}`{}`",
        path.display(),
        detach_command(bpffs, instance)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_instance_is_said_with_what_to_do_about_it() {
        let instance = "blue".parse().expect("a name");
        let path = "/sys/fs/bpf/portreeve-node/blue".into();
        let dead = Neighbour { instance, path, holder: None };
        let said = trouble(&dead);
        assert!(
            said.starts_with("instance `blue` is still there, pinned in `/sys/fs/bpf/portr"),
            "{said}"
        );
        assert!(said.ends_with("hint: `portreeve-node detach --instance blue`"), "{said}");
        let path = "/run/bpf/portreeve-node/blue".into();
        let said = trouble(&Neighbour { path, holder: Some(7), ..dead });
        let command = "`portreeve-node detach --bpffs /run/bpf --instance blue`";
        assert!(
            said.ends_with(&format!("end its daemon, process 7, and then {command}")),
            "{said}"
        );
    }
}
