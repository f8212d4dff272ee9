//! What is said on the command line, and to policy.

use std::path::Path;

use clap::{CommandFactory, Parser};

use super::{BackendConfig, Capacity, ServiceConfig, Transport, check_services, directory};
use crate::cli::Cli;

/// `help.txt` has what `--help` says; set `UPDATE_EXPECTED=1` to write it anew.
#[test]
fn help_is_as_it_was_read_over() {
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut said = String::new();
    for path in [&["redirect"][..], &["redirect", "status"], &["redirect", "detach"]] {
        let mut found = &mut command;
        for name in path {
            found = found.find_subcommand_mut(name).expect("a command");
        }
        said.push_str(&format!("$ portreeve {} --help\n{}\n", path.join(" "), found.render_help()));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/redirect/help.txt");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, &said).expect("written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(said, expected, "run `UPDATE_EXPECTED=1 cargo test -p portreeve`");
}

#[test]
fn flags_that_belong_together_are_asked_for_together() {
    let run = ["run", "--policy", "p", "--workload-labels", "app=shop", "--redirect", "ebpf"];
    for (arguments, is_right) in [
        (&["redirect", "--to", "127.0.0.1:1", "--cgroup", "/c"][..], true),
        (&["redirect", "--to", "127.0.0.1:1", "--to", "[::1]:1", "--cgroup", "/c"], true),
        (&["redirect", "--to", "127.0.0.1:1"], false),
        (&["redirect", "--cgroup", "/c"], false),
        (&["redirect"], false),
        (&["redirect", "--to", "127.0.0.1:1", "--cgroup", "/c", "--policy", "p"], false),
        (&["redirect", "--to", "127.0.0.1:1", "--cgroup", "/c", "--instance", "a/b"], false),
        (&["redirect", "status"], true),
        (&["redirect", "status", "--instance", "shop"], true),
        (&["redirect", "detach"], false),
        (&["redirect", "detach", "--all"], true),
        (&["redirect", "detach", "--all", "--instance", "shop"], false),
        (&run, true),
        (&[&run[..], &["--cgroup", "/c", "--loopback", "own"]].concat(), true),
        (&[&run[..], &["--listen", "127.0.0.1:1"]].concat(), false),
        (&["run", "--config", "c", "--redirect", "ebpf", "--cgroup", "/c"], true),
    ] {
        let parsed = Cli::try_parse_from(["portreeve"].iter().chain(arguments));
        assert_eq!(parsed.is_ok(), is_right, "{arguments:?}: {:?}", parsed.err());
    }
}

fn service(name: &str, port: u16, backend: &str) -> ServiceConfig {
    let address = backend.parse().expect("an address");
    ServiceConfig {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        labels: "app=db".parse().expect("labels"),
        frontends: vec![("10.96.0.1".parse().expect("an address"), port)],
        protocol: Transport::Tcp,
        backends: vec![BackendConfig { address, weight: 1, draining: false }],
        external: false,
        affinity: None,
    }
}

#[test]
fn policy_knows_a_service_of_many_ports_as_one() {
    let services = directory(&[
        service("db", 5432, "10.0.0.5:5432"),
        service("db", 5433, "10.0.0.6:5432"),
        service("web", 80, "10.0.0.7:80"),
    ]);
    let names: Vec<_> = services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["db", "web"]);
    assert_eq!(services[0].backends.len(), 2);
}

#[test]
fn services_that_cannot_be_are_found_before_anything_is_touched() {
    let twice = [service("a", 80, "10.0.0.5:80"), service("b", 80, "10.0.0.6:80")];
    assert!(check_services(&twice[..1], &Capacity::default()).is_ok());
    let error = check_services(&twice, &Capacity::default()).expect_err("the same address");
    assert!(error.to_string().contains("10.96.0.1:80"), "{error}");
    let tight = Capacity { backends: 0, ..Capacity::default() };
    assert!(check_services(&twice[..1], &tight).is_err());
}
