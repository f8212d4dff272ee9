//! Starts that fail, and what is not to be begun with: another instance's leftovers, interfaces that are no
//! workload's. The node is that of [`super::routed`].

use std::net::TcpListener;
use std::process::Stdio;

use portreeve_tests::node::NEEDS;
use portreeve_tests::sidecar::node_binary;
use portreeve_tests::{Need, eventually, needed, trial};
use rustix::process::Signal;

use super::routed::{Node, SHOP, WORKLOADS, detach_from};

pub(super) fn trials() -> Vec<libtest_mimic::Trial> {
    let needs = [&NEEDS[..], &[Need::Program("curl"), Need::Program("nginx")]].concat();
    vec![
        trial("a_start_that_fails_leaves_nothing_of_its_own", &needs, fails_anew),
        trial("a_start_that_fails_leaves_what_was_there_before", &needs, fails_again),
        trial("another_instance_is_an_error_until_it_is_detached", &needs, beside),
        trial("interfaces_that_are_no_workloads_are_refused", &needs, no_workloads),
    ]
}

fn fails_anew() {
    let node = Node::new();
    let admin = node.net.on("node", || TcpListener::bind("127.0.0.1:15000")).expect("free");
    let state = node.daemon.path("blue/state");
    std::fs::create_dir_all(&state).expect("a folder");
    for (config, limit, said) in [
        ("admin: 127.0.0.1:15000", "1024", "`--admin` or the key `admin`"),
        ("admin: 192.0.2.77:15000", "1024", "no interface of this host has that address"),
        ("access_log: {to: /proc/log}", "1024", "the key `access_log.to`"),
        // Only when its sockets are made, which are the kernel's to hand connections to.
        ("workers: 1000", "256", "Too many open files"),
    ] {
        let (code, messages) = run_blue(&node, config, limit);
        assert!(code == Some(1) && messages.contains(said), "{config}: {messages}");
        assert_eq!(instances(&node), ["node"], "{config}: {messages}");
        let is_late = messages.contains("what was set up as instance `blue` is removed again");
        assert_eq!(is_late, config.contains("workers"), "{config}: {messages}");
    }
    std::fs::write(state.join("identities.json"), "{").expect("written");
    let (code, messages) = run_blue(&node, "", "1024");
    assert!(code == Some(78) && messages.contains("is damaged"), "{messages}");
    assert!(!messages.contains("is removed again"), "{messages}");
    assert_eq!(instances(&node), ["node"]);
    drop(admin);
    // Whoever was there has all it had.
    assert_eq!(node.status("client", "10.60.0.3", 8080, "/public/a"), "200");
    assert_eq!(node.status("client", "10.60.0.3", 8080, "/private"), "403");
    assert!(!node.daemon.text(&["status"]).contains("blue"));
}

fn fails_again() {
    let mut node = Node::new();
    node.daemon.signal(Signal::KILL);
    node.daemon.wait();
    let config = "kernel: {bpffs: ../bpf, instance: node}\nworkers: 1000";
    let (code, messages) = run_beside(&node, config, "256");
    assert!(code == Some(1) && messages.contains("Too many open files"), "{messages}");
    assert_eq!(instances(&node), ["node"]);
    assert_eq!(node.status("client", "10.60.0.3", 8081, "/any"), "200");
    assert_eq!(node.status("client", "10.60.0.3", 9999, "/"), "refused");
    node.daemon.start(&node.net);
    assert_eq!(node.status("client", "10.60.0.3", 8080, "/public/a"), "200");
}

