//! Namespaces, interfaces and addresses.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use portreeve_ebpf::InstanceName;
use portreeve_ebpf::node::{
    NodeCapacity, NodeKernel, NodePolicyTable, NodeSettings, endpoint_flags,
};
use portreeve_ebpf_common::node::NodePolicyKey;
use portreeve_ebpf_common::{Direction, PolicyValue, Verdict};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::thread::UnshareFlags;

/// What these tests need and isn't here.
pub(crate) fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    if cgroups().is_none() {
        return Some("no cgroup v2 is mounted".to_owned());
    }
    let probe = Command::new("unshare").args(["--net", "--mount", "ip", "link"]).output();
    match probe {
        Ok(output) if output.status.success() => None,
        _ => Some("no namespaces here".to_owned()),
    }
}

/// Where cgroup v2 is mounted.
pub(crate) fn cgroups() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    mount.split(' ').nth(1).map(PathBuf::from)
}

/// Network and mounts of this program's own. Called while there is one thread.
pub(crate) fn leave_the_host() {
    // SAFETY: nothing is shared with other threads, for there are none.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }
        .expect("namespaces");
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .expect("mounts of its own");
}

/// A node without workloads yet, in a network namespace of its own. All is gone with this value.
pub(crate) struct Node {
    pub(crate) kernel: Option<NodeKernel>,
    pub(crate) settings: NodeSettings,
    folder: tempfile::TempDir,
}

impl Node {
    pub(crate) fn new() -> Self {
        // This thread's, and that of those it starts.
        // SAFETY: no file descriptors are unshared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect("a namespace");
        ip("link set lo up");
        for option in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            fs::write(format!("/proc/sys/net/{option}"), "1").expect("a router");
        }
        without_waiting();
        let folder = tempfile::tempdir().expect("a folder");
        mount("bpf", folder.path(), "bpf", MountFlags::empty(), None).expect("a bpf file system");
        let settings = NodeSettings {
            instance: "node".parse::<InstanceName>().expect("a name"),
            bpffs: folder.path().to_owned(),
            capacity: NodeCapacity { connections: 1 << 12, ..NodeCapacity::default() },
        };
        let kernel = Some(NodeKernel::open(&settings).expect("it opens"));
        Self { kernel, settings, folder }
    }

    pub(crate) fn kernel(&self) -> &NodeKernel {
        self.kernel.as_ref().expect("it runs")
    }

    /// A workload with a number, its identity 100 more; its interface is attached, without policy yet.
    pub(crate) fn workload(&self, number: u32, flags: u32) -> Workload {
        let workload = Workload::new(number);
        let kernel = self.kernel();
        let addresses = [workload.v4(), workload.v6()];
        kernel.set_own_addresses(number, &addresses).expect("there is room");
        for address in addresses {
            kernel.set_identity(address.into(), Some(workload.identity())).expect("there is room");
        }
        let flags = flags | endpoint_flags::ENFORCED;
        kernel.attach(workload.interface, number, flags).expect("it attaches");
        workload
    }

    /// Puts rules in force, as [`policy`] has them.
    pub(crate) fn rules(&self, workload: &Workload, revision: u32, rules: &[Rule]) {
        self.kernel().set_policy(workload.number, &policy(revision, rules)).expect("room");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(kernel) = &self.kernel
        {
            println!("{:?}", kernel.counters());
            let mut events = kernel.events().expect("events");
            while let Some(event) = events.next() {
                println!("{event:?}");
            }
        }
        drop(self.kernel.take());
        let _ = NodeKernel::remove(&self.settings);
        let _ = unmount(self.folder.path(), UnmountFlags::DETACH);
    }
}

/// Whose connections, in which protocol, to which port: what of them.
pub(crate) type Rule = (Direction, u32, u8, u16, Verdict);

/// Identities stand for classes of their own; port 0 is all; everybody else may do nothing.
pub(crate) fn policy(revision: u32, rules: &[Rule]) -> NodePolicyTable {
    const INGRESS: u32 = 1 << 31;
    let class = |identity| PolicyValue::identity(identity, identity, INGRESS | identity);
    let mut entries = vec![
        (NodePolicyKey::HEADER, PolicyValue::header(revision, true, true)),
        (NodePolicyKey::OTHERS, class(0)),
    ];
    for (direction, identity, protocol, port, verdict) in rules {
        entries.push((NodePolicyKey::identity(*identity), class(*identity)));
        let class = match direction {
            Direction::Egress => *identity,
            Direction::Ingress => INGRESS | identity,
        };
        let bits = if *port == 0 { 0 } else { 16 };
        let key = NodePolicyKey::port(class, *protocol, *port, bits);
        entries.push((key, PolicyValue::verdict(*verdict, 1)));
    }
    entries.into_iter().collect()
}

