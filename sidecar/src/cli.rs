//! Commands and flags.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::authz::AuthzCommand;
use crate::policy::Output;
use crate::redirect::{RedirectCommand, RunFlags};

const EXIT_CODES: &str = "\
Exit codes:
  0   ended in order
  1   failed, for instance an address is in use
  2   wrong usage
  78  the configuration or the policy has errors";

/// L7 policy for one workload: lets through what policy allows, and nothing else.
#[derive(Debug, Parser)]
#[command(name = "portreeve", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the sidecar, from a configuration file or from flags alone
    Run(Box<RunArguments>),
    /// See it work: an upstream, a policy, the proxy, and a dozen requests
    Demo(DemoArguments),
    /// Configuration files: a commented example, a check
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Policy files: check, test, explain and compare them before they are applied
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Turn a workload's connections to a proxy of another make; show redirections, and take them away
    Redirect(Box<RedirectCommand>),
    /// Decide for other proxies: Envoy's ext_authz, nginx's auth_request
    #[command(subcommand)]
    Authz(AuthzCommand),
    /// Print the version
    Version,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print a configuration file with every key, its default and what it is for
    Example,
    /// Check a configuration file and the policy it names
    Check {
        /// The file
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Find every error of policy files, and what is legal and surely not meant
    Check(PolicyCheckArguments),
    /// Run policy unit tests
    Test(PolicyTestArguments),
    /// Answer one question, and show the way to the answer
    Explain(Box<PolicyExplainArguments>),
    /// Show who gains and who loses access from one set of policies to another
    Diff(PolicyDiffArguments),
    /// Print the JSON Schema of a kind of policy
    Schema(PolicySchemaArguments),
}

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  portreeve policy explain --policy policies/ --workload-labels app=shop \\
      --peer-labels app=client --port 80 --method GET --path /private

  portreeve policy explain --policy policies/ --workload-labels app=client --direction egress \\
      --peer-address 198.51.100.7 --peer-name api.example.org --port 443 --sni api.example.org

Exit codes:
  0   answered, whatever the answer
  1   the policies have errors, or make no sense together
  2   wrong usage";

#[derive(Debug, Args)]
#[command(after_help = EXPLAIN_EXAMPLES)]
pub(crate) struct PolicyExplainArguments {
    /// Policy file, or folder of them (any number of times)
    #[arg(long, value_name = "PATH", required = true)]
    pub(crate) policy: Vec<PathBuf>,

    /// Labels of the workload under policy: `app=shop,env=prod`
    #[arg(long, value_name = "LABELS")]
    pub(crate) workload_labels: String,

    /// Namespace of the workload, and of a peer that names none
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) workload_namespace: String,

    /// Which way, as the workload sees it
    #[arg(long, value_name = "DIRECTION", default_value = "ingress", value_parser = ["ingress", "egress"])]
    pub(crate) direction: String,

    /// The peer's labels; `reserved:host` and the like are built-in identities
    #[arg(long, value_name = "LABELS", group = "peer", required_unless_present = "peer_address")]
    pub(crate) peer_labels: Option<String>,

    /// The peer's address, for who is outside
    #[arg(long, value_name = "ADDRESS", group = "peer")]
    pub(crate) peer_address: Option<IpAddr>,

    /// A DNS name that the address was learnt for (any number of times)
    #[arg(long, value_name = "NAME", requires = "peer_address")]
    pub(crate) peer_name: Vec<String>,

    /// The port, or the type of an ICMP message
    #[arg(long, value_name = "NUMBER")]
    pub(crate) port: u16,

    /// TCP, UDP, SCTP, ICMP, ICMPv6
    #[arg(long, value_name = "PROTOCOL", default_value = "TCP")]
    pub(crate) protocol: String,

    /// HTTP method
    #[arg(long, value_name = "METHOD")]
    pub(crate) method: Option<String>,

    /// HTTP request target, as it is on the wire
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,

    /// HTTP host
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,

    /// HTTP header field (any number of times)
    #[arg(long, value_name = "NAME: VALUE")]
    pub(crate) header: Vec<String>,

    /// Number of a Kafka API: 0 is produce, 1 is fetch
    #[arg(long, value_name = "NUMBER")]
    pub(crate) kafka_api: Option<i16>,

    /// Kafka topic (any number of times)
    #[arg(long, value_name = "TOPIC", requires = "kafka_api")]
    pub(crate) topic: Vec<String>,

    /// Consumer group
    #[arg(long, value_name = "GROUP", requires = "kafka_api")]
    pub(crate) group: Option<String>,

    /// What a Kafka client calls itself
    #[arg(long, value_name = "ID", requires = "kafka_api")]
    pub(crate) client_id: Option<String>,

    /// Name that is asked of DNS
    #[arg(long, value_name = "NAME")]
    pub(crate) dns: Option<String>,

    /// Server name of a TLS connection
    #[arg(long, value_name = "NAME")]
    pub(crate) sni: Option<String>,

    /// How the answer is printed
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

