//! Random policies and questions about them, always the same for a seed: for tests that ask two who
//! must agree.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::{
    Directory, Endpoint, EndpointPolicy, Enforcement, Names, Options, Peer, Protocol, Repository,
    Source, TrafficDirection,
};

/// A generator with a seed (xorshift, Marsaglia 2003).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// One with a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // It must not be 0, and its first numbers are alike for seeds that are.
        let mut dice = Self((seed ^ 0x9e37_79b9_7f4a_7c15).max(1));
        for _ in 0..8 {
            dice.next();
        }
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Any of the numbers below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap_or_default()
    }

    /// Any one of them; `from` is not empty.
    pub fn pick<'t, T: ?Sized>(&mut self, from: &[&'t T]) -> &'t T {
        from[self.below(from.len())]
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Any 32 bits.
    pub fn word(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).unwrap_or_default()
    }
}

/// A policy, and what is worth asking about it.
#[derive(Debug)]
pub struct Scenario {
    /// What was resolved.
    pub policy: EndpointPolicy,
    /// The same as documents, to be printed when something is wrong.
    pub text: String,
    prefixes: Vec<IpNet>,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Who opens the connection.
    pub direction: TrafficDirection,
    /// The peer. IPv4 may be in its mapped form.
    pub address: IpAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// Prefixes that lie in each other, end beside each other and are as long and as short as they can be.
const PREFIXES: [&str; 18] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/15",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3/32",
    "10.1.2.128/25",
    "10.128.0.0/9",
    "127.0.0.0/8",
    "192.0.2.0/24",
    "192.0.2.64/26",
    "192.0.2.77/32",
    "::/0",
    "::/64",
    "2001:db8::/32",
    "2001:db8:0:1::/64",
    "2001:db8:0:1::5/128",
    "2001:db8:8000::/33",
];

/// Prefixes and what may be taken out of them.
const EXCEPT: [(&str, &str); 4] = [
    ("10.0.0.0/8", "10.1.0.0/16"),
    ("192.0.2.0/24", "192.0.2.64/26"),
    ("2001:db8::/32", "2001:db8:0:1::/64"),
    ("0.0.0.0/0", "10.0.0.0/8"),
];

const LABELS: [&str; 6] = ["app=a", "app=b", "app=c", "app=a,tier=x", "app=b,tier=x", "tier=y"];

const ENTITIES: [&str; 6] = ["world", "all", "host", "cluster", "world-ipv6", "remote-node"];

/// Names and who has them.
const NAMES: [(&str, &str); 3] =
    [("a.example", "198.51.100.7"), ("b.example", "10.1.2.200"), ("c.example", "2001:db8::53")];

/// Ports that rules begin and end at.
const PORTS: [u16; 14] = [1, 2, 53, 80, 81, 443, 1023, 1024, 4096, 8080, 9092, 32768, 65534, 65535];

/// What is to be read on a port, and the protocols that may be said of. The last are for egress only.
const INSPECTIONS: [(&str, &str); 7] = [
    ("TCP", "rules: {http: [{method: GET, path: /a}]}"),
    ("TCP", "rules: {http: [{}]}"),
    ("TCP", "rules: {kafka: [{topic: t}]}"),
    ("TCP", "rules: {l7proto: r2d2, l7: [{cmd: READ}]}"),
    ("TCP", "serverNames: [a.example]"),
    ("ANY", "rules: {dns: [{matchName: a.example}]}"),
    ("UDP", "rules: {dns: [{matchPattern: '*'}]}"),
];

impl Scenario {
    /// Any. Policies that can't be resolved are put aside.
    ///
    /// # Panics
    /// When hardly any can, which says that this generator is broken.
    #[must_use]
    pub fn any(dice: &mut Dice) -> Self {
        let mut last = String::new();
        for _ in 0..1000 {
            match Self::attempt(dice) {
                Ok(scenario) => return scenario,
                Err(why) => last = why,
            }
        }
        panic!("no policy resolves: {last}");
    }

