//! The engine agrees with a naive reading of the specification, word for word: every HTTP rule tried in
//! turn with another regular expression engine, every entry of every policy looked at for every
//! connection.
#![expect(clippy::unwrap_used, reason = "a failing test may panic")]

use std::fmt::Write;

use portreeve_policy::{
    Action, Directory, Endpoint, EndpointPolicy, HttpRequest, Inspection, Options, Outcome, Peer,
    Protocol, Repository, Source, TrafficDirection,
};
use regex::bytes::Regex;

/// A generator with a fixed seed: what fails today fails tomorrow (xorshift, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap()
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.below(from.len())]
    }
}

const SEGMENTS: [&str; 9] = ["a", "b", "ab", "svc-1", "svc-2", "1", "12", "", "x.y"];
const PARTS: [&str; 14] = [
    "a", "b", "ab", "svc-1", "svc-2", "[0-9]+", "[^/]+", "[^/]*", ".*", "(a|b)", "[ab]?",
    "svc-[12]", "x[.]y", "a.*b",
];

fn path_pattern(dice: &mut Dice) -> String {
    let mut text = String::new();
    if dice.below(8) == 0 {
        text.push('^');
    }
    for _ in 0..=dice.below(4) {
        text.push('/');
        text.push_str(dice.pick(&PARTS));
    }
    match dice.below(5) {
        0 => text.push_str("/.*"),
        1 => text.push('$'),
        2 => text.push_str("(/.*)?"),
        _ => {}
    }
    text
}

fn path(dice: &mut Dice) -> String {
    let mut text = String::new();
    for _ in 0..=dice.below(4) {
        text.push('/');
        text.push_str(dice.pick(&SEGMENTS));
    }
    if dice.below(6) == 0 {
        text.push_str("?q=/a");
    }
    text
}

#[derive(Default)]
struct Rule {
    method: Option<String>,
    path: Option<String>,
    host: Option<String>,
    header: Option<(String, String)>,
    /// `method`, `path` and `host`, for the other engine.
    compiled: [Option<Regex>; 3],
}

#[derive(Debug)]
struct Request {
    method: String,
    path: String,
    host: String,
    headers: Vec<(String, String)>,
}

impl HttpRequest for Request {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
    fn host(&self) -> &[u8] {
        self.host.as_bytes()
    }
    fn header_values<'v>(&'v self, name: &'v str) -> impl Iterator<Item = &'v [u8]> {
        let named = move |(own, _): &&(String, String)| own.eq_ignore_ascii_case(name);
        self.headers.iter().filter(named).map(|(_, value)| value.as_bytes())
    }
}

impl Rule {
    fn any(dice: &mut Dice) -> Self {
        let methods = ["GET", "POST", "GET|POST", "P.*", "PURGE"];
        let hosts = ["a[.]example", "b[.]example", ".*[.]example", "a.example(:80)?"];
        let mut rule = Self::default();
        if dice.below(3) > 0 {
            rule.path = Some(path_pattern(dice));
        }
        if dice.below(3) == 0 {
            rule.method = Some(dice.pick(&methods).to_owned());
        }
        if dice.below(4) == 0 {
            rule.host = Some(dice.pick(&hosts).to_owned());
        }
        if dice.below(4) == 0 {
            let (name, value) = (dice.pick(&["X-A", "X-B"]), dice.pick(&["1", "2", "1,2"]));
            rule.header = Some((name.to_owned(), value.to_owned()));
        }
        rule.compiled = [&rule.method, &rule.path, &rule.host].map(|pattern| {
            let whole = |pattern| Regex::new(&format!("(?-u)^(?:{pattern})$")).unwrap();
            pattern.as_ref().map(whole)
        });
        rule
    }

    fn yaml(&self) -> String {
        let mut fields = Vec::new();
        for (name, value) in [("method", &self.method), ("path", &self.path), ("host", &self.host)]
        {
            fields.extend(value.as_ref().map(|value| format!("{name}: '{value}'")));
        }
        if let Some((name, value)) = &self.header {
            fields.push(format!("headers: ['{name}: {value}']"));
        }
        format!("{{{}}}", fields.join(", "))
    }

