//! What has to be there before anything is touched: all that is missing is told at once, each with what
//! to do about it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;

use crate::error::SetupError;
use crate::settings::{Outbound, Settings};

/// Something that has to be there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// Privileges.
    #[error("this process lacks {}", .0.join(" and "))]
    Capabilities(Vec<&'static str>),
    /// A cgroup.
    #[error("the cgroup `{}` can't be used ({reason})", path.display())]
    Cgroup {
        /// What was given.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// Where cgroup v2 is mounted, if it is.
        mounted: Option<PathBuf>,
    },
    /// The bpf file system.
    #[error("no bpf file system is mounted at `{}`", .0.display())]
    Bpffs(PathBuf),
    /// The proxy is part of what it is to redirect.
    #[error("this process runs inside of the cgroup `{}`, as `{own}`", path.display())]
    Inside {
        /// What was given.
        path: PathBuf,
        /// This process's own.
        own: String,
    },
    /// The other proxy is part of what it is to redirect.
    #[error(
        "the proxy's cgroup `{}` is inside of the workload's, `{}`",
        proxy.display(),
        path.display()
    )]
    ProxyInside {
        /// The workload's cgroup.
        path: PathBuf,
        /// The proxy's.
        proxy: PathBuf,
    },
}

impl Missing {
    /// What to do.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Capabilities(missing) => format!(
                "run it as root, or grant {} (as `--cap-add` or `AmbientCapabilities=`)",
                missing.join(", ")
            ),
            Self::Cgroup { mounted: Some(mounted), .. } => format!(
                "give a directory below `{}`, where cgroup v2 is mounted",
                mounted.display()
            ),
            Self::Cgroup { mounted: None, .. } => {
                "mount it first: `mount -t cgroup2 none /sys/fs/cgroup`".to_owned()
            }
            Self::Bpffs(path) => format!("`mount -t bpf bpf {}` first", path.display()),
            Self::Inside { .. } => {
                "start the proxy outside of it, or its own connections would come back to it"
                    .to_owned()
            }
            Self::ProxyInside { .. } => {
                "put the two beside each other, or the proxy's own connections would come back to it"
                    .to_owned()
            }
        }
    }
}

/// Everything that is missing.
pub(crate) fn missing(settings: &Settings) -> Vec<Missing> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mounted = cgroup2_mount(&read("/proc/self/mountinfo"));
    let mut missing = Vec::new();
    missing.extend(capabilities(&read("/proc/self/status")));
    if !is_of_type(&settings.bpffs, BPF_FS_MAGIC) {
        missing.push(Missing::Bpffs(settings.bpffs.clone()));
    }
    let workload = cgroup(&settings.cgroup, mounted.as_ref());
    if let (Ok(_), Some(mount)) = (&workload, &mounted) {
        missing.extend(inside(&settings.cgroup, mount, &read("/proc/self/cgroup")));
    }
    missing.extend(workload.err());
    if let Outbound::Foreign { proxy_cgroup, .. } = &settings.outbound {
        match cgroup(proxy_cgroup, mounted.as_ref()) {
            Err(wrong) => missing.push(wrong),
            Ok(()) if is_within(&settings.cgroup, proxy_cgroup) => {
                let (path, proxy) = (settings.cgroup.clone(), proxy_cgroup.clone());
                missing.push(Missing::ProxyInside { path, proxy });
            }
            Ok(()) => {}
        }
    }
    missing
}

/// What the datapath of a node needs, and is not there.
pub(crate) fn missing_on_a_node(bpffs: &Path) -> Vec<Missing> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut missing: Vec<_> =
        lacking(&status, NEEDED.iter().chain(&NEEDED_ON_A_NODE)).into_iter().collect();
    if !is_of_type(bpffs, BPF_FS_MAGIC) {
        missing.push(Missing::Bpffs(bpffs.to_owned()));
    }
    missing
}

/// The kernel's version, for messages: whether it will do is seen by loading.
pub(crate) fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// The cgroup that this process is in.
pub(crate) fn own_cgroup() -> Result<PathBuf, SetupError> {
    const MEMBERSHIP: &str = "/proc/self/cgroup";
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mount = cgroup2_mount(&read("/proc/self/mountinfo"));
    let membership = read(MEMBERSHIP);
    let own = membership.lines().find_map(|line| line.strip_prefix("0::"));
    own.zip(mount).map(|(own, mount)| mount.directory(own)).ok_or_else(|| {
        SetupError::file("no cgroup of v2 in", MEMBERSHIP)(io::ErrorKind::NotFound.into())
    })
}