    fn attempt(dice: &mut Dice) -> Result<Self, String> {
        let text = documents(dice);
        let repository = Repository::parse([Source::new("random.yaml", text.as_str())])
            .map_err(|errors| format!("{errors}"))?;
        let label = |text: &str| text.parse().map_err(|error| format!("{error}"));
        let mut peers = Vec::new();
        for _ in 0..dice.below(8) {
            let prefixes = (0..=dice.below(3)).map(|_| peer_prefix(dice)).collect::<Vec<_>>();
            peers.push(Peer::new(prefixes, label(dice.pick(&LABELS))?));
        }
        if dice.once_in(3) {
            peers.push(Peer::new([peer_prefix(dice)], label("reserved:host")?));
        }
        let mut names = Names::default();
        for (name, address) in NAMES {
            names.learn(name, address.parse::<IpAddr>());
        }
        let mut prefixes: Vec<IpNet> = PREFIXES.iter().filter_map(|p| p.parse().ok()).collect();
        prefixes.extend(peers.iter().flat_map(|peer| peer.prefixes.iter().copied()));
        prefixes.extend(names.iter().map(|(address, _)| IpNet::from(address)));
        let options = Options {
            enforcement: match dice.below(12) {
                0 => Enforcement::Always,
                1 => Enforcement::Never,
                _ => Enforcement::Default,
            },
            audit: dice.once_in(10),
            single_stack: dice.once_in(4),
            allow_localhost: dice.once_in(4),
            host_firewall: false,
        };
        let directory = Directory { peers, names, ..Directory::default() };
        let workload = Endpoint::new("w", "default", label("app=w")?);
        let policy = EndpointPolicy::resolve(&repository, &workload, &directory, &options)
            .map_err(|error| error.to_string())?;
        Ok(Self { policy, text, prefixes })
    }

    /// Any question, mostly about where answers change.
    pub fn question(&self, dice: &mut Dice) -> Question {
        let port = match dice.below(4) {
            0 => u16::try_from(dice.below(1 << 16)).unwrap_or_default(),
            _ => PORTS[dice.below(PORTS.len())].wrapping_add([0, 1, u16::MAX][dice.below(3)]),
        };
        Question {
            direction: [TrafficDirection::Ingress, TrafficDirection::Egress][dice.below(2)],
            address: self.address(dice),
            protocol: [Protocol::Tcp, Protocol::Udp][dice.below(2)],
            port,
        }
    }

    /// Somewhere in a prefix, or just beside it.
    fn address(&self, dice: &mut Dice) -> IpAddr {
        let prefix = self.prefixes[dice.below(self.prefixes.len())];
        let step = dice.below(5);
        let random = (0..4).fold(0, |random, _| random << 32 | u128::from(dice.word()));
        match prefix {
            IpNet::V4(prefix) => {
                let (first, last) = (prefix.network().to_bits(), prefix.broadcast().to_bits());
                let host = !u32::from(prefix.netmask());
                let inside = first | (u32::try_from(random >> 96).unwrap_or_default() & host);
                let places = [first, last, first.wrapping_sub(1), last.wrapping_add(1), inside];
                let address = Ipv4Addr::from(places[step]);
                match dice.once_in(4) {
                    true => address.to_ipv6_mapped().into(),
                    false => address.into(),
                }
            }
            IpNet::V6(prefix) => {
                let (first, last) = (prefix.network().to_bits(), prefix.broadcast().to_bits());
                let inside = first | (random & !u128::from(prefix.netmask()));
                let places = [first, last, first.wrapping_sub(1), last.wrapping_add(1), inside];
                Ipv6Addr::from(places[step]).into()
            }
        }
    }
}

fn peer_prefix(dice: &mut Dice) -> IpNet {
    // It owns no IPv4 address: those in their mapped form are not looked for here.
    if dice.once_in(12) {
        return "::ffff:10.1.0.0/112".parse().unwrap_or_default();
    }
    // A peer that is everywhere leaves little to ask.
    let everywhere = |prefix: &str| prefix.ends_with("/0");
    let mut prefix = dice.pick(&PREFIXES);
    if everywhere(prefix) && !dice.once_in(4) {
        prefix = dice.pick(&PREFIXES);
    }
    prefix.parse().unwrap_or_default()
}