    /// All regexes are full matches on the whole value; several fields of one name are one value.
    fn matches(&self, request: &Request) -> bool {
        let parts = [&request.method, &request.path, &request.host];
        let mut pairs = self.compiled.iter().zip(parts);
        let header = self.header.as_ref().is_none_or(|(name, value)| {
            let all: Vec<&str> = request
                .headers
                .iter()
                .filter(|(own, _)| own.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_str())
                .collect();
            !all.is_empty() && all.join(",") == *value
        });
        pairs.all(|(regex, value)| {
            regex.as_ref().is_none_or(|regex| regex.is_match(value.as_bytes()))
        }) && header
    }
}

fn request(dice: &mut Dice) -> Request {
    let mut headers = Vec::new();
    for _ in 0..dice.below(3) {
        let (name, value) = (dice.pick(&["x-a", "X-B"]), dice.pick(&["1", "2"]));
        headers.push((name.to_owned(), value.to_owned()));
    }
    Request {
        method: dice.pick(&["GET", "POST", "PUT", "PURGE", "get"]).to_owned(),
        path: path(dice),
        host: dice.pick(&["a.example", "b.example", "axexample", "a.example:80"]).to_owned(),
        headers,
    }
}

#[test]
fn http_rules_agree_with_each_rule_tried_in_turn() {
    let mut dice = Dice(0x5eed);
    for round in 0..150 {
        let count = [1, 3, 8, 40, 120][round % 5];
        let rules: Vec<Rule> = (0..count).map(|_| Rule::any(&mut dice)).collect();
        let mut text = String::from(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: \
             default}\nspec:\n  endpointSelector: {}\n  ingress:\n  - toPorts:\n    - ports: [{port: \
             '80', protocol: TCP}]\n      rules:\n        http:\n",
        );
        for rule in &rules {
            writeln!(text, "        - {}", rule.yaml()).unwrap();
        }
        let repository = Repository::parse([Source::new("p.yaml", text.as_str())])
            .unwrap_or_else(|errors| panic!("{errors}"));
        let shop = Endpoint::new("shop", "default", "app=shop".parse().unwrap());
        let policy =
            EndpointPolicy::resolve(&repository, &shop, &Directory::default(), &Options::default())
                .unwrap();
        let who = policy.identify([192, 0, 2, 1].into());
        let verdict = policy.connection(TrafficDirection::Ingress, who, Protocol::Tcp, 80);
        let Action::Inspect(Inspection::Http(compiled)) = verdict.action else { panic!("{text}") };
        for _ in 0..200 {
            let request = request(&mut dice);
            let expected = rules.iter().position(|rule| rule.matches(&request));
            let found = compiled.decide(&request, &mut |_| {});
            assert_eq!(found.outcome == Outcome::Allow, expected.is_some(), "{request:?}\n{text}");
            let rule = found.rule.map(|id| policy.rule(id).section().to_owned());
            let expected =
                expected.map(|index| format!("spec.ingress[0].toPorts[0].rules.http[{index}]"));
            assert_eq!(rule, expected, "{request:?}\n{text}");
        }
    }
}

/// One entry of a policy, and what it is about in plain words.
struct Entry {
    denies: bool,
    /// `None`: everybody.
    peer: Option<usize>,
    /// `None`: every port and protocol.
    ports: Option<(Option<Protocol>, u16, u16)>,
}

/// How peers are named in policies, and who that is.
const PEERS: [(&str, &[&str]); 6] = [
    ("fromEndpoints: [{matchLabels: {app: a}}]", &["10.0.0.1"]),
    ("fromEndpoints: [{}]", &["10.0.0.1", "10.0.0.2"]),
    (
        "fromEndpoints: [{matchExpressions: [{key: app, operator: NotIn, values: [a]}]}]",
        &["10.0.0.2"],
    ),
    ("fromCIDR: [192.0.2.0/24]", &["192.0.2.1", "192.0.2.200"]),
    ("fromCIDRSet: [{cidr: 192.0.2.0/24, except: [192.0.2.128/25]}]", &["192.0.2.1"]),
    ("fromEntities: [world]", &["192.0.2.1", "192.0.2.200", "198.51.100.1", "2001:db8::1"]),
];

