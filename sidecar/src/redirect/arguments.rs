//! Flags of `portreeve redirect`, and those of `portreeve run` that are about redirection.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{BPFFS, InstanceName};
use crate::policy::Output;

/// Flags of `portreeve run`.
#[derive(Debug, Args)]
pub(crate) struct RunFlags {
    /// Have programs inside of the kernel turn to the proxy what it has to read: `ebpf`; without `--listen` and `--upstream`
    #[arg(long, value_name = "HOW", value_parser = ["ebpf"], conflicts_with_all = ["listen", "upstream", "transparent", "policy_port", "advertised"])]
    pub(crate) redirect: Option<String>,

    /// The workload: every process in this cgroup (v2), the proxy not among them
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup: Option<PathBuf>,

    /// What the redirection is called [default: by the cgroup's path]
    #[arg(long, value_name = "NAME")]
    pub(crate) instance: Option<InstanceName>,

    /// Where a bpf file system is mounted [default: /sys/fs/bpf]
    #[arg(long, value_name = "PATH")]
    pub(crate) bpffs: Option<PathBuf>,

    /// Connections to loopback: `judge` them, or they are the workload's `own` [default: judge]
    #[arg(long, value_name = "HOW", value_parser = ["judge", "own"])]
    pub(crate) loopback: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  # All TCP connections that the processes of a cgroup open go to an Envoy with `original_dst`:
  portreeve redirect --to 127.0.0.1:15001 --cgroup /sys/fs/cgroup/shop

  # Denied is refused in the kernel, allowed goes straight out, the rest goes to the proxy:
  portreeve redirect --to 127.0.0.1:15001 --cgroup /sys/fs/cgroup/shop --policy policies/ \\
      --workload-labels app=shop --peer 10.0.0.0/8=app=db

  # What is set up here, and an end of it:
  portreeve redirect status
  portreeve redirect detach --instance shop-1a2b3c4d

It sets up and returns; run again it puts the new policy in force, at once for all new connections.
Connections to the workload are not touched. The proxy has to run outside of the cgroup. See docs/ebpf.md.

Exit codes:
  0   in force
  1   failed: nothing is attached that was not attached before
  2   wrong usage
  78  the policy has errors";

/// `portreeve redirect`.
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true
)]
pub(crate) struct RedirectCommand {
    #[command(subcommand)]
    pub(super) action: Option<Action>,

    #[command(flatten)]
    pub(super) to: ToArguments,
}

/// What else can be done.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Show what is set up on this host, whether a proxy runs or not
    Status(StatusArguments),
    /// Take a redirection away: the workload is free
    Detach(DetachArguments),
}

#[derive(Debug, Args)]
pub(super) struct ToArguments {
    /// Where the proxy listens (once for each address family); it asks for SO_ORIGINAL_DST
    #[arg(long, value_name = "ADDRESS", required = true)]
    pub(super) to: Vec<SocketAddr>,

    /// The workload: every process in this cgroup (v2), the proxy not among them
    #[arg(long, value_name = "PATH", required = true)]
    pub(super) cgroup: Option<PathBuf>,

    /// The proxy's cgroup, whose processes may ask for original destinations [default: all cgroups]
    #[arg(long, value_name = "PATH")]
    pub(super) proxy_cgroup: Option<PathBuf>,

    /// Policy file, or folder of them (any number of times); without, the proxy gets every connection
    #[arg(long, value_name = "PATH", requires = "workload_labels")]
    pub(super) policy: Vec<PathBuf>,

    /// Labels of the workload under policy: `app=shop,env=prod`
    #[arg(long, value_name = "LABELS", requires = "policy")]
    pub(super) workload_labels: Option<String>,

    /// Namespace of the workload, and of peers that name none
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(super) workload_namespace: String,

    /// Who has these addresses: `10.0.0.0/8=app=db,env=prod` (any number of times); who is not named is `world`
    #[arg(long, value_name = "PREFIX=LABELS")]
    pub(super) peer: Vec<String>,

    /// What the redirection is called [default: by the cgroup's path]
    #[arg(long, value_name = "NAME")]
    pub(super) instance: Option<InstanceName>,

    /// Connections to loopback: `judge` them, or they are the workload's `own`
    #[arg(long, value_name = "HOW", default_value = "judge", value_parser = ["judge", "own"])]
    pub(super) loopback: String,

    #[command(flatten)]
    pub(super) place: Place,
}

#[derive(Debug, Args)]
pub(super) struct Place {
    /// Where a bpf file system is mounted
    #[arg(long, value_name = "PATH", default_value = BPFFS)]
    pub(super) bpffs: PathBuf,
}

const STATUS_EXAMPLES: &str = "\
Examples:
  portreeve redirect status
  portreeve redirect status --output json | jq -r 'select(.condition != \"in_force\").instance'

Exit codes:
  0   all that is shown is in force; or nothing is set up
  1   failed, for instance there is no such instance
  2   wrong usage
  3   something that is shown is not in force: closed, half built, or without its workload";

#[derive(Debug, Args)]
#[command(after_help = STATUS_EXAMPLES)]
pub(super) struct StatusArguments {
    /// Only this one
    #[arg(long, value_name = "NAME")]
    pub(super) instance: Option<InstanceName>,

    /// How it is shown
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: Output,

    #[command(flatten)]
    pub(super) place: Place,
}

const DETACH_EXAMPLES: &str = "\
Examples:
  portreeve redirect detach --instance shop-1a2b3c4d
  portreeve redirect detach --all

Connections that are open go on, those through the proxy as long as it runs. New ones go where the
workload sends them, unjudged.

Exit codes:
  0   taken away; with --all also if there was nothing
  1   failed, for instance there is no such instance
  2   wrong usage";

#[derive(Debug, Args)]
#[command(after_help = DETACH_EXAMPLES)]
pub(super) struct DetachArguments {
    /// Which one
    #[arg(long, value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    pub(super) instance: Option<InstanceName>,

    /// All of this host
    #[arg(long)]
    pub(super) all: bool,

    #[command(flatten)]
    pub(super) place: Place,
}
