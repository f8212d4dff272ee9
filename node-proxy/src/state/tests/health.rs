//! Backends that are asked whether they are well, and load balancers that ask for them.

use super::*;
use crate::health::{Heard, LocalBackends, Probe, Wanted};

/// Two backends here, one elsewhere; the first of each port is the one that is asked about.
const BACKENDS: &str = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: shop-1, namespace: default, labels: {kubernetes.io/service-name: shop}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: dns, port: 53, protocol: UDP}]
endpoints:
- {addresses: [10.0.0.7], nodeName: node-1}
- {addresses: [10.0.0.8], nodeName: node-1, conditions: {ready: false, terminating: true, serving: true}}
- {addresses: [10.0.0.9], nodeName: node-2}
- {addresses: [10.0.0.10], conditions: {ready: false}}
";

fn asked() -> String {
    let annotations = "annotations: {portreeve.dev/health-check: tcp}}";
    SERVICE.replace("namespace: default}", &format!("namespace: default, {annotations}"))
}

struct Asked {
    bench: Bench,
    wanted: Wanted,
}

impl Asked {
    fn new(service: &str) -> Self {
        let mut bench = Bench::new();
        bench.write("service.yaml", service);
        bench.write("slice.yaml", BACKENDS);
        bench.step();
        let wanted = bench.node.take_health().unwrap();
        Self { bench, wanted }
    }

    fn targets(&self) -> Vec<String> {
        self.wanted.probes.iter().map(|probe| probe.target.to_string()).collect()
    }

    /// Backends answer; what the datapath is told of it.
    fn hear(&mut self, target: &str, times: usize, answer: Result<(), &str>) -> Vec<String> {
        let probe = self.wanted.probes.iter().find(|probe| probe.target.to_string() == target);
        let probe: &Probe = probe.unwrap();
        let answer = answer.map_err(str::to_owned);
        let heard = std::iter::repeat_n(Heard::Answer(probe.clone(), answer), times);
        self.bench.node.heard(heard.collect());
        self.bench.node.realise(self.bench.now);
        self.bench.told.lines()
    }

    fn backends(&self) -> Vec<String> {
        self.bench.node.services()[0].backends.clone()
    }
}

#[test]
fn a_backend_that_answers_badly_is_unhealthy_until_it_answers_well_again() {
    let mut asked = Asked::new(&asked());
    assert_eq!(asked.targets(), ["10.0.0.7:8080", "10.0.0.8:8080", "10.0.0.9:8080"]);
    // The first answer counts alone, then three bad ones, or two good ones.
    assert_eq!(asked.hear("10.0.0.7:8080", 1, Ok(())), NOTHING);
    assert_eq!(asked.hear("10.0.0.9:8080", 1, Err("refused")), ["service default/shop"]);
    assert_eq!(asked.hear("10.0.0.9:8080", 1, Ok(())), NOTHING);
    assert_eq!(asked.hear("10.0.0.9:8080", 1, Err("silent")), NOTHING);
    assert_eq!(
        asked.backends(),
        [
            "10.0.0.7:8080 (ready, here)",
            "10.0.0.8:8080 (terminating, here)",
            "10.0.0.9:8080 (unhealthy: silent)",
            "10.0.0.10:8080 (not ready)"
        ]
    );
    assert_eq!(asked.hear("10.0.0.9:8080", 1, Ok(())), NOTHING, "it is one after another");
    assert_eq!(asked.hear("10.0.0.9:8080", 1, Ok(())), ["service default/shop"]);
    assert_eq!(asked.hear("10.0.0.9:8080", 2, Err("refused")), NOTHING);
    assert_eq!(asked.hear("10.0.0.9:8080", 1, Err("refused")), ["service default/shop"]);
    assert_eq!(asked.hear("10.0.0.8:8080", 1, Err("refused")), ["service default/shop"]);
    assert_eq!(asked.backends()[1], "10.0.0.8:8080 (not ready, here: refused)");
    // What a slice says else changes nothing of it, nor who is asked.
    asked.bench.write("slice.yaml", &BACKENDS.replace("10.0.0.10", "10.0.0.11"));
    asked.bench.step();
    assert_eq!(asked.backends()[2], "10.0.0.9:8080 (unhealthy: refused)");
    assert_eq!(asked.bench.node.take_health(), None);
}

#[test]
fn who_is_gone_or_not_to_be_asked_is_not_asked_and_forgotten() {
    let mut asked = Asked::new(&asked());
    asked.hear("10.0.0.9:8080", 1, Err("refused"));
    asked.bench.write("slice.yaml", &BACKENDS.replace("10.0.0.9", "10.0.0.5"));
    asked.bench.step();
    let stale = Heard::Answer(asked.wanted.probes.last().unwrap().clone(), Err("late".to_owned()));
    assert!(!asked.bench.node.heard(vec![stale]));
    asked.wanted = asked.bench.node.take_health().unwrap();
    assert_eq!(asked.targets(), ["10.0.0.5:8080", "10.0.0.7:8080", "10.0.0.8:8080"]);
    asked.bench.write("slice.yaml", BACKENDS);
    asked.bench.step();
    assert_eq!(asked.backends()[2], "10.0.0.9:8080 (ready)");
    asked.bench.write("service.yaml", SERVICE);
    asked.bench.step();
    assert_eq!(asked.bench.node.take_health(), Some(Wanted::default()));
}