/// A thread in a network namespace, with an interface there and the other end here.
pub(crate) struct Workload {
    pub(crate) number: u32,
    pub(crate) interface: u32,
    /// The file that is its network namespace.
    pub(crate) namespace: PathBuf,
    work: Sender<Box<dyn FnOnce() + Send>>,
}

impl Workload {
    pub(crate) fn new(number: u32) -> Self {
        let (work, jobs) = channel::<Box<dyn FnOnce() + Send>>();
        let (tell, told) = channel();
        thread::spawn(move || {
            // SAFETY: no file descriptors are unshared.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect("a namespace");
            tell.send(rustix::thread::gettid().as_raw_nonzero()).expect("it listens");
            jobs.into_iter().for_each(|job| job());
        });
        let thread = told.recv().expect("it starts");
        ip(&format!("link add veth{number} type veth peer name eth0 netns {thread}"));
        ip(&format!("addr add 10.0.{number}.1/24 dev veth{number}"));
        ip(&format!("addr add fd00:{number}::1/64 dev veth{number} nodad"));
        ip(&format!("link set veth{number} up"));
        let interface = interface(&format!("veth{number}"));
        let namespace = format!("/proc/self/task/{thread}/ns/net").into();
        let workload = Self { number, interface, namespace, work };
        workload.run(move || {
            ip("link set lo up");
            without_waiting();
            fs::write("/proc/sys/net/ipv6/conf/eth0/accept_dad", "0").expect("an option");
            ip(&format!("addr add 10.0.{number}.2/24 dev eth0"));
            ip(&format!("addr add fd00:{number}::2/64 dev eth0 nodad"));
            ip("link set eth0 up");
            ip(&format!("route add default via 10.0.{number}.1"));
            ip(&format!("route add default via fd00:{number}::1"));
            // Who may ask for echoes without being root there; it is root here.
            fs::write("/proc/sys/net/ipv4/ping_group_range", "0 1000").expect("it may");
        });
        workload
    }

    pub(crate) fn identity(&self) -> u32 {
        100 + self.number
    }

    pub(crate) fn v4(&self) -> IpAddr {
        Ipv4Addr::new(10, 0, u8::try_from(self.number).expect("small"), 2).into()
    }

    pub(crate) fn v6(&self) -> IpAddr {
        let number = u16::try_from(self.number).expect("small");
        Ipv6Addr::new(0xfd00, number, 0, 0, 0, 0, 0, 2).into()
    }

    pub(crate) fn both(&self) -> [IpAddr; 2] {
        [self.v4(), self.v6()]
    }

    /// Does something there. Sockets that it makes stay there, wherever they are used.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        let job = Box::new(move || drop(done.send(job())));
        self.work.send(job).expect("it works");
        result.recv().expect("it was done")
    }

    /// A server that returns what it gets, connection by connection.
    pub(crate) fn serve(&self, port: u16) {
        self.run(move || echo(TcpListener::bind(("::", port)).expect("a port")));
    }

    pub(crate) fn connect(&self, to: (IpAddr, u16)) -> Result<TcpStream, std::io::Error> {
        let to = SocketAddr::from(to);
        self.run(move || TcpStream::connect_timeout(&to, PATIENCE))
    }

    pub(crate) fn datagrams(&self, port: u16) -> UdpSocket {
        let socket = self.run(move || UdpSocket::bind(("::", port)).expect("a port"));
        socket.set_read_timeout(Some(PATIENCE)).expect("a time");
        socket
    }
}

pub(crate) fn echo(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            thread::spawn(move || {
                let mut reader = stream.try_clone().expect("a handle");
                let _ = std::io::copy(&mut reader, &mut stream);
            });
        }
    });
}

/// What was sent comes back.
pub(crate) fn answers(stream: &mut TcpStream) -> bool {
    use std::io::{Read, Write};
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    let mut answer = [0; 5];
    stream.write_all(b"hello").is_ok() && stream.read_exact(&mut answer).is_ok()
}

/// Addresses are there at once: nobody is asked whether he has them.
fn without_waiting() {
    for name in ["all", "default"] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_dad"), "0").expect("an option");
    }
}

/// Runs `ip` in this thread's namespace.
pub(crate) fn ip(arguments: &str) {
    let mut command = Command::new("ip");
    let output = command.args(arguments.split(' ')).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}

pub(crate) fn interface(name: &str) -> u32 {
    let name = std::ffi::CString::new(name).expect("a name");
    // SAFETY: the name ends with a zero.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

/// So long for what is never to come; what comes takes less than a millisecond.
pub(crate) const PATIENCE: Duration = Duration::from_millis(300);
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