fn beside() {
    let mut node = Node::new();
    let status = |node: &Node| node.daemon.text(&["status"]);
    assert!(!status(&node).contains("instance `"), "{}", status(&node));
    // Nothing is removed, and everything is said, for one that was never there.
    let (code, said) = detach_from(&node, "bpf", "nope");
    assert!(code == Some(0) && said.starts_with("nothing is set up as instance `nope`"), "{said}");
    assert!(said.ends_with("; `node` is there, and the device `portreeve0` stays\n"), "{said}");

    node.daemon.signal(Signal::KILL);
    node.daemon.wait();
    node.daemon.configure_kernel("bpffs: bpf, instance: blue", "");
    node.daemon.start(&node.net);
    let bpffs = node.daemon.path("bpf");
    let there = format!("instance `node` is still there, pinned in `{}/", bpffs.display());
    let hint = format!("`portreeve-node detach --bpffs {} --instance node`", bpffs.display());
    for said in [node.daemon.messages(), status(&node)] {
        assert!(said.contains(&there) && said.contains(&hint), "{said}");
    }
    let (code, said) = detach_from(&node, "bpf", "node");
    let ends = "; `blue` is there, and the device `portreeve0` stays; this instance judges no workloads any more\n";
    assert!(code == Some(0) && said.ends_with(ends), "{said}");
    assert!(!status(&node).contains("instance `"), "{}", status(&node));
    assert_eq!(node.status("client", "10.60.0.3", 8080, "/public/a"), "200");
    assert_eq!(node.status("client", "10.60.0.3", 8080, "/private"), "403");
    node.daemon.write("shop.yaml", &SHOP.replace("8081", "8082"));
    eventually("its own policy", || {
        (node.status("client", "10.60.0.3", 8081, "/any") == "refused").then_some(())
    });
}

fn no_workloads() {
    let mut node = Node::new();
    node.daemon.signal(Signal::TERM);
    node.daemon.wait();
    node.daemon.configure_kernel("bpffs: bpf, devices: [paw, later]", "");
    node.daemon.start(&node.net);
    let server = node.net.on("node", || TcpListener::bind("127.0.0.1:15000")).expect("free");
    let reaches_itself = || {
        node.net.on("node", || {
            let address = server.local_addr().expect("an address");
            std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_secs(2))
                .is_ok()
        })
    };
    node.net.ip("node", "link add later type veth peer name end\n");
    for (name, why) in [
        ("lo", "is by what this host reaches itself"),
        ("portreeve0", "leads to the proxy"),
        ("paw", "leads outside of this node"),
        ("later", "leads outside of this node"),
    ] {
        let odd = format!(
            "apiVersion: portreeve.dev/v1alpha1\nkind: Workload\nmetadata: {{name: odd}}\nspec: {{addresses: \
             [10.60.0.9], interface: {name}}}\n"
        );
        node.daemon.write("odd.yaml", &odd);
        let said = eventually("the refusal", || {
            let said = node.daemon.text(&["status"]);
            said.contains(&format!("`{name}` {why}")).then_some(said)
        });
        assert!(said.contains("(`netns`)"), "{said}");
        assert!(!node.daemon.is_settled());
        assert!(reaches_itself(), "{name}");
        assert_eq!(node.status("client", "10.60.0.3", 8080, "/public/a"), "200", "{name}");
        assert_eq!(node.status("client", "10.61.0.9", 8080, "/out/a"), "200", "{name}");
    }
    node.daemon.write("odd.yaml", "");
    node.daemon.write("workloads.yaml", WORKLOADS);
    eventually("what is right", || node.daemon.is_settled().then_some(()));
}

/// A daemon of the instance `blue` on the same node, which fails: its code, and what it says.
fn run_blue(node: &Node, config: &str, files: &str) -> (Option<i32>, String) {
    run_beside(node, &format!("kernel: {{bpffs: ../bpf, instance: blue}}\n{config}"), files)
}

/// Another daemon on the same node that may open so many files.
fn run_beside(node: &Node, config: &str, files: &str) -> (Option<i32>, String) {
    std::fs::create_dir_all(node.daemon.path("blue")).expect("a folder");
    let file = node.daemon.path("blue/node.yaml");
    let admin = if config.contains("admin:") { "" } else { "admin: 'off'\n" };
    let config =
        format!("objects: ../objects/\nstate: state/\nsocket: node.sock\n{admin}{config}\n");
    std::fs::write(&file, config).expect("a file");
    let mut shell = node.net.inside("node", &needed("sh"));
    shell.args(["-c", "ulimit -n $0; exec \"$@\"", files]).arg(node_binary());
    shell.args(["run", "--config"]).arg(&file).stdout(Stdio::null());
    let output = shell.stderr(Stdio::piped()).output().expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What is pinned.
fn instances(node: &Node) -> Vec<String> {
    let root = node.daemon.path("bpf/portreeve-node");
    let all = std::fs::read_dir(root).expect("a folder");
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name();
    all.map(|entry| name(entry).to_string_lossy().into_owned()).collect()
}
