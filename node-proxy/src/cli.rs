//! Commands and flags.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;

use crate::api::{BpfTable, WatchType};
use crate::config::Admin;

const EXIT_CODES: &str = "\
Exit codes:
  0   done, or ended in order
  1   failed, or what was asked for is not there
  2   wrong usage
  3   the daemon is not running
  78  the configuration, the objects or the kept state have errors";

/// Policy, identities and services of all workloads of a node.
#[derive(Debug, Parser)]
#[command(name = "portreeve-node", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const STATUS_EXAMPLES: &str = "\
Examples:
  portreeve-node status
  portreeve-node status --output json | jq -e '.enforcing and .settled'";

const MONITOR_EXAMPLES: &str = "\
Examples:
  portreeve-node monitor
  portreeve-node monitor --type drop --endpoint default/shop-1
  portreeve-node monitor --type open --type drop
  portreeve-node monitor --type l7 --endpoint shop-1
  portreeve-node monitor --output json | jq -r 'select(.event == \"dropped\") | .source.address'";

const ENDPOINT_EXAMPLES: &str = "\
Examples:
  portreeve-node endpoint list
  portreeve-node endpoint list --output json | jq -r '.[] | select(.realised != .revision).name'";

const SERVICE_EXAMPLES: &str = "\
Examples:
  portreeve-node service list
  portreeve-node service list --output json | jq -r '.[] | select(.backends == []).name'";

const IDENTITY_EXAMPLES: &str = "\
Examples:
  portreeve-node identity list
  portreeve-node identity list --output json | jq '.[] | select(.identity == 256).labels'";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon of a node
    Run(Box<RunArguments>),
    /// Show what there is, in numbers, and what is wrong
    #[command(after_help = STATUS_EXAMPLES)]
    Status(AskArguments),
    /// Show workloads of this node
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// Show what an endpoint may do with whom
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Show services and who is behind them
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Show identities and the labels they stand for
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Show tables of the datapath
    Bpf(Box<BpfArguments>),
    /// Remove the programs, the maps and the device of an instance: nothing is judged any more
    #[command(after_help = DETACH_EXAMPLES)]
    Detach(DetachArguments),
    /// Show what happens, as it happens
    #[command(after_help = MONITOR_EXAMPLES)]
    Monitor(MonitorArguments),
    /// Configuration files: a commented example, a check
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the version
    Version,
}

#[derive(Debug, Args)]
pub(crate) struct MonitorArguments {
    /// Only what is about this endpoint: `namespace/name`, its number, or its name
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) endpoint: Option<String>,

    /// Only this, and may be given several times [default: drop and change]
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    pub(crate) types: Vec<WatchType>,

    #[command(flatten)]
    pub(crate) ask: AskArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EndpointCommand {
    /// All of them
    #[command(after_help = ENDPOINT_EXAMPLES)]
    List(AskArguments),
    /// One, with all that is known of it
    Get(AskEndpointArguments),
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Of one endpoint: who may do what, and by which rule
    Get(AskEndpointArguments),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// All of them
    #[command(after_help = SERVICE_EXAMPLES)]
    List(AskArguments),
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// All of them
    #[command(after_help = IDENTITY_EXAMPLES)]
    List(AskArguments),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print a configuration file with every key, its default and what it is for
    Example,
    /// Check a configuration file, and every object of the folder it names
    #[command(after_help = CHECK_LIMITS)]
    Check {
        /// The file
        file: PathBuf,
    },
}

const CHECK_LIMITS: &str = "\
Looks at what is written, and whether the places are there that `kernel.cgroup` and
`access_log.to` name; changes nothing. Does not look at what only `run` finds out: privileges,
the bpf file system, other instances, whether `admin` and `socket` can be listened on and the
log be written, devices and interfaces, the kept state.

Exit codes:
  0   good
  2   wrong usage
  78  there are errors";

const BPF_EXAMPLES: &str = "\
Examples:
  portreeve-node bpf ipcache list
  portreeve-node bpf policy list --endpoint shop-1
  portreeve-node bpf ct list --limit 1000000
  portreeve-node bpf policy list --output json | jq '.rows | length'";

#[derive(Debug, Args)]
#[command(after_help = BPF_EXAMPLES)]
pub(crate) struct BpfArguments {
    /// The table
    #[arg(value_enum, value_name = "TABLE")]
    pub(crate) table: BpfTable,

    /// What to do with it
    #[arg(value_name = "ACTION", value_parser = ["list"])]
    pub(crate) action: String,

    /// Only what is this endpoint's, of `policy` and `ct`: `namespace/name`, its number, or its name
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) endpoint: Option<String>,

    /// So many rows at most
    #[arg(long, value_name = "ROWS", default_value_t = crate::api::ROWS)]
    pub(crate) limit: usize,

    #[command(flatten)]
    pub(crate) ask: AskArguments,
}

const DETACH_EXAMPLES: &str = "\
Examples:
  portreeve-node detach
  portreeve-node detach --instance blue

Exit codes:
  0   removed, or there was nothing
  1   failed, for instance the daemon still runs
  2   wrong usage";

#[derive(Debug, Args)]
pub(crate) struct DetachArguments {
    /// What everything is pinned under: `kernel.instance`
    #[arg(long, value_name = "NAME", default_value = crate::config::INSTANCE)]
    pub(crate) instance: String,