const DIFF_EXAMPLES: &str = "\
Examples:
  portreeve policy diff policies.old/ policies.new/
  git show HEAD:shop.yaml > /tmp/old.yaml && portreeve policy diff /tmp/old.yaml shop.yaml

Exit codes:
  0   no answer changes
  1   some do, or a set has errors
  2   wrong usage";

#[derive(Debug, Args)]
#[command(after_help = DIFF_EXAMPLES)]
pub(crate) struct PolicyDiffArguments {
    /// The policies as they are: a file or a folder
    #[arg(value_name = "OLD")]
    pub(crate) old: PathBuf,

    /// The policies as they are to be
    #[arg(value_name = "NEW")]
    pub(crate) new: PathBuf,

    /// How differences are printed
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct PolicySchemaArguments {
    /// The kind
    #[arg(value_name = "KIND", value_parser = ["CiliumNetworkPolicy", "TrafficPolicy"])]
    pub(crate) kind: String,
}

const CHECK_EXAMPLES: &str = "\
Examples:
  portreeve policy check policies/
  portreeve policy check --output json shop.yaml | jq -r 'select(.severity == \"error\").message'

Exit codes:
  0   no errors; there may be warnings
  1   errors
  2   wrong usage";

#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub(crate) struct PolicyCheckArguments {
    /// Policy files, or folders of them; they are checked as one set
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,

    /// How results are printed
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,

    /// Know `fromNodes` and `toNodes`
    #[arg(long)]
    pub(crate) node_selectors: bool,

    /// Know IP protocols without ports, such as GRE
    #[arg(long)]
    pub(crate) extended_protocols: bool,
}