/// What to do about a program or a map that the kernel does not take.
pub(crate) fn load_hint(error: Option<io::ErrorKind>) -> &'static str {
    match error {
        Some(io::ErrorKind::PermissionDenied) => {
            "it forbids it: capabilities of a user namespace don't count, and seccomp or lockdown may stand in the way"
        }
        _ => "Linux 5.15 or newer, with CONFIG_CGROUP_BPF and CONFIG_BPF_JIT, is needed",
    }
}

fn capabilities(status: &str) -> Option<Missing> {
    lacking(status, NEEDED.iter())
}

fn lacking<'n>(
    status: &str,
    needed: impl Iterator<Item = &'n (u32, &'static str, bool)>,
) -> Option<Missing> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let has = |bit: u32| effective & (1 << bit) != 0;
    let missing: Vec<_> = needed
        .filter(|(bit, _, by_admin)| !has(*bit) && (!by_admin || !has(SYS_ADMIN)))
        .map(|(_, name, _)| *name)
        .collect();
    (!missing.is_empty()).then_some(Missing::Capabilities(missing))
}

fn cgroup(path: &Path, mounted: Option<&Mount>) -> Result<(), Missing> {
    let mounted = || mounted.map(|mount| mount.at.clone());
    let wrong =
        |reason: String| Missing::Cgroup { path: path.to_owned(), reason, mounted: mounted() };
    let metadata = fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
    if !metadata.is_dir() {
        return Err(wrong("it is not a directory".to_owned()));
    }
    if !is_of_type(path, CGROUP2_SUPER_MAGIC) {
        return Err(wrong("it is not of cgroup v2".to_owned()));
    }
    Ok(())
}

/// Whether this process is in the cgroup or one below it. `membership` is `/proc/self/cgroup`.
fn inside(path: &Path, mount: &Mount, membership: &str) -> Option<Missing> {
    let own = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    is_within(path, &mount.directory(own))
        .then(|| Missing::Inside { path: path.to_owned(), own: own.to_owned() })
}

/// Whether one directory is the other or below it, by what they are and not by how they are written.
fn is_within(outer: &Path, inner: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    let Some(wanted) = identity(outer) else { return false };
    let Ok(inner) = inner.canonicalize() else { return false };
    inner.ancestors().any(|ancestor| identity(ancestor) == Some(wanted))
}

fn is_of_type(path: &Path, magic: u32) -> bool {
    // The field's type differs between architectures; the numbers are of 32 bits.
    statfs(path).is_ok_and(|found| i128::from(found.f_type) & 0xffff_ffff == i128::from(magic))
}

/// Where cgroup v2 is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The mount point.
    pub(crate) at: PathBuf,
    /// What of the hierarchy is mounted there.
    root: PathBuf,
}

impl Mount {
    /// The directory of a cgroup as `/proc/PID/cgroup` names it.
    fn directory(&self, cgroup: &str) -> PathBuf {
        let cgroup = Path::new(cgroup);
        let below = cgroup.strip_prefix(&self.root).unwrap_or(cgroup);
        self.at.join(below.strip_prefix("/").unwrap_or(below))
    }
}

/// The mount of cgroup v2 in `/proc/self/mountinfo`.
pub(crate) fn cgroup2_mount(mountinfo: &str) -> Option<Mount> {
    mountinfo.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        if file_system.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let [root, at] =
            [fields.next()?, fields.next()?].map(|field| PathBuf::from(unescaped(field)));
        Some(Mount { at, root })
    })
}

/// The kernel writes blanks and backslashes in paths as `\040` and the like.
fn unescaped(field: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .into_iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(field.to_owned(), |field, (from, to)| field.replace(from, to))
}

const SYS_ADMIN: u32 = 21;
/// Bits of capabilities (include/uapi/linux/capability.h), their names, and whether CAP_SYS_ADMIN
/// includes them. CAP_NET_ADMIN is for socket programs and sockmaps, CAP_PERFMON for what the verifier
/// asks of programs that compare pointers.
const NEEDED: [(u32, &str, bool); 3] =
    [(12, "CAP_NET_ADMIN", false), (38, "CAP_PERFMON", true), (39, "CAP_BPF", true)];

