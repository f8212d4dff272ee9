//! Network namespaces, by names that are unique on this machine: `place` is what a test calls one.
//! Nothing in them reaches this machine's own network.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{eventually, needed};

/// How many bytes a server says that is asked for much: more than any queue on the way has room for.
pub const MUCH: usize = 1 << 20;

/// Namespaces and what runs in them; all is gone with this value.
pub struct Net {
    prefix: String,
    places: Vec<String>,
    processes: Vec<Child>,
}

impl Net {
    /// Namespaces with only a loopback interface each.
    ///
    /// # Panics
    /// When they can't be made.
    #[must_use]
    pub fn new(places: &[&str]) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("pnode{}-{number}-", std::process::id());
        let mut net = Self { prefix, places: Vec::new(), processes: Vec::new() };
        for place in places {
            net.add(place);
        }
        net
    }

    /// Adds a namespace.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn add(&mut self, place: &str) {
        self.places.push(place.to_owned());
        succeed(Command::new(needed("ip")).args(["netns", "add", &self.name(place)]));
        self.ip(place, "link set lo up");
    }

    /// Removes a namespace, and with it its end of every cable.
    ///
    /// # Panics
    /// When it can't be removed.
    pub fn remove(&mut self, place: &str) {
        self.places.retain(|there| there != place);
        succeed(Command::new(needed("ip")).args(["netns", "del", &self.name(place)]));
    }

    /// What the system calls a place.
    #[must_use]
    pub fn name(&self, place: &str) -> String {
        format!("{}{place}", self.prefix)
    }

    /// Runs `ip` in a place, with a command in each line.
    ///
    /// # Panics
    /// When one of them fails.
    pub fn ip(&self, place: &str, commands: &str) {
        self.batch(&["-n", &self.name(place)], commands);
    }

    /// The same for IPv6, where a command's addresses do not say it.
    ///
    /// # Panics
    /// When a command fails.
    pub fn ip6(&self, place: &str, commands: &str) {
        self.batch(&["-6", "-n", &self.name(place)], commands);
    }

    fn batch(&self, arguments: &[&str], commands: &str) {
        let mut ip = Command::new(needed("ip"));
        ip.args(arguments).args(["-batch", "-"]);
        let mut ip = ip.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ip runs");
        let mut input = ip.stdin.take().expect("piped");
        input.write_all(commands.as_bytes()).expect("it reads");
        drop(input);
        let output = ip.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments:?}: {said}\n{commands}");
    }

    /// A cable between two places, up at both ends.
    ///
    /// # Panics
    /// When it can't be laid.
    pub fn cable(&self, (one, its): (&str, &str), (other, others): (&str, &str)) {
        let far = self.name(other);
        self.ip(one, &format!("link add {its} type veth peer name {others} netns {far}"));
        self.ip(one, &format!("link set dev {its} up"));
        self.ip(other, &format!("link set dev {others} up"));
    }

    /// A cable from a node to a workload that has these addresses and knows nothing of its neighbours:
    /// everything goes by the node, which routes it. Its end of the cable is `eth0`.
    ///
    /// # Panics
    /// When it can't be laid.
    pub fn routed(&self, node: &str, cable: &str, place: &str, v4: &str, v6: &str) {
        self.cable((place, "eth0"), (node, cable));
        self.ip(
            place,
            &format!(
                "addr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad\n\
                 route add 169.254.1.1 dev eth0\nroute add default via 169.254.1.1\n\
                 route add ::/0 via fe80::1 dev eth0\n"
            ),
        );
        self.ip(
            node,
            &format!(
                "addr add 169.254.1.1/32 dev {cable}\naddr add fe80::1/64 dev {cable} nodad\n\
                 route add {v4}/32 dev {cable}\nroute add {v6}/128 dev {cable}\n"
            ),
        );
    }

    /// A bridge of a node, `br0`. The node has the first address of its networks, such as `10.60.0` and `fd60:`,
    /// and routes for who is on it.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn bridge(&self, node: &str, v4: &str, v6: &str) {
        self.ip(
            node,
            &format!(
                "link add br0 type bridge\nlink set br0 up\n\
                 addr add {v4}.1/24 dev br0\naddr add {v6}:1/64 dev br0 nodad\n"
            ),
        );
    }

    /// A cable from a node's [`bridge`](Self::bridge) to a workload that has the address `last` of its networks.
    /// Its end of the cable is `eth0`.
    ///
    /// # Panics
    /// When it can't be laid.
    pub fn bridged(&self, node: &str, cable: &str, place: &str, (v4, v6): (&str, &str), last: u8) {
        self.cable((place, "eth0"), (node, cable));
        self.ip(node, &format!("link set {cable} master br0\n"));
        self.ip(
            place,
            &format!(
                "addr add {v4}.{last}/24 dev eth0\naddr add {v6}:{last}/64 dev eth0 nodad\n\
                 route add default via {v4}.1\nroute add ::/0 via {v6}:1\n"
            ),
        );
    }

    /// Lets a place route for others.
    ///
    /// # Panics
    /// When it may not.
    pub fn forward(&self, place: &str) {
        self.set(place, "net/ipv4/ip_forward", "1");
        self.set(place, "net/ipv6/conf/all/forwarding", "1");
    }

    /// Sets something below `/proc/sys` of a place.
    ///
    /// # Panics
    /// When it can't be set.
    pub fn set(&self, place: &str, what: &str, value: &str) {
        let path = Path::new("/proc/sys").join(what);
        self.on(place, || std::fs::write(&path, value)).expect("it can be set");
    }

    /// Does something in a place, on a thread that ends with it.
    ///
    /// # Panics
    /// When it panics.
    pub fn on<R: Send>(&self, place: &str, run: impl FnOnce() -> R + Send) -> R {
        on(&self.path(place), run)
    }

    /// The file that is a place's namespace.
    #[must_use]
    pub fn path(&self, place: &str) -> PathBuf {
        Path::new("/run/netns").join(self.name(place))
    }

    /// A program in a place, with the mounts of this process: `ip netns exec` would hide them.
    #[must_use]
    pub fn inside(&self, place: &str, program: &Path) -> Command {
        inside(&self.path(place), program)
    }

    /// Starts something that ends with this value.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn spawn(&mut self, command: &mut Command) {
        self.processes.push(command.spawn().expect("it runs"));
    }

    /// nginx in a place, on these ports of both families: it says who asks, and [`MUCH`] to who asks for
    /// `/public/much`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn nginx(&mut self, place: &str, folder: &Path, ports: &[u16]) {
        let folder = folder.join(place);
        std::fs::create_dir(&folder).expect("a folder");
        let listen = |port: &u16| format!("listen {port}; listen [::]:{port}; ");
        let listen: String = ports.iter().map(listen).collect();
        let config = format!(
            "daemon off; master_process off; error_log stderr; pid nginx.pid;\nevents {{}}\nhttp {{\n  access_log off;\n  \
             server {{ {listen} root .; location / {{ return 200 $remote_addr; }} \
             location = /public/much {{ try_files /much =404; }} }}\n}}\n"
        );
        std::fs::write(folder.join("much"), "much".repeat(MUCH / 4)).expect("a file");
        std::fs::write(folder.join("nginx.conf"), config).expect("a file");
        let mut nginx = self.inside(place, &needed("nginx"));
        nginx.arg("-p").arg(&folder).arg("-c").arg(folder.join("nginx.conf"));
        self.spawn(nginx.stderr(Stdio::null()));
        eventually("nginx", || {
            (self.status(place, "127.0.0.1", ports[0], "/") == "200").then_some(())
        });
    }

    /// The status of an answer, or `refused`: at once, or where somebody has it already.
    #[must_use]
    pub fn status(&self, from: &str, server: &str, port: u16, path: &str) -> String {
        let arguments = ["--output", "/dev/null", "--write-out", "%{http_code}"];
        self.curl(from, server, port, path, &arguments)
    }

    /// The body of an answer, or what became of the connection.
    #[must_use]
    pub fn body(&self, from: &str, server: &str, port: u16, path: &str) -> String {
        self.curl(from, server, port, path, &[])
    }

    fn curl(&self, from: &str, server: &str, port: u16, path: &str, more: &[&str]) -> String {
        let mut curl = self.inside(from, &needed("curl"));
        curl.args(["--silent", "--max-time", "5"]).args(more);
        curl.arg(format!("http://{server}:{port}{path}"));
        let output = curl.stdout(Stdio::piped()).output().expect("curl runs");
        match output.status.code() {
            Some(0) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Some(7) => "refused".to_owned(),
            code => format!("curl ended with {code:?}"),
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        for place in &self.places {
            let _ = Command::new(needed("ip")).args(["netns", "del", &self.name(place)]).status();
        }
    }
}

/// [`Net::on`], by the file that is the namespace.
///
/// # Panics
/// When `run` does.
pub fn on<R: Send>(namespace: &Path, run: impl FnOnce() -> R + Send) -> R {
    let namespace = File::open(namespace).expect("it is there");
    let inside = || {
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), kind).expect("entered");
        run()
    };
    std::thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| {
        std::panic::resume_unwind(panic);
    })
}

/// [`Net::inside`], by the file that is the namespace.
#[must_use]
pub fn inside(namespace: &Path, program: &Path) -> Command {
    let mut command = Command::new(needed("nsenter"));
    command.arg(format!("--net={}", namespace.display())).arg(program);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Runs a command that has to succeed.
///
/// # Panics
/// When it doesn't.
pub fn succeed(command: &mut Command) {
    let output = command.output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
