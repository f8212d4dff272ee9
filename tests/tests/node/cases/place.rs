//! Where cases are put: the miniature node, and the objects of a case for its daemon.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use portreeve_tests::node::daemon::Daemon;
use portreeve_tests::node::net::Net;
use serde_json::{Map, Value, json};

use super::flow::{End, Flow, Said};
use super::read::{Case, Peer, Query, Settings, Workload};

/// Entities have no addresses in the cases. The host's is on the node itself.
const HOST: &str = "10.77.0.1";
/// An address that no case speaks of.
const WORLD: [&str; 2] = ["100.64.77.1", "2001:db8:77::1"];

/// Everybody's address is here: of a socket's own address the kernel asks the table `local` alone. What is
/// elsewhere has to be there, too, since that table is asked first.
const OUT: &str = "
addr add 10.76.0.2/30 dev eth0
addr add fd76::2/64 dev eth0 nodad
route add 10.76.0.0/30 dev eth0 table local
route add fd76::/64 dev eth0 table local
route add 10.77.0.1/32 via 10.76.0.1 dev eth0 table local
route add fd77::/64 via fd76::1 dev eth0 table local
route add local 0.0.0.0/0 dev lo
route add local ::/0 dev lo
";

/// The node, its daemon, and everybody around it.
pub(super) struct World {
    daemon: Daemon,
    pub(super) net: Net,
    /// The addresses that have a place of their own.
    placed: Vec<IpAddr>,
    settings: Option<Settings>,
}

impl World {
    /// A place for the address of each endpoint of these cases, and one for everybody else.
    pub(super) fn new(cases: &[Case]) -> Self {
        let addresses = cases.iter().flat_map(|case| &case.endpoints);
        let addresses: BTreeSet<IpAddr> = addresses.map(|endpoint| endpoint.ips[0]).collect();
        let mut net = Net::new(&["node", "out"]);
        net.forward("node");
        net.ip("node", &format!("addr add {HOST}/32 dev lo\n"));
        for (number, address) in addresses.iter().enumerate() {
            net.add(&place(number));
            let v4 = address.to_string();
            net.routed("node", &cable(number), &place(number), &v4, &sixth(number));
        }
        net.cable(("out", "eth0"), ("node", "pout"));
        net.ip("node", "addr add 10.76.0.1/30 dev pout\naddr add fd76::1/64 dev pout nodad\n");
        net.ip("node", "route add default via 10.76.0.2\nroute add ::/0 via fd76::2\n");
        net.ip("out", OUT);
        for address in &addresses {
            net.ip("out", &format!("route add {address}/32 via 10.76.0.1 dev eth0 table local\n"));
        }
        net.set("out", "net/ipv4/ip_nonlocal_bind", "1");
        net.set("out", "net/ipv6/ip_nonlocal_bind", "1");
        let placed = addresses.into_iter().collect();
        Self { daemon: Daemon::new("node", ""), net, placed, settings: None }
    }