    /// Where a bpf file system is mounted: `kernel.bpffs`
    #[arg(long, value_name = "DIR", default_value = crate::config::BPFFS)]
    pub(crate) bpffs: PathBuf,
}

const GET_EXAMPLES: &str = "\
Examples:
  portreeve-node endpoint get default/shop-1
  portreeve-node policy get shop-1 --output json | jq '.[] | select(.direction == \"ingress\")'";

#[derive(Debug, Args)]
#[command(after_help = GET_EXAMPLES)]
pub(crate) struct AskEndpointArguments {
    /// `namespace/name`, its number, or its name when only one is called so
    #[arg(value_name = "ENDPOINT")]
    pub(crate) endpoint: String,

    #[command(flatten)]
    pub(crate) ask: AskArguments,
}

/// How the daemon is asked.
#[derive(Clone, Debug, Args)]
pub(crate) struct AskArguments {
    /// The daemon's socket
    #[arg(long, value_name = "PATH", default_value = crate::config::SOCKET)]
    pub(crate) socket: PathBuf,

    /// How the answer is printed
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// What carries policy out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DatapathKind {
    /// Programs inside of the kernel.
    #[default]
    Ebpf,
    /// Nothing.
    None,
}

const RUN_EXAMPLES: &str = "\
Examples:
  portreeve-node run --config node.yaml

  # Without programs inside of the kernel: identities and policies are computed, nothing is enforced.
  portreeve-node run --objects objects/ --state /tmp/state --socket /tmp/node.sock --datapath none

Signals:
  HUP        read all objects again; log files are opened again
  USR1       log files are opened again: they were rotated
  TERM, INT  let connections finish, then end; a second one ends at once

Exit codes:
  0   ended in order
  1   failed, for instance there is no datapath
  2   wrong usage
  78  the configuration, the objects or the kept state have errors";

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunArguments {
    /// Configuration file; `portreeve-node config example` prints one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["objects", "state", "socket", "node", "datapath", "admin"])]
    pub(crate) config: Option<PathBuf>,

    /// Folder of objects: policies, workloads, services, namespaces
    #[arg(long, value_name = "DIR", required_unless_present = "config")]
    pub(crate) objects: Option<PathBuf>,

    /// Where identities are kept across restarts [default: /var/lib/portreeve/node]
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,

    /// The status socket [default: /run/portreeve/node.sock]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,

    /// What this node is called in EndpointSlices [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,

    /// What carries policy out [default: ebpf]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) datapath: Option<DatapathKind>,

    /// Where metrics and health of the shared proxy are, or `off` [default: 127.0.0.1:15000]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin: Option<Admin>,

    #[command(flatten)]
    pub(crate) log: LogArguments,
}

#[derive(Debug, Args)]
pub(crate) struct LogArguments {
    /// Messages on standard error: error, warn, info, debug, trace, or a filter such as `info,portreeve_node=debug`; the environment variable PORTREEVE_LOG is the default
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,

    /// Their form: text or json
    #[arg(long, value_name = "FORM", default_value = "text", value_parser = ["text", "json"])]
    pub(crate) log_format: String,
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::path::Path;

    use clap::CommandFactory;

    use super::*;

    /// `help.txt` has what `--help` says; set `UPDATE_EXPECTED=1` to write it anew.
    #[test]
    fn help_is_as_it_was_read_over() {
        let mut command = Cli::command().term_width(100);
        command.build();
        let mut said = String::new();
        write_help(&mut command, "portreeve-node", &mut said);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/help.txt");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(&path, &said).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(said, expected, "run `UPDATE_EXPECTED=1 cargo test -p portreeve-node`");
    }

    fn write_help(command: &mut clap::Command, path: &str, said: &mut String) {
        writeln!(said, "$ {path} --help\n{}", command.render_help()).unwrap();
        for below in command.get_subcommands_mut() {
            write_help(below, &format!("{path} {}", below.get_name()), said);
        }
    }

    #[test]
    fn flags_that_belong_together_are_asked_for_together() {
        for (arguments, is_right) in [
            (&["run", "--config", "node.yaml"][..], true),
            (&["run", "--objects", "o"], true),
            (&["run", "--objects", "o", "--datapath", "none", "--node", "n"], true),
            (&["run"], false),
            (&["run", "--config", "node.yaml", "--objects", "o"], false),
            (&["run", "--config", "node.yaml", "--datapath", "none"], false),
            (&["run", "--objects", "o", "--admin", "off"], true),
            (&["run", "--objects", "o", "--admin", "15000"], false),
            (&["detach", "--instance", "blue"], true),
            (&["bpf", "ipcache", "list"], true),
            (&["bpf", "ipcache", "delete"], false),
            (&["bpf", "ct", "list", "--endpoint", "shop", "--limit", "5", "-o", "json"], true),
            (&["bpf", "everything", "list"], false),
            (&["endpoint", "get"], false),
            (&["endpoint", "get", "shop", "--output", "json"], true),
            (&["endpoint", "get", "shop", "-o", "json"], true),
            (&["monitor", "--type", "l7", "-o", "json"], true),
        ] {
            let all = std::iter::once("portreeve-node").chain(arguments.iter().copied());
            assert_eq!(Cli::try_parse_from(all).is_ok(), is_right, "{arguments:?}");
        }
    }
}
