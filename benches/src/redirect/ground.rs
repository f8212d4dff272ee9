//! Where it is measured: a network namespace in which `10.50.0.0/16` is local, a bpffs and two cgroups, one
//! that programs judge and one that nobody looks at.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;

const INSIDE: &str = "PORTREEVE_BENCH_INSIDE";

/// Two cgroups and a bpffs; gone with this value.
pub struct Ground {
    /// Where programs are pinned.
    pub bpffs: PathBuf,
    root: PathBuf,
}

impl Ground {
    /// Enters namespaces of its own, by starting this program again, and sets everything up.
    ///
    /// # Errors
    /// Without root, cgroup v2 or a kernel that has bpffs.
    pub fn enter() -> Result<Self, Failure> {
        if std::env::var_os(INSIDE).is_none() {
            let own = std::env::current_exe()?;
            let script = "ip link set lo up && ip addr add 10.50.0.1/32 dev lo && \
                          ip route add local 10.50.0.0/16 dev lo && exec \"$@\"";
            let error = Command::new("unshare")
                .args(["--net", "--mount", "sh", "-c", script, "sh"])
                .arg(own)
                .args(std::env::args_os().skip(1))
                .env(INSIDE, "1")
                .exec();
            return Err(format!("can't run unshare: {error}").into());
        }
        let mounts = fs::read_to_string("/proc/mounts")?;
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let mount = mount.and_then(|line| line.split(' ').nth(1)).ok_or("no cgroup v2 mounted")?;
        let root = Path::new(mount).join(format!("portreeve-bench-{}", std::process::id()));
        for cgroup in ["judged", "free"] {
            fs::create_dir_all(root.join(cgroup))?;
        }
        let bpffs = std::env::temp_dir().join(format!("portreeve-bench-{}", std::process::id()));
        fs::create_dir_all(&bpffs)?;
        let mounted = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&bpffs).status()?;
        if !mounted.success() {
            return Err("can't mount a bpffs".into());
        }
        Ok(Self { bpffs, root })
    }

    /// The cgroup that programs judge, or the other one.
    #[must_use]
    pub fn cgroup(&self, judged: bool) -> PathBuf {
        self.root.join(if judged { "judged" } else { "free" })
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.bpffs).status();
        let _ = fs::remove_dir(&self.bpffs);
        for cgroup in [self.cgroup(true), self.cgroup(false), self.root.clone()] {
            let _ = fs::remove_dir(cgroup);
        }
    }
}