const TEST_EXAMPLES: &str = "\
Examples:
  portreeve policy test tests/*.yaml
  portreeve policy test --output json shop-test.yaml

A file of cases:
  cases:
  - id: clients may read
    policies: [shop.yaml]                      # paths, or the policies themselves
    endpoints:
    - {name: shop, namespace: default, labels: ['k8s:app=shop'], ips: [10.0.0.1]}
    - {name: client, namespace: default, labels: ['k8s:app=client'], ips: [10.0.0.2]}
    queries:
    - {direction: ingress, subject: shop, peer: {endpoint: client}, protocol: TCP, port: 80,
       l7: {http: {method: GET, path: /public/a}}, expect: l7-allow}

Exit codes:
  0   all passed
  1   something failed
  2   wrong usage";

#[derive(Debug, Args)]
#[command(after_help = TEST_EXAMPLES)]
pub(crate) struct PolicyTestArguments {
    /// Files of cases
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,

    /// How results are printed
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,

    /// Show every question, those that passed too
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

const RUN_EXAMPLES: &str = "\
Examples:
  portreeve run --config sidecar.yaml

  portreeve run --policy policies/ --workload-labels app=shop,env=prod \\
      --peer 127.0.0.0/8=app=client --listen 127.0.0.1:15001 --upstream 127.0.0.1:8080

  # Traffic that nftables redirects here goes on to where it wanted to go:
  portreeve run --policy policies/ --workload-labels app=shop --listen '[::]:15006' --transparent

  # Programs inside of the kernel judge the connections of a cgroup, and turn here what has to be read:
  portreeve run --policy policies/ --workload-labels app=shop --redirect ebpf \\
      --cgroup /sys/fs/cgroup/shop

Signals:
  HUP        read policy and services again, open the access log again
  USR1       open the access log again
  TERM, INT  accept nothing more, let connections finish, then end; a second one ends at once

Exit codes:
  0   ended in order
  1   failed, for instance an address is in use
  2   wrong usage
  78  the configuration or the policy has errors";

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunArguments {
    /// Configuration file; `portreeve config example` prints one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["policy", "listen", "upstream", "transparent", "policy_port", "workload_labels", "workload_namespace", "peer", "advertised"])]
    pub(crate) config: Option<PathBuf>,

    /// Policy file, or folder of them (any number of times)
    #[arg(long, value_name = "PATH", required_unless_present = "config")]
    pub(crate) policy: Vec<PathBuf>,

    /// Labels of the workload under policy: `app=shop,env=prod`
    #[arg(long, value_name = "LABELS", required_unless_present = "config")]
    pub(crate) workload_labels: Option<String>,

    /// Namespace of the workload, and of peers that name none
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) workload_namespace: String,

    /// Who has these addresses: `10.0.0.0/8=app=client,env=prod` (any number of times); who is not named is `world`
    #[arg(long, value_name = "PREFIX=LABELS")]
    pub(crate) peer: Vec<String>,

    /// Where to listen
    #[arg(long, value_name = "ADDRESS", required_unless_present_any = ["config", "redirect"])]
    pub(crate) listen: Option<SocketAddr>,

    /// Where the workload listens
    #[arg(long, value_name = "ADDRESS", conflicts_with = "transparent", required_unless_present_any = ["config", "transparent", "redirect"])]
    pub(crate) upstream: Option<String>,

    /// Take the upstream from redirected connections [possible values: auto, redirect, tproxy]
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "auto")]
    pub(crate) transparent: Option<String>,

    /// The port that policy sees [default: the upstream's]
    #[arg(long, value_name = "PORT")]
    pub(crate) policy_port: Option<u16>,

    #[command(flatten)]
    pub(crate) redirect: RunFlags,

    /// What Kafka clients are told in place of a broker's address, or of every broker's (any number of times)
    #[arg(long, value_name = "[BROKER=]HOST:PORT")]
    pub(crate) advertised: Vec<String>,

    /// Deny nothing; mark what would be denied
    #[arg(long)]
    pub(crate) audit: bool,

    /// Where the admin server listens, or `off` [default: 127.0.0.1:15000]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin: Option<String>,

    /// Which requests are logged: all, denied, off [default: all]
    #[arg(long, value_name = "WHICH")]
    pub(crate) access_log: Option<String>,

    /// Where they are logged: a file, or `stdout`, or `stderr` [default: stdout]
    #[arg(long, value_name = "FILE")]
    pub(crate) access_log_to: Option<PathBuf>,

    /// Worker threads [default: as many as cores]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) workers: Option<NonZeroUsize>,

    #[command(flatten)]
    pub(crate) log: LogArguments,
}

#[derive(Debug, Args)]
pub(crate) struct LogArguments {
    /// Messages on standard error: error, warn, info, debug, trace, or a filter such as `info,portreeve_core=debug`; the environment variable PORTREEVE_LOG is the default
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,

    /// Their form: text or json
    #[arg(long, value_name = "FORM", default_value = "text", value_parser = ["text", "json"])]
    pub(crate) log_format: String,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// What is spoken
    #[arg(value_enum, default_value_t)]
    pub(crate) protocol: DemoProtocol,

    /// End after the table
    #[arg(long)]
    pub(crate) once: bool,
}

/// What the demo speaks.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum DemoProtocol {
    /// GET /public/.* and nothing else
    #[default]
    Http,
    /// service1 may produce to topic1, service2 may consume from it
    Kafka,
}