#[test]
fn a_port_that_is_named_is_asked_for_every_backend() {
    let named = asked().replace("check: tcp", "check: tcp, portreeve.dev/health-check-port: '9'");
    let mut asked = Asked::new(&named);
    assert_eq!(asked.targets(), ["10.0.0.7:9", "10.0.0.8:9", "10.0.0.9:9"]);
    asked.hear("10.0.0.7:9", 1, Err("refused"));
    let rows = asked.bench.node.services();
    assert_eq!(rows[0].backends[0], "10.0.0.7:8080 (unhealthy, here: refused)");
    assert_eq!(rows[1].backends[0], "10.0.0.7:53 (unhealthy, here: refused)", "UDP, too");
}

#[test]
fn load_balancers_are_told_how_many_healthy_backends_the_node_has() {
    let service =
        asked().replace("externalTraffic", "healthCheckNodePort: 32100\n  externalTraffic");
    let mut asked = Asked::new(&service);
    let told = |wanted: &Wanted| {
        let told: Vec<(u16, LocalBackends)> = wanted.ports.clone().into_iter().collect();
        let (port, LocalBackends { service, count }) = told.into_iter().next()?;
        Some((port, service.to_string(), count))
    };
    assert_eq!(told(&asked.wanted), Some((32_100, "default/shop".to_owned(), 1)));
    asked.hear("10.0.0.7:8080", 1, Err("refused"));
    // Its other port can't be asked: the backend is there.
    assert_eq!(asked.bench.node.take_health(), None);
    asked
        .bench
        .write("slice.yaml", &BACKENDS.replace(", {name: dns, port: 53, protocol: UDP}", ""));
    asked.bench.step();
    let wanted = asked.bench.node.take_health().unwrap();
    assert_eq!(told(&wanted), Some((32_100, "default/shop".to_owned(), 0)));
    // A port that can't be had is an error that is shown.
    let taken = BTreeMap::from([(32_100, "address in use".to_owned())]);
    asked.bench.node.heard(vec![Heard::Unanswered(taken)]);
    let error = asked.bench.node.services()[0].error.clone().unwrap();
    assert!(error.contains("32100: address in use"), "{error}");
    assert_eq!(asked.bench.node.status().errors.len(), 1);
    asked.bench.node.heard(vec![Heard::Unanswered(BTreeMap::new())]);
    // Of two services with one port the second is told to nobody, and that is said.
    let other = service.replace("name: shop", "name: tea").replace("10.96.0.10", "10.96.0.11");
    asked.bench.write("tea.yaml", &other.replace("nodePort: 30080", "nodePort: 30081"));
    asked.bench.step();
    assert_eq!(asked.bench.node.take_health(), None);
    let errors = asked.bench.node.status().errors;
    assert!(
        errors.len() == 1 && errors[0].contains("32100 is service default/shop's"),
        "{errors:?}"
    );
    asked.bench.remove("tea.yaml");
    // Where any node answers for all there is nothing to tell; the API server takes the port away.
    let cluster = service.replace("Policy: Local", "Policy: Cluster");
    let without = asked_without_port(&cluster);
    asked.bench.write("service.yaml", &without);
    asked.bench.step();
    assert_eq!(told(&asked.bench.node.take_health().unwrap()), None);
    asked.bench.write("service.yaml", &cluster);
    asked.bench.step();
    assert_eq!(asked.bench.node.take_health(), None);
}

fn asked_without_port(service: &str) -> String {
    service.replace("healthCheckNodePort: 32100\n  ", "")
}

#[test]
fn a_backend_that_goes_to_another_service_is_what_it_was() {
    let mut asked = Asked::new(&asked());
    asked.hear("10.0.0.9:8080", 1, Err("refused"));
    // Whichever of the two names comes first.
    for name in ["zoo", "ant"] {
        let service = self::asked().replace("name: shop", &format!("name: {name}"));
        asked.bench.write("service.yaml", &service);
        let slice = BACKENDS.replace("service-name: shop", &format!("service-name: {name}"));
        asked.bench.write("slice.yaml", &slice);
        asked.bench.step();
        assert_eq!(asked.backends()[2], "10.0.0.9:8080 (unhealthy: refused)", "{name}");
    }
    assert_eq!(asked.bench.node.take_health(), None, "the same are asked");
}

#[test]
fn what_keeps_the_node_from_asking_is_an_error_until_somebody_answers() {
    let mut asked = Asked::new(&asked());
    assert!(!asked.bench.node.heard(vec![Heard::Unable("too many open files".to_owned())]));
    let errors = asked.bench.node.status().errors;
    assert!(errors.len() == 1 && errors[0].contains("too many open files"), "{errors:?}");
    assert_eq!(asked.backends()[0], "10.0.0.7:8080 (ready, here)");
    asked.hear("10.0.0.7:8080", 1, Ok(()));
    assert!(asked.bench.node.status().errors.is_empty());
}

#[test]
fn who_is_at_an_address_of_the_asker_is_not_asked() {
    let mut bench = Bench::new();
    bench.write("service.yaml", &asked());
    let slice = BACKENDS.replace("10.0.0.7", "127.0.0.1").replace("10.0.0.9", "169.254.169.254");
    bench.write("slice.yaml", &slice);
    bench.step();
    let wanted = bench.node.take_health().unwrap();
    let targets: Vec<_> = wanted.probes.iter().map(|probe| probe.target.to_string()).collect();
    assert_eq!(targets, ["10.0.0.8:8080"]);
}