fn documents(dice: &mut Dice) -> String {
    let mut text = String::new();
    for index in 0..=dice.below(4) {
        let mode = if dice.once_in(4) { "audit" } else { "enforce" };
        let _ = write!(
            text,
            "---\napiVersion: portreeve.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: \
             p{index}, namespace: default}}\nspec:\n  endpointSelector: {{}}\n  mode: {mode}\n"
        );
        if dice.once_in(5) {
            text.push_str(
                "  visibility: {ingress: [{ports: [{port: '80', protocol: TCP}], protocol: http}]}\n",
            );
        }
        if dice.once_in(6) {
            text.push_str("  enableDefaultDeny: {ingress: false, egress: false}\n");
        }
        for (direction, way) in [("ingress", "from"), ("egress", "to")] {
            if dice.once_in(4) {
                continue;
            }
            let entries = |denies: bool, dice: &mut Dice| {
                let count = dice.below(if denies { 2 } else { 5 });
                (0..count).map(|_| entry(dice, way, denies)).collect::<Vec<_>>().join(", ")
            };
            let (allowed, denied) = (entries(false, dice), entries(true, dice));
            let _ = write!(text, "  {direction}: [{allowed}]\n  {direction}Deny: [{denied}]\n");
        }
    }
    text
}

fn entry(dice: &mut Dice, way: &str, denies: bool) -> String {
    let mut fields = vec![peers(dice, way, denies)];
    if !dice.once_in(4) {
        fields.push(format!("toPorts: [{}]", ports(dice, way, denies)));
    }
    if !denies && dice.once_in(12) {
        let mode = dice.pick(&["required", "disabled"]);
        fields.push(format!("authentication: {{mode: {mode}}}"));
    }
    if dice.once_in(8) {
        fields.push("mode: audit".to_owned());
    }
    format!("{{{}}}", fields.join(", "))
}

fn peers(dice: &mut Dice, way: &str, denies: bool) -> String {
    match dice.below(if way == "to" && !denies { 7 } else { 6 }) {
        0 => format!("{way}Endpoints: [{{}}]"),
        1 | 2 => {
            let (key, value) = (["app", "tier"], ["a", "b", "c", "x", "y"]);
            let (key, value) = (dice.pick(&key), dice.pick(&value));
            format!("{way}Endpoints: [{{matchLabels: {{{key}: {value}}}}}]")
        }
        3 => format!("{way}CIDR: ['{}']", dice.pick(&PREFIXES)),
        4 => {
            let (cidr, except) = EXCEPT[dice.below(EXCEPT.len())];
            format!("{way}CIDRSet: [{{cidr: '{cidr}', except: ['{except}']}}]")
        }
        5 => format!("{way}Entities: [{}]", dice.pick(&ENTITIES)),
        _ => format!("toFQDNs: [{{matchName: {}}}]", NAMES[dice.below(NAMES.len())].0),
    }
}

fn ports(dice: &mut Dice, way: &str, denies: bool) -> String {
    let first = PORTS[dice.below(PORTS.len())];
    if !denies && dice.once_in(3) {
        let (protocol, inspection) = INSPECTIONS[dice.below(if way == "to" { 7 } else { 5 })];
        return format!("{{ports: [{{port: '{first}', protocol: {protocol}}}], {inspection}}}");
    }
    let protocol = dice.pick(&["TCP", "UDP", "ANY"]);
    match dice.below(4) {
        0 => format!("{{ports: [{{port: '0', protocol: {protocol}}}]}}"),
        1 => format!("{{ports: [{{port: '{first}', protocol: {protocol}}}]}}"),
        _ => {
            let last = first.max(PORTS[dice.below(PORTS.len())]);
            format!("{{ports: [{{port: '{first}', endPort: {last}, protocol: {protocol}}}]}}")
        }
    }
}
