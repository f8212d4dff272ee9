//! Policy from files and folders: reading them, and noticing that they have changed.
//!
//! Files are swapped in many ways: written in place, renamed over, or, in a Kubernetes ConfigMap,
//! by moving the symlink `..data`. Instead of knowing them all, a [`Fingerprint`] of what the
//! paths lead to is compared, woken by the kernel's notifications where they work and by a slow
//! poll where they don't (network file systems, a folder that was replaced).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use portreeve_policy::Source;

/// Policies larger than this are refused: nobody writes them, and reading takes memory.
const FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Why policy files could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFilesError {
    /// A path does not exist or can't be read.
    #[error("can't read policy `{path}`: {source}", path = path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is beyond any sensible size.
    #[error("policy `{path}` is larger than 64 MiB", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing to read.
    #[error("no policy file found in {0}; a folder's *.yaml, *.yml and *.json files are read")]
    Nothing(String),
}

/// What the policy paths lead to right now: names, sizes, inodes and times of change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fingerprint(Vec<(PathBuf, u64, u64, i64, i64)>);

/// Reads all policy files, in the order of `paths`, a folder's by name.
///
/// # Errors
/// [`PolicyFilesError`] for the first path that can't be read, or when there is no file at all:
/// an empty folder must not look like a policy that allows everything.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Source>, PolicyFilesError> {
    let mut sources = Vec::new();
    for file in files(paths)? {
        sources.push(read_file(&file)?);
    }
    if sources.is_empty() {
        let all = paths.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>();
        return Err(PolicyFilesError::Nothing(all.join(", ")));
    }
    Ok(sources)
}

/// The state of the files now; paths that can't be read are left out, which is a state, too.
pub(crate) fn fingerprint(paths: &[PathBuf]) -> Fingerprint {
    let mut entries = Vec::new();
    for path in paths {
        for file in files(std::slice::from_ref(path)).unwrap_or_default() {
            if let Ok(meta) = fs::metadata(&file) {
                let (size, inode) = (meta.len(), meta.ino());
                entries.push((file, size, inode, meta.mtime(), meta.mtime_nsec()));
            }
        }
    }
    Fingerprint(entries)
}

/// The folders whose entries change when a policy file is swapped.
pub(crate) fn folders(paths: &[PathBuf]) -> Vec<PathBuf> {
    let folder = |path: &PathBuf| match path.is_dir() {
        true => path.clone(),
        false => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        },
    };
    let mut folders: Vec<_> = paths.iter().map(folder).collect();
    folders.sort();
    folders.dedup();
    folders
}

fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, PolicyFilesError> {
    let mut files = Vec::new();
    for path in paths {
        let error = |source| PolicyFilesError::Read { path: path.clone(), source };
        if !fs::metadata(path).map_err(error)?.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).map_err(error)? {
            let file = entry.map_err(error)?.path();
            if is_policy_file(&file) {
                entries.push(file);
            }
        }
        entries.sort();
        files.append(&mut entries);
    }
    Ok(files)
}

/// `*.yaml`, `*.yml`, `*.json`, but no hidden files: a ConfigMap's `..data` and editors' backups.
fn is_policy_file(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(|extension| extension.to_str());
    !hidden && matches!(extension, Some("yaml" | "yml" | "json")) && path.is_file()
}

fn read_file(path: &Path) -> Result<Source, PolicyFilesError> {
    let error = |source| PolicyFilesError::Read { path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(error)?.len();
    if size > FILE_BYTES {
        return Err(PolicyFilesError::TooLarge { path: path.to_owned() });
    }
    let text = fs::read_to_string(path).map_err(error)?;
    Ok(Source { name: path.display().to_string(), text })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(sources: &[Source]) -> Vec<&str> {
        sources.iter().map(|s| s.name.rsplit('/').next().unwrap_or_default()).collect()
    }

    #[test]
    fn a_folder_is_read_by_name_without_hidden_and_foreign_files() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["b.yaml", "a.yml", "c.json", ".hidden.yaml", "notes.txt", "d.yaml~"] {
            fs::write(folder.path().join(name), "").expect("a file");
        }
        let sources = read(&[folder.path().to_owned()]).expect("sources");
        assert_eq!(names(&sources), ["a.yml", "b.yaml", "c.json"]);
    }

    #[test]
    fn an_empty_folder_is_an_error_not_an_empty_policy() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = read(&[folder.path().to_owned()]).expect_err("nothing to read");
        assert!(error.to_string().starts_with("no policy file found in `"), "{error}");
    }

    #[test]
    fn a_config_maps_symlink_swap_changes_the_fingerprint() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for version in ["..v1", "..v2"] {
            fs::create_dir(at(version)).expect("a version");
            fs::write(at(version).join("p.yaml"), "same size").expect("a file");
        }
        symlink("..v1", at("..data")).expect("a link");
        symlink("..data/p.yaml", at("p.yaml")).expect("a link");
        let paths = [folder.path().to_owned()];
        let before = fingerprint(&paths);
        assert_eq!(before, fingerprint(&paths));
        assert_eq!(names(&read(&paths).expect("sources")), ["p.yaml"]);

        symlink("..v2", at("..data_tmp")).expect("a link");
        fs::rename(at("..data_tmp"), at("..data")).expect("a swap");
        assert_ne!(before, fingerprint(&paths));
    }
}
