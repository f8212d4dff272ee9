//! Flags of `portreeve authz serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::LogArguments;

#[derive(Debug, Subcommand)]
pub(crate) enum AuthzCommand {
    /// Answer Envoy (ext_authz over gRPC) and nginx (auth_request) whether a request may pass
    Serve(Box<ServeArguments>),
}

const EXAMPLES: &str = "\
Examples:
  # For Envoy, Istio, Contour: ext_authz, with failure_mode_allow off
  portreeve authz serve --policy policies/ --workload-labels app=shop \\
      --peer 10.0.0.0/8=app=client --listen 127.0.0.1:9191

  # For nginx: auth_request, with X-Original-Method, X-Original-URI and X-Real-IP set by nginx
  portreeve authz serve --policy policies/ --workload-labels app=shop --port 80 \\
      --peer 10.0.0.0/8=app=client --http-listen 127.0.0.1:9192

  # Callers by the SPIFFE ids that Envoy has verified by mutual TLS
  portreeve authz serve --config sidecar.yaml --trust-domain cluster.local --listen 127.0.0.1:9191

Only the proxy may reach these ports: whoever asks says who is asking. See docs/embedding.md.

Signals:
  HUP        read policy again
  TERM, INT  accept nothing more, let checks finish, then end; a second one ends at once

Exit codes:
  0   ended in order
  1   failed, for instance an address is in use
  2   wrong usage
  78  the configuration or the policy has errors";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArguments {
    /// The sidecar's configuration file, for its workload, peers and policy
    #[arg(long, value_name = "FILE", conflicts_with_all = ["policy", "workload_labels", "workload_namespace", "peer"])]
    pub(crate) config: Option<PathBuf>,

    /// Policy file, or folder of them (any number of times); read again when they change
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

    /// SPIFFE trust domain whose ids, as Envoy has verified them, say who asks (any number of times)
    #[arg(long, value_name = "NAME")]
    pub(crate) trust_domain: Vec<String>,

    /// Which way, as the workload sees it
    #[arg(long, value_name = "DIRECTION", default_value = "ingress", value_parser = ["ingress", "egress"])]
    pub(crate) direction: String,

    /// The port that policy sees [default: the one that Envoy names]
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,

    /// Where Envoy asks, over gRPC
    #[arg(long, value_name = "ADDRESS", required_unless_present = "http_listen")]
    pub(crate) listen: Option<SocketAddr>,

    /// Where nginx asks, over HTTP; it names no port, so `--port` must
    #[arg(long, value_name = "ADDRESS", requires = "port")]
    pub(crate) http_listen: Option<SocketAddr>,

    /// Deny nothing; mark what would be denied
    #[arg(long)]
    pub(crate) audit: bool,

    #[command(flatten)]
    pub(crate) log: LogArguments,
}