const ADDRESSES: [&str; 6] =
    ["10.0.0.1", "10.0.0.2", "192.0.2.1", "192.0.2.200", "198.51.100.1", "2001:db8::1"];

impl Entry {
    fn any(dice: &mut Dice) -> Self {
        let peer = match dice.below(7) {
            6 => None,
            peer => Some(peer),
        };
        let first = 1 + u16::try_from(dice.below(6)).unwrap();
        let last = first + u16::try_from(dice.below(4)).unwrap();
        let protocol = [None, Some(Protocol::Tcp), Some(Protocol::Udp)][dice.below(3)];
        // An entry without peer and ports is about nobody.
        let ports = (peer.is_none() || dice.below(3) > 0).then_some((protocol, first, last));
        Self { denies: dice.below(4) == 0, peer, ports }
    }

    fn yaml(&self) -> String {
        let mut fields = Vec::new();
        fields.extend(self.peer.map(|peer| PEERS[peer].0.to_owned()));
        if let Some((protocol, first, last)) = self.ports {
            let protocol = protocol.map_or("ANY".to_owned(), |protocol| protocol.to_string());
            fields.push(format!(
                "toPorts: [{{ports: [{{port: '{first}', endPort: {last}, protocol: {protocol}}}]}}]"
            ));
        }
        format!("{{{}}}", fields.join(", "))
    }

    fn is_about(&self, address: &str, protocol: Protocol, port: u16) -> bool {
        let peer = self.peer.is_none_or(|peer| PEERS[peer].1.contains(&address));
        let ports = self.ports.is_none_or(|(own, first, last)| {
            let ported = matches!(protocol, Protocol::Tcp | Protocol::Udp | Protocol::Sctp);
            own.map_or(ported, |own| own == protocol) && (first..=last).contains(&port)
        });
        peer && ports
    }
}

#[test]
fn connections_agree_with_each_entry_looked_at_in_turn() {
    let mut dice = Dice(0xfeed);
    for _ in 0..400 {
        let policies: Vec<Vec<Entry>> = (0..=dice.below(3))
            .map(|_| (0..=dice.below(4)).map(|_| Entry::any(&mut dice)).collect())
            .collect();
        let mut text = String::new();
        for (index, entries) in policies.iter().enumerate() {
            let list = |denies| {
                let own = entries.iter().filter(|entry| entry.denies == denies);
                own.map(Entry::yaml).collect::<Vec<_>>().join(", ")
            };
            write!(
                text,
                "---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p{index}, \
                 namespace: default}}\nspec:\n  endpointSelector: {{}}\n  ingress: [{}]\n  \
                 ingressDeny: [{}]\n",
                list(false),
                list(true)
            )
            .unwrap();
        }
        let repository = Repository::parse([Source::new("p.yaml", text.as_str())])
            .unwrap_or_else(|errors| panic!("{errors}"));
        let shop = Endpoint::new("shop", "default", "app=shop".parse().unwrap());
        let peer = |address: &str, labels: &str| {
            Peer::new([address.parse().unwrap()], labels.parse().unwrap())
        };
        let peers = vec![peer("10.0.0.1/32", "app=a"), peer("10.0.0.2/32", "app=b")];
        let policy =
            EndpointPolicy::resolve(&repository, &shop, &peers.into(), &Options::default())
                .unwrap();
        for address in ADDRESSES {
            let who = policy.identify(address.parse().unwrap());
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp] {
                for port in 0..12 {
                    let about = |denies| {
                        policies.iter().flatten().any(|entry| {
                            entry.denies == denies && entry.is_about(address, protocol, port)
                        })
                    };
                    let expected = about(false) && !about(true);
                    let verdict = policy.connection(TrafficDirection::Ingress, who, protocol, port);
                    let found = !matches!(verdict.action, Action::Deny);
                    assert_eq!(found, expected, "{address} {protocol} {port}\n{text}");
                }
            }
        }
    }
}
