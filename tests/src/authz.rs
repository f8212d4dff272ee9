//! `portreeve authz serve` as a process, with a real Envoy or nginx that asks it.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::sidecar::binary;
use crate::upstream::Program;
use crate::{eventually, free_address, program};

/// Where Envoy is: `ENVOY`, the path, or what `tests/envoy/fetch` has brought.
#[must_use]
pub fn envoy() -> Option<PathBuf> {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/envoy/envoy");
    let named = std::env::var_os("ENVOY").map(PathBuf::from);
    named.or_else(|| program("envoy")).or(Some(fetched)).filter(|path| path.is_file())
}

/// A running authorization server, ended with this value.
pub struct Authz {
    child: Child,
    /// Where Envoy asks.
    pub grpc: SocketAddr,
    /// Where nginx asks.
    pub http: SocketAddr,
    folder: TempDir,
}

impl Authz {
    /// Starts it with a policy for `app=shop`; whoever is at 127.0.0.1 is `app=client`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(policy: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let policies = folder.path().join("policies");
        std::fs::create_dir(&policies).expect("a folder");
        std::fs::write(policies.join("policy.yaml"), policy).expect("the policy");
        let (grpc, http) = (free_address(), free_address());
        let child = Command::new(binary())
            .args(["authz", "serve", "--workload-labels", "app=shop", "--port", "80"])
            .args(["--peer", "127.0.0.1/32=app=client", "--listen", &grpc.to_string()])
            .args(["--http-listen", &http.to_string(), "--policy"])
            .arg(&policies)
            .args(more)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("stderr")).expect("a file"))
            .spawn()
            .expect("the binary runs");
        let mut authz = Self { child, grpc, http, folder };
        eventually("the authorization server to listen", || {
            if let Ok(Some(status)) = authz.child.try_wait() {
                panic!("it ended with {status}:\n{}", authz.messages());
            }
            TcpStream::connect(grpc).and_then(|_| TcpStream::connect(http)).ok()
        });
        authz
    }

    /// What it said on standard error.
    #[must_use]
    pub fn messages(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    /// Replaces its policy the way `mv` does, and waits until that was noticed.
    ///
    /// # Panics
    /// When the file can't be written, or nothing comes of it.
    pub fn replace_policy(&self, policy: &str) {
        let policies = self.folder.path().join("policies");
        let noticed = || self.messages().matches("reloaded").count();
        let before = noticed();
        std::fs::write(policies.join("new"), policy).expect("the policy");
        std::fs::rename(policies.join("new"), policies.join("policy.yaml")).expect("renamed");
        eventually("the new policy to be noticed", || (noticed() > before).then_some(()));
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("the process is there");
    }

    /// Asks it to end, and waits until it has.
    pub fn end(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        eventually("it to end", || self.child.try_wait().ok().flatten())
    }
}

impl Drop for Authz {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what the authorization server said\n{}", self.messages());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Envoy in front of `upstream`, asking `authz`; what its access log says is in `access.log`.
#[must_use]
pub fn envoy_asking(envoy: &Path, authz: SocketAddr, upstream: SocketAddr) -> Program {
    envoy_with(envoy, authz, upstream, "name: plain")
}

/// The same, with mutual TLS: clients have a certificate of the authority in `pki`.
///
/// # Panics
/// When `pki` is at no path that can be written down.
#[must_use]
pub fn envoy_with_tls(
    envoy: &Path,
    authz: SocketAddr,
    upstream: SocketAddr,
    pki: &Path,
) -> Program {
    let at = |name: &str| format!("{{filename: '{}'}}", pki.join(name).display());
    let tls = format!(
        "transport_socket: {{name: envoy.transport_sockets.tls, typed_config: {{\
         \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, \
         require_client_certificate: true, common_tls_context: {{\
         validation_context: {{trusted_ca: {ca}}}, \
         tls_certificates: [{{certificate_chain: {chain}, private_key: {key}}}]}}}}}}",
        ca = at("ca.pem"),
        chain = at("server.pem"),
        key = at("server.key"),
    );
    envoy_with(envoy, authz, upstream, &tls)
}

fn envoy_with(envoy: &Path, authz: SocketAddr, upstream: SocketAddr, tls: &str) -> Program {
    Program::start(|folder, address| {
        let cluster = |name: &str, at: SocketAddr, more: &str| {
            let (ip, port) = (at.ip(), at.port());
            format!(
                "  - name: {name}\n    type: STATIC\n    connect_timeout: 1s\n{more}    load_assignment:\n      \
                 cluster_name: {name}\n      endpoints: [{{lb_endpoints: [{{endpoint: {{address: \
                 {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}]}}]\n"
            )
        };
        let http2 = "    typed_extension_protocol_options:\n      \
            envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n        \
            \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n        \
            explicit_http_config: {http2_protocol_options: {}}\n";
        let config = include_str!("../envoy/envoy.yaml")
            .replace("@ADDRESS@", &address.ip().to_string())
            .replace("@PORT@", &address.port().to_string())
            .replace("@TLS@", tls)
            .replace("@LOG@", &folder.join("access.log").display().to_string())
            .replace(
                "@CLUSTERS@",
                &(cluster("shop", upstream, "") + &cluster("authz", authz, http2)),
            );
        std::fs::write(folder.join("envoy.yaml"), config).expect("a file");
        let mut command = Command::new(envoy);
        command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warn", "-c"]);
        command.arg(folder.join("envoy.yaml"));
        command
    })
}

/// nginx in front of `upstream`, asking `authz`, as its documentation has it.
#[must_use]
pub fn nginx_asking(nginx: &Path, authz: SocketAddr, upstream: SocketAddr) -> Program {
    Program::start(|folder, address| {
        let config = include_str!("../envoy/nginx.conf")
            .replace("@FOLDER@", &folder.display().to_string())
            .replace("@ADDRESS@", &address.to_string())
            .replace("@AUTHZ@", &authz.to_string())
            .replace("@UPSTREAM@", &upstream.to_string());
        std::fs::write(folder.join("nginx.conf"), config).expect("a file");
        let mut command = Command::new(nginx);
        command.arg("-c").arg(folder.join("nginx.conf")).arg("-p").arg(folder);
        command
    })
}
