//! An instance: one workload's programs and maps, in a folder of their own, with one owner at a time.
//!
//! ```text
//! <bpffs>/portreeve/<instance>/maps/<MAP>       what programs and the proxy share
//! <bpffs>/portreeve/<instance>/links/<program>  what is attached
//! ```

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{FlockOperation, flock, major, minor};
use serde::{Serialize, Serializer};

use crate::error::SetupError;
use crate::sys;

/// The name of an instance: 1 to 64 letters, digits, `_`, `.` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceName(String);

/// A name that can't be an instance's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` can't name an instance: 1 to 64 letters, digits, `_`, `.` and `-` can")]
pub struct InstanceNameError(String);

impl FromStr for InstanceName {
    type Err = InstanceNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let fits = (1..=LONGEST_NAME).contains(&name.len()) && name.chars().all(is_allowed);
        if fits { Ok(Self(name.to_owned())) } else { Err(InstanceNameError(name.to_owned())) }
    }
}

impl InstanceName {
    /// A node's, unless it is given another.
    #[must_use]
    pub fn of_node() -> Self {
        Self("node".to_owned())
    }

    /// The name of a workload that was given none: the end of its cgroup's path, to be recognised by, and
    /// a hash of all of it, because ends can be alike.
    #[must_use]
    pub fn of_cgroup(path: &Path) -> Self {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let hash = hash(path.as_os_str().as_encoded_bytes());
        let parts: Vec<_> = path.iter().skip(1).map(|part| part.to_string_lossy()).collect();
        let end = parts.iter().rev().take(2).rev().cloned().collect::<Vec<_>>().join("-");
        let end: String =
            end.chars().map(|letter| if is_allowed(letter) { letter } else { '_' }).collect();
        let start = end.len().saturating_sub(LONGEST_NAME - 9);
        Self(format!("{}-{hash:08x}", &end[start..]))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its folder's name: the bpf file system keeps dots for itself.
    fn folder(&self) -> String {
        self.0.replace('.', "+")
    }

    fn of_folder(folder: &str) -> Option<Self> {
        folder.replace('+', ".").parse().ok()
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for InstanceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Where an instance is pinned.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    name: InstanceName,
    path: PathBuf,
}

impl Folder {
    pub(crate) fn new(bpffs: &Path, name: &InstanceName) -> Self {
        Self { name: name.clone(), path: bpffs.join(ROOT).join(name.folder()) }
    }

    /// Where a node's is pinned: beside those of single workloads.
    pub(crate) fn of_node(bpffs: &Path, name: &InstanceName) -> Self {
        Self { name: name.clone(), path: bpffs.join(NODE_ROOT).join(name.folder()) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Those of all instances.
    pub(crate) fn all(bpffs: &Path) -> io::Result<Vec<Self>> {
        Self::below(&bpffs.join(ROOT))
    }

    /// Those of other instances, of the same kind and in the same bpf file system.
    pub(crate) fn neighbours(&self) -> io::Result<Vec<Self>> {
        let Some(root) = self.path.parent() else { return Ok(Vec::new()) };
        let mut folders = Self::below(root)?;
        folders.retain(|other| other.name != self.name);
        Ok(folders)
    }

    fn below(root: &Path) -> io::Result<Vec<Self>> {
        let entries = match fs::read_dir(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut folders = Vec::new();
        for entry in entries {
            let folder = entry?.file_name();
            if let Some(name) = InstanceName::of_folder(&folder.to_string_lossy()) {
                folders.push(Self { name, path: root.join(folder) });
            }
        }
        folders.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(folders)
    }

    pub(crate) fn name(&self) -> &InstanceName {
        &self.name
    }

    pub(crate) fn exists(&self) -> bool {
        self.path.is_dir()
    }

    pub(crate) fn maps(&self) -> PathBuf {
        self.path.join("maps")
    }

    pub(crate) fn map(&self, map: &str) -> PathBuf {
        self.maps().join(map)
    }

    pub(crate) fn links(&self) -> PathBuf {
        self.path.join("links")
    }

    pub(crate) fn link(&self, program: &str) -> PathBuf {
        self.links().join(program)
    }

    /// Whether a program is attached, or was.
    pub(crate) fn has_links(&self) -> bool {
        fs::read_dir(self.links()).is_ok_and(|mut links| links.next().is_some())
    }

    /// Removes maps of an instance that nothing is attached to: nobody has used them.
    pub(crate) fn forget_maps(&self) -> Result<(), SetupError> {
        empty(&self.maps(), |map| fs::remove_file(map))
            .map(drop)
            .map_err(SetupError::file("can't empty", self.maps()))
    }

    /// Makes the folders, and takes the instance: nobody else may until what is returned is dropped.
    pub(crate) fn take(&self) -> Result<Owner, SetupError> {
        loop {
            for folder in [self.maps(), self.links()] {
                fs::create_dir_all(&folder).map_err(SetupError::file("can't make", &folder))?;
            }
            let file = self.lock()?;
            // Detached meanwhile: what is locked would be a folder that is no longer there.
            if identity(&file.metadata()) == identity(&fs::metadata(&self.path)) {
                return Ok(Owner { _lock: file });
            }
        }
    }

    fn lock(&self) -> Result<File, SetupError> {
        let failed = |error| SetupError::file("can't lock", &self.path)(error);
        let file = File::open(&self.path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(SetupError::InUse { instance: self.name.to_string(), holder: self.holder() })
            }
            Err(error) => Err(failed(error.into())),
        }
    }

    /// The process that has taken the instance.
    pub(crate) fn holder(&self) -> Option<u32> {
        let folder = fs::metadata(&self.path).ok()?;
        let locks = fs::read_to_string("/proc/locks").ok()?;
        holder(&locks, folder.dev(), folder.ino())
    }

    /// Removes everything, links first; the names of what was removed. What isn't there, doesn't matter.
    pub(crate) fn remove(&self) -> io::Result<Removed> {
        let links = empty(&self.links(), unlink)?;
        let maps = empty(&self.maps(), |map| fs::remove_file(map))?;
        for folder in [&self.links(), &self.maps(), &self.path] {
            absent_is_fine(fs::remove_dir(folder))?;
        }
        // The one above is shared: it goes with the last instance.
        if let Some(root) = self.path.parent() {
            let _ = fs::remove_dir(root);
        }
        Ok(Removed { links, maps })
    }
}

/// What was unpinned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) links: Vec<String>,
    pub(crate) maps: Vec<String>,
}

/// Has an instance as long as it lives.
#[derive(Debug)]
pub(crate) struct Owner {
    _lock: File,
}

fn identity(metadata: &io::Result<fs::Metadata>) -> Option<(u64, u64)> {
    metadata.as_ref().ok().map(|file| (file.dev(), file.ino()))
}

/// Detaches what a link is pinned for, and unpins it. A link that was never there, is no error.
pub(crate) fn unlink(path: &Path) -> io::Result<()> {
    match sys::object_get(path) {
        // One that has nothing to hold on to any more can't let go of it.
        Ok(link) => drop(sys::link_detach(link.as_fd())),
        Err(error) => absent_is_fine(Err(error))?,
    }
    absent_is_fine(fs::remove_file(path))
}

fn empty(folder: &Path, remove: impl Fn(&Path) -> io::Result<()>) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        absent_is_fine(remove(&entry.path()))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Who has locked a file, in `/proc/locks`: `1: FLOCK  ADVISORY  WRITE 4711 00:1f:42 0 EOF`.
fn holder(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let wanted = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    locks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = fields[..] else { return None };
        // 0, and negative numbers: a process of a namespace that can't be seen from here.
        if file == wanted { pid.parse().ok().filter(|&pid| pid != 0) } else { None }
    })
}

fn is_allowed(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "_.-".contains(letter)
}

/// FNV-1a, folded: short, and the same in every version.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

const ROOT: &str = "portreeve";
const NODE_ROOT: &str = "portreeve-node";
const LONGEST_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for fine in ["a", "shop-1", "docker-0.scope", "_", &"x".repeat(64)] {
            assert_eq!(fine.parse::<InstanceName>().expect("a name").as_str(), fine);
        }
        for wrong in ["", "a/b", "a b", "..+", "ä", &"x".repeat(65)] {
            assert!(wrong.parse::<InstanceName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_folder_has_no_dot_and_leads_back_to_its_name() {
        let name: InstanceName = "docker-0.scope".parse().expect("a name");
        assert_eq!(name.folder(), "docker-0+scope");
        assert_eq!(InstanceName::of_folder(&name.folder()), Some(name));
        let dots: InstanceName = "..".parse().expect("a name");
        assert_eq!(dots.folder(), "++");
    }

    #[test]
    fn a_cgroups_name_shows_its_end_and_tells_like_ends_apart() {
        let one = InstanceName::of_cgroup(Path::new("/no/such/kubepods/pod:1/app"));
        let other = InstanceName::of_cgroup(Path::new("/no/other/kubepods/pod:1/app"));
        assert!(one.as_str().starts_with("pod_1-app-"), "{one}");
        assert_ne!(one, other);
        assert_eq!(one.as_str().parse(), Ok(one.clone()));
        let long = InstanceName::of_cgroup(Path::new(&format!("/no/{}", "é".repeat(200))));
        assert_eq!(long.as_str().len(), 64);
        let root = InstanceName::of_cgroup(Path::new("/"));
        assert_eq!(root.as_str().parse(), Ok(root.clone()));
    }

    #[test]
    fn who_has_locked_a_folder_is_found() {
        let locks = "\
1: POSIX  ADVISORY  WRITE 100 00:1f:42 0 EOF
2: FLOCK  ADVISORY  WRITE 200 00:1f:43 0 EOF
3: FLOCK  ADVISORY  WRITE 300 00:1f:42 0 EOF
";
        let device = rustix::fs::makedev(0, 0x1f);
        assert_eq!(holder(locks, device, 42), Some(300));
        assert_eq!(holder(locks, device, 44), None);
        assert_eq!(holder("4: FLOCK  ADVISORY  WRITE 0 00:1f:42 0 EOF\n", device, 42), None);
    }

    #[test]
    fn an_instance_has_one_owner_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let instance = Folder::new(folder.path(), &"one".parse().expect("a name"));
        let owner = instance.take().expect("nobody has it");
        match instance.take().expect_err("it is taken") {
            SetupError::InUse { holder, .. } => assert_eq!(holder, Some(std::process::id())),
            other => panic!("{other}"),
        }
        drop(owner);
        drop(instance.take().expect("it is free again"));
        assert_eq!(instance.remove().expect("removed"), Removed::default());
        assert!(!instance.exists());
        assert_eq!(Folder::all(folder.path()).expect("a list").len(), 0);
    }

    #[test]
    fn neighbours_are_the_others_of_the_same_kind() {
        let folder = tempfile::tempdir().expect("a folder");
        let [one, dotted, alone] =
            ["one", "an.other", "alone"].map(|name| name.parse().expect("a name"));
        let of_node = |name| Folder::of_node(folder.path(), name);
        assert!(of_node(&one).neighbours().expect("a list").is_empty());
        let _owners = [of_node(&one), of_node(&dotted), Folder::new(folder.path(), &alone)]
            .map(|folder| folder.take().expect("nobody has it"));
        let found = of_node(&one).neighbours().expect("a list");
        let names: Vec<_> = found.iter().map(|folder| folder.name().as_str()).collect();
        assert_eq!(names, ["an.other"]);
        assert!(found[0].exists());
    }
}
