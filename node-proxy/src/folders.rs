//! The folders that a daemon has to itself.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;

use crate::command::Failure;

/// The state folder is one daemon's own, as long as what is returned lives. It says which numbers mean whom:
/// nobody else may write there.
pub(crate) fn lock_state(state: &Path) -> Result<File, Failure> {
    const ANOTHER: &str = "choose another one with `--state` or the key `state`";
    make(state)?;
    let failed = |error: &dyn std::fmt::Display, hint: &str| {
        Failure::new(format!(
            "can't use the state folder `{}`: {error}\n  hint: {hint}",
            state.display()
        ))
    };
    let folder = fs::metadata(state).map_err(|error| failed(&error, ANOTHER))?;
    if let Some((why, hint)) = whose(folder.uid(), folder.mode(), geteuid().as_raw()) {
        let path = state.display();
        return Err(failed(&why, &format!("`{hint} {path}`, or {ANOTHER}")));
    }
    let mut options = File::options();
    let options = options.create(true).truncate(false).write(true).mode(OWN);
    let file = options.open(state.join("lock")).map_err(|error| failed(&error, ANOTHER))?;
    // One that was there may be everybody's to read, and who can open it can lock it.
    file.set_permissions(Permissions::from_mode(OWN)).map_err(|error| failed(&error, ANOTHER))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
        rustix::io::Errno::WOULDBLOCK => {
            failed(&"another daemon uses it: is another `portreeve-node run` still there?", ANOTHER)
        }
        error => failed(&error, ANOTHER),
    })?;
    Ok(file)
}

/// Why a folder is not this user's alone, and the command that makes it so. What is root's is nobody's to
/// worry about.
fn whose(owner: u32, mode: u32, user: u32) -> Option<(String, String)> {
    const OTHERS_WRITE: u32 = 0o022;
    if owner != user && owner != 0 {
        let why =
            format!("it belongs to another user ({owner}), who could change what numbers mean");
        return Some((why, format!("chown {user}")));
    }
    (mode & OTHERS_WRITE != 0).then(|| {
        let why = format!(
            "others may write to it (mode {:04o}), and change what numbers mean",
            mode & 0o7777
        );
        (why, "chmod go-w".to_owned())
    })
}

/// Makes a folder that is not there yet, for this user alone.
pub(crate) fn make(path: &Path) -> Result<(), Failure> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        Failure::new(format!(
            "can't make the folder `{}`: {error}\n  hint: choose another one with `--state` and \
             `--socket`, or the keys `state` and `socket`",
            path.display()
        ))
    })
}

/// Of a file that nobody else is to read.
const OWN: u32 = 0o600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_folder_that_others_may_change_is_refused_with_what_to_do() {
        assert_eq!(whose(7, 0o40700, 7), None);
        assert_eq!(whose(0, 0o40755, 7), None);
        let hint = |owner, mode| whose(owner, mode, 7).expect("it is refused").1;
        assert_eq!(hint(7, 0o40770), "chmod go-w");
        assert_eq!(hint(0, 0o41777), "chmod go-w");
        assert_eq!(hint(8, 0o40700), "chown 7");
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).expect("ours");
        let said = lock_state(folder.path()).expect_err("everybody's").message;
        assert!(said.contains("(mode 0777)") && said.contains("hint: `chmod go-w /"), "{said}");
        assert!(!folder.path().join("lock").exists());
    }

    #[test]
    fn the_lock_is_nobody_elses_to_open() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("lock"), "").expect("written");
        let everybodys = Permissions::from_mode(0o644);
        fs::set_permissions(folder.path().join("lock"), everybodys).expect("ours");
        let lock = lock_state(folder.path()).expect("it is nobody's yet");
        assert_eq!(lock.metadata().expect("told").mode() & 0o777, OWN);
        let said = lock_state(folder.path()).expect_err("it is taken").message;
        assert!(said.contains("another daemon uses it"), "{said}");
    }
}
