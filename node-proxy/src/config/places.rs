//! What a configuration names and has to be there: looked at, and nothing else. What can only be known by
//! doing it, such as whether an address can be listened on, is left to who does it.

use std::path::Path;

use portreeve_core::telemetry::Sink;

use super::Config;
use crate::cli::DatapathKind;
use crate::command::Failure;

/// Says of everything that is not there which key names it.
pub(super) fn check(file: &Path, config: &Config) -> Result<(), Failure> {
    if config.datapath == DatapathKind::None {
        // Neither is used.
        return Ok(());
    }
    let cgroup = config.kernel.cgroup.as_deref().and_then(cgroup);
    let log = match &config.access_log.sink {
        Sink::File(path) => log(path),
        _ => None,
    };
    let wrong: Vec<_> = cgroup
        .into_iter()
        .chain(log)
        .map(|wrong| format!("error: {}: {wrong}", file.display()))
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(Failure::config(wrong.join("\n"))) }
}

fn cgroup(path: &Path) -> Option<String> {
    const CGROUP2: u64 = 0x6367_7270;
    let is_one = path.is_dir()
        && rustix::fs::statfs(path).is_ok_and(|found| u64::try_from(found.f_type) == Ok(CGROUP2));
    (!is_one).then(|| {
        format!(
            "`kernel.cgroup`: `{}` is no folder of cgroup v2\n  hint: `findmnt -t cgroup2` says where that is \
             mounted",
            path.display()
        )
    })
}

fn log(path: &Path) -> Option<String> {
    let shown = path.display();
    if path.is_dir() {
        return Some(format!("`access_log.to`: `{shown}` is a folder\n  hint: name a file in it"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    (!folder.is_dir()).then(|| {
        let folder = folder.display();
        format!(
            "`access_log.to`: there is no folder `{folder}` for `{shown}`\n  hint: `mkdir -p {folder}`, or \
             name a file elsewhere"
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::config::from_file;

    #[test]
    fn places_that_are_not_there_are_errors_of_the_keys_that_name_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("node.yaml");
        let read = |more: &str| {
            std::fs::write(&file, format!("objects: o/\n{more}\n")).expect("written");
            from_file(&file).map(drop)
        };
        let both = "kernel: {cgroup: nowhere}\naccess_log: {to: nowhere/log}";
        let failure = read(both).expect_err("neither is there");
        assert_eq!(failure.code, 78);
        let said = failure.message;
        assert!(
            said.contains("node.yaml: `kernel.cgroup`: `") && said.contains("findmnt"),
            "{said}"
        );
        assert!(said.contains("`access_log.to`: there is no folder `"), "{said}");
        let said = read("kernel: {cgroup: .}").expect_err("no cgroup").message;
        assert!(said.contains("is no folder of cgroup v2"), "{said}");
        let said = read("access_log: {to: .}").expect_err("a folder").message;
        assert!(said.contains("is a folder"), "{said}");
        assert!(read("access_log: {to: log}").is_ok());
        assert!(read("access_log: {to: stderr}").is_ok());
        assert!(read(&format!("datapath: none\n{both}")).is_ok(), "neither is used");
    }
}