    /// Puts a case into force, and waits until it is.
    pub(super) fn settle(&mut self, number: usize, case: &Case, subject: &str) {
        let name = format!("{subject}-{number}");
        let items = self.objects(case, subject, &name);
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        self.daemon.write("case.json", &list.to_string());
        if self.settings != Some(case.settings) {
            self.restart(case.settings);
        }
        let began = Instant::now();
        while !self.is_settled(&name) {
            let status = self.daemon.text(&["status"]);
            let messages = self.daemon.messages();
            let late = began.elapsed().as_secs() >= 10;
            assert!(!late, "{}: {status}\n{messages}\n{list:#}", case.id);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn restart(&mut self, settings: Settings) {
        if self.settings.replace(settings).is_some() {
            self.daemon.signal(rustix::process::Signal::TERM);
            self.daemon.wait();
        }
        self.daemon.configure(&settings.config());
        self.daemon.start(&self.net);
    }

    fn is_settled(&self, name: &str) -> bool {
        let Some(endpoints) = self.daemon.ask("endpoint-list") else { return false };
        let row = &endpoints[0];
        let there = row["name"].as_str().is_some_and(|there| there.ends_with(name));
        let in_force = !row["realised"].is_null() && row["realised"] == row["revision"];
        let status = || self.daemon.ask("status").unwrap_or_default();
        let all = |status: Value| {
            status["settled"] == true
                && status["object_errors"].as_array().is_some_and(Vec::is_empty)
        };
        there && in_force && all(status())
    }

    /// The policies of a case, its subject as a workload of the node, and everybody else elsewhere.
    fn objects(&self, case: &Case, subject: &str, name: &str) -> Vec<Value> {
        let mut objects = case.policies.clone();
        for endpoint in &case.endpoints {
            let number = self.number(endpoint.ips[0]);
            let addresses = vec![endpoint.ips[0].to_string(), sixth(number)];
            let mut spec = json!({"addresses": addresses, "namedPorts": endpoint.named_ports});
            let subject = endpoint.name == subject;
            if subject {
                spec["interface"] = cable(number).into();
            }
            let name = if subject { name } else { &endpoint.name };
            objects.push(workload(name, endpoint, spec));
        }
        let entities = case.queries.iter().filter_map(|query| query.peer.entity.as_deref());
        let entities: BTreeSet<&str> = entities.filter(|name| !name.starts_with("world")).collect();
        for entity in entities {
            let labels = json!({format!("reserved:{entity}"): ""});
            objects.push(json!({
                "apiVersion": "portreeve.dev/v1alpha1", "kind": "Workload",
                "metadata": {"name": format!("entity-{entity}"), "labels": labels},
                "spec": {"addresses": [entity_address(entity)]},
            }));
        }
        objects
    }

    fn number(&self, address: IpAddr) -> usize {
        self.placed.iter().position(|placed| *placed == address).expect("it has a place")
    }

    /// A question as what is sent: once in each family that it can be asked in.
    pub(super) fn flows(&self, case: &Case, query: &Query) -> Vec<Flow> {
        let subject = self.number(case.endpoint(&query.subject).ips[0]);
        let flow = |peer: End| {
            let address = match peer.address {
                IpAddr::V4(_) => self.placed[subject],
                IpAddr::V6(_) => sixth(subject).parse().expect("an address"),
            };
            let subject = End { place: place(subject), address };
            let (from, to) = match query.direction.as_str() {
                "egress" => (subject, peer),
                _ => (peer, subject),
            };
            Flow { from, to, port: query.port, said: Said::of(query) }
        };
        self.peers(case, &query.peer, &query.protocol).into_iter().map(flow).collect()
    }

    fn peers(&self, case: &Case, peer: &Peer, protocol: &str) -> Vec<End> {
        let end = |address: &str| {
            let address: IpAddr = address.parse().expect("an address");
            let own = self.placed.iter().position(|placed| *placed == address);
            End { place: own.map_or("out".to_owned(), place), address }
        };
        if let Some(name) = &peer.endpoint {
            let address = case.endpoint(name).ips[0];
            let number = self.number(address);
            let v6 = End { place: place(number), address: sixth(number).parse().expect("one") };
            let both = ["TCP", "UDP"].contains(&protocol);
            return [end(&address.to_string())].into_iter().chain(both.then_some(v6)).collect();
        }
        match (peer.entity.as_deref(), peer.ip) {
            (Some("world" | "world-ipv4"), _) => vec![end(WORLD[0])],
            (Some("world-ipv6"), _) => vec![end(WORLD[1])],
            (Some("host"), _) => {
                vec![End { place: "node".to_owned(), address: HOST.parse().expect("an address") }]
            }
            (Some(entity), _) => vec![end(&entity_address(entity))],
            (None, address) => {
                address.map(|address| end(&address.to_string())).into_iter().collect()
            }
        }
    }
}

/// What a place, its cable and its other address are called.
fn place(number: usize) -> String {
    format!("w{number}")
}

fn cable(number: usize) -> String {
    format!("pw{number}")
}

fn sixth(number: usize) -> String {
    format!("fd77::{:x}", number + 1)
}

fn entity_address(entity: &str) -> String {
    match entity {
        "host" => HOST.to_owned(),
        other => format!("10.77.1.{}", other.bytes().map(usize::from).sum::<usize>() % 250 + 1),
    }
}

fn workload(name: &str, endpoint: &Workload, spec: Value) -> Value {
    let labels: Map<String, Value> = endpoint
        .labels
        .iter()
        .map(|label| {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            (key.to_owned(), value.into())
        })
        .collect();
    let mut metadata = json!({"name": name, "labels": labels});
    if !endpoint.namespace.is_empty() {
        metadata["namespace"] = endpoint.namespace.as_str().into();
    }
    json!({
        "apiVersion": "portreeve.dev/v1alpha1", "kind": "Workload", "metadata": metadata, "spec": spec,
    })
}