/// The kernel opens the policy that is in force only for who has this (`BPF_MAP_GET_FD_BY_ID`).
const NEEDED_ON_A_NODE: [(u32, &str, bool); 1] = [(SYS_ADMIN, "CAP_SYS_ADMIN", false)];

/// include/uapi/linux/magic.h
const CGROUP2_SUPER_MAGIC: u32 = 0x6367_7270;
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
25 1 8:1 / / rw - ext4 /dev/root rw
30 25 0:26 / /sys/fs/cgroup rw,relatime shared:4 - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/my\\040unified rw,relatime shared:5 - cgroup2 cgroup2 rw
";

    #[test]
    fn each_capability_that_lacks_is_named() {
        let of = |mask: &str| capabilities(&format!("Name:\tx\nCapEff:\t{mask}\n"));
        assert_eq!(of("000001ffffffffff"), None);
        // Root without CAP_SYS_RESOURCE (24).
        assert_eq!(of("000001fffeffffff"), None);
        assert_eq!(of("0000000000201000"), None, "CAP_SYS_ADMIN includes two of them");
        assert_eq!(of("000000c000001000"), None, "the three are enough");
        assert_eq!(
            of("0000008000000000"),
            Some(Missing::Capabilities(vec!["CAP_NET_ADMIN", "CAP_PERFMON"]))
        );
        let all = of("0000000000000000").expect("all are missing").to_string();
        assert_eq!(all, "this process lacks CAP_NET_ADMIN and CAP_PERFMON and CAP_BPF");
    }

    #[test]
    fn the_mount_of_cgroup_v2_is_found_among_others() {
        let mount = cgroup2_mount(MOUNTINFO).expect("it is there");
        assert_eq!(mount.at, Path::new("/sys/fs/cgroup/my unified"));
        assert_eq!(cgroup2_mount("25 1 8:1 / / rw - ext4 /dev/root rw\n"), None);
    }

    #[test]
    fn a_cgroups_directory_is_below_what_is_mounted() {
        let mount = |root: &str| Mount { at: "/cg".into(), root: root.into() };
        assert_eq!(mount("/").directory("/a/b"), Path::new("/cg/a/b"));
        assert_eq!(mount("/a").directory("/a/b"), Path::new("/cg/b"));
        assert_eq!(mount("/").directory("/"), Path::new("/cg/"));
    }

    #[test]
    fn a_process_is_inside_of_its_cgroup_and_of_those_above() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().to_owned();
        fs::create_dir_all(at.join("a/b")).expect("folders");
        fs::create_dir_all(at.join("ab")).expect("folders");
        let mount = Mount { at: at.clone(), root: "/".into() };
        let found =
            |path: PathBuf, own: &str| inside(&path, &mount, &format!("5:cpu:/a\n0::{own}\n"));
        for outer in [at.clone(), at.join("a"), at.join("a/b"), at.join("ab/../a")] {
            assert!(found(outer.clone(), "/a/b").is_some(), "{outer:?}");
        }
        assert_eq!(found(at.join("a/b"), "/a"), None);
        assert_eq!(found(at.join("a"), "/ab"), None);
        assert_eq!(inside(&at, &mount, "5:cpu:/a\n"), None, "not in any of v2");
    }

    #[test]
    fn what_is_no_cgroup_says_where_one_would_be() {
        let mount = cgroup2_mount(MOUNTINFO);
        let folder = tempfile::tempdir().expect("a folder");
        let wrong = cgroup(folder.path(), mount.as_ref()).expect_err("not a cgroup");
        assert!(wrong.to_string().contains("it is not of cgroup v2"), "{wrong}");
        assert!(wrong.hint().contains("`/sys/fs/cgroup/my unified`"), "{}", wrong.hint());
        let absent = cgroup(&folder.path().join("no"), None).expect_err("not there");
        assert!(absent.hint().contains("mount -t cgroup2"), "{}", absent.hint());
    }

    #[test]
    fn a_folder_is_no_bpf_file_system() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(!is_of_type(folder.path(), BPF_FS_MAGIC));
        let hint = Missing::Bpffs("/sys/fs/bpf".into()).hint();
        assert_eq!(hint, "`mount -t bpf bpf /sys/fs/bpf` first");
    }
}
