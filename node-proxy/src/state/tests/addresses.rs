//! Two who name one address: who has it, in the engine, in the kernel and in the proxy.

use std::sync::Arc;

use portreeve_core::Endpoints as Proxied;
use portreeve_policy::EndpointPolicy;

use super::*;
use crate::datapath::registered::Registered;
use crate::datapath::{EndpointId, EndpointSpec, NumbersInUse};

const ALSO: &str = "addresses: [10.0.0.7], interface: veth9";

fn also(bench: &Bench) {
    bench.write("also.yaml", &workload("also", "also", ALSO));
}

fn error_of(bench: &Bench, name: &str) -> String {
    bench.node.endpoint(name).and_then(|detail| detail.row.error).unwrap_or_default()
}

fn says(told: &[String], line: &str) -> bool {
    told.iter().any(|told| told == line)
}

#[test]
fn one_whose_address_is_anothers_is_attached_and_closed() {
    let mut bench = Bench::new();
    two(&bench);
    bench.step();
    also(&bench);
    let told = bench.step();
    assert_eq!(
        told,
        [
            "closed endpoint 3 default/also at veth9 identity 258",
            "endpoint 3 closed",
            "keep endpoints 1,2,3"
        ],
        "the address is still shop's, and the proxy knows him alone"
    );
    let error = error_of(&bench, "default/also");
    assert!(error.starts_with("`10.0.0.7` is default/shop's already"), "{error}");
    assert!(error.ends_with("; the endpoint is closed"), "{error}");
    // He had another one, and a policy.
    bench.write("bank.yaml", &workload("bank", "bank", "addresses: [10.0.0.7], interface: veth1"));
    assert_eq!(
        bench.step(),
        [
            "proxy endpoint 1 removed",
            "closed endpoint 1 default/bank at veth1 identity 256",
            "endpoint 1 closed",
            "proxy addresses of 3",
            "ipcache 10.0.0.8/32 removed",
            "rejudge",
            "keep endpoints 1,2,3"
        ]
    );
    // The one who came first of those who wait has it next.
    bench.remove("shop.yaml");
    let told = bench.step();
    assert!(says(&told, "endpoint 3 default/also at veth9 identity 258"), "{told:?}");
    assert!(says(&told, "policy 3") && says(&told, "ipcache 10.0.0.7/32 258"), "{told:?}");
    assert_eq!(error_of(&bench, "default/also"), "");
    let error = error_of(&bench, "default/bank");
    assert!(error.starts_with("`10.0.0.7` is default/also's already"), "{error}");
}

#[test]
fn one_whose_address_finds_no_room_is_closed_and_not_open() {
    let mut bench = Bench::new();
    two(&bench);
    bench.told.fail("endpoint 2 default/shop");
    let told = bench.step();
    assert!(says(&told, "closed endpoint 2 default/shop at veth0 identity 257"), "{told:?}");
    assert!(says(&told, "endpoint 2 closed") && !says(&told, "policy 2"), "{told:?}");
    let error = error_of(&bench, "default/shop");
    assert!(error.ends_with("; the endpoint is closed"), "{error}");
    bench.told.mend();
    let told = bench.wait(Duration::from_secs(1));
    assert!(says(&told, "endpoint 2 default/shop at veth0 identity 257"), "{told:?}");
    assert!(bench.node.is_settled());
}

#[test]
fn an_address_that_an_endpoint_has_is_nobodys_elsewhere() {
    let mut bench = Bench::new();
    two(&bench);
    bench.step();
    bench.write("old.yaml", &workload("old", "old", "addresses: [10.0.0.7, 10.1.0.0/24]"));
    assert_eq!(
        bench.step(),
        ["proxy addresses of 2", "ipcache 10.1.0.0/24 258", "rejudge"],
        "but for what it has besides"
    );
    let error = "workload default/old: `10.0.0.7` is default/shop's";
    let errors = bench.node.status().errors;
    assert!(errors[0].starts_with(error), "{errors:?}");
    bench.restart();
    let told = bench.step();
    assert!(says(&told, "ipcache 10.0.0.7/32 257"), "whoever is read first: {told:?}");
    bench.remove("shop.yaml");
    let told = bench.step();
    assert!(says(&told, "ipcache 10.0.0.7/32 258"), "{told:?}");
    assert!(bench.node.status().errors.is_empty());
    two(&bench);
    let told = bench.step();
    assert!(says(&told, "ipcache 10.0.0.7/32 257"), "{told:?}");
}

#[test]
fn after_a_restart_the_same_one_has_the_address_and_the_interface() {
    let mut bench = Bench::new();
    two(&bench);
    bench.step();
    also(&bench);
    bench.write("bank2.yaml", &workload("aaa", "also", "addresses: [10.0.0.9], interface: veth1"));
    bench.step();
    bench.told.in_use(NumbersInUse {
        endpoints: [1, 2, 3, 9].into(),
        identities: [256, 257, 258].into(),
        interfaces: [("veth0".to_owned(), 2), ("veth1".to_owned(), 1)].into(),
        addresses: [("10.0.0.7".parse().unwrap(), 2), ("10.0.0.8".parse().unwrap(), 1)].into(),
    });
    bench.restart();
    let told = bench.step();
    assert!(says(&told, "ipcache 10.0.0.7/32 257"), "{told:?}");
    assert!(says(&told, "endpoint 2 default/shop at veth0 identity 257"), "{told:?}");
    assert!(says(&told, "endpoint 1 default/bank at veth1 identity 256"), "{told:?}");
    let error = error_of(&bench, "default/also");
    assert!(error.starts_with("`10.0.0.7` is default/shop's already"), "{error}");
    let error = error_of(&bench, "default/aaa");
    assert!(error.starts_with("`veth1` is default/bank's already"), "{error}");
    // One who is not there any more has nothing.
    bench.remove("shop.yaml");
    bench.remove("bank.yaml");
    bench.restart();
    bench.step();
    assert!(bench.node.is_settled(), "{:?}", bench.node.status().errors);
}

#[test]
fn what_one_had_who_can_not_be_read_at_the_start_is_nobody_elses() {
    let mut bench = Bench::new();
    two(&bench);
    bench.step();
    bench.write("shop.yaml", &workload("shop", "shop", SHOP).replace("interface:", "interfaze:"));
    also(&bench);
    bench.told.in_use(NumbersInUse {
        endpoints: [1, 2].into(),
        identities: [256, 257].into(),
        interfaces: [("veth0".to_owned(), 2)].into(),
        addresses: [("10.0.0.7".parse().unwrap(), 2)].into(),
    });
    bench.restart();
    let told = bench.step();
    assert!(!told.iter().any(|line| line.starts_with("ipcache 10.0.0.7/32")), "{told:?}");
    let error = error_of(&bench, "default/also");
    assert!(error.starts_with("`10.0.0.7` is default/shop's already"), "{error}");
    bench.remove("shop.yaml");
    let told = bench.step();
    assert!(says(&told, "ipcache 10.0.0.7/32 258"), "{told:?}");
    assert!(bench.node.is_settled());
}

#[test]
fn one_whose_interface_is_not_there_leaves_the_address_to_one_whose_is() {
    let mut bench = Bench::new();
    two(&bench);
    for way in ["endpoint 2 default/shop", "closed endpoint 2"] {
        bench.told.fail(way);
    }
    bench.step();
    bench.write("zoo.yaml", &workload("zoo", "zoo", "addresses: [10.0.0.7], interface: veth9"));
    let told = bench.step();
    assert!(says(&told, "endpoint 3 default/zoo at veth9 identity 258"), "{told:?}");
    assert!(says(&told, "policy 3") && says(&told, "ipcache 10.0.0.7/32 258"), "{told:?}");
    // It comes, and the other has the address by now.
    bench.told.mend();
    bench.node.look_at_interfaces(bench.now);
    let told = bench.wait(Duration::ZERO);
    assert!(says(&told, "closed endpoint 2 default/shop at veth0 identity 257"), "{told:?}");
    let error = error_of(&bench, "default/shop");
    assert!(error.starts_with("`10.0.0.7` is default/zoo's already"), "{error}");
    bench.remove("zoo.yaml");
    let told = bench.step();
    assert!(says(&told, "policy 2") && says(&told, "ipcache 10.0.0.7/32 257"), "{told:?}");
    assert!(bench.node.is_settled());
}

const HOST: &str = "ipcache 10.0.0.1/32 1";

/// A node as all nodes know it: a workload elsewhere, which has a reserved identity.
const AS_PEER: &str = "
apiVersion: portreeve.dev/v1alpha1
kind: Workload
metadata: {name: node-1, namespace: default, labels: {'reserved:remote-node': ''}}
spec: {addresses: [10.0.0.1], node: node-1}
";

#[test]
fn who_comes_from_an_address_of_the_node_is_the_host() {
    let mut bench = Bench::new();
    bench.told.host_has(&["10.0.0.1", "fd00::1"]);
    two(&bench);
    bench.write(
        "policy.yaml",
        &policy("p", "shop", "bank")
            .replace("fromEndpoints: [{matchLabels: {app: bank}}]", "fromEntities: [host]"),
    );
    let told = bench.step();
    assert!(says(&told, HOST) && says(&told, "ipcache fd00::1/128 1"), "{told:?}");
    assert!(bench.allows("default/shop", "10.0.0.1") && !bench.allows("default/shop", "10.0.0.8"));
    // Other nodes know it as one of them; here it is what it is, and that is no error.
    bench.write("nodes.yaml", AS_PEER);
    assert!(!bench.step().iter().any(|told| told.contains("10.0.0.1")));
    assert!(bench.node.status().errors.is_empty());
    // It has another one by now, and is found at the first no more.
    bench.told.host_has(&["10.0.0.2"]);
    bench.node.look_at_interfaces(bench.now);
    let told = bench.wait(Duration::ZERO);
    assert!(
        says(&told, "ipcache 10.0.0.1/32 6") && says(&told, "ipcache 10.0.0.2/32 1"),
        "{told:?}"
    );
    assert!(says(&told, "ipcache fd00::1/128 removed"), "{told:?}");
}

#[test]
fn a_workload_has_no_address_of_the_node() {
    let mut bench = Bench::new();
    bench.told.host_has(&["10.0.0.1", "10.0.0.7"]);
    two(&bench);
    let told = bench.step();
    assert!(says(&told, "closed endpoint 2 default/shop at veth0 identity 257"), "{told:?}");
    let error = error_of(&bench, "default/shop");
    assert!(error.starts_with("`10.0.0.7` is an address of the node itself"), "{error}");
    bench.told.host_has(&["10.0.0.1"]);
    bench.node.look_at_interfaces(bench.now);
    let told = bench.wait(Duration::ZERO);
    assert!(says(&told, "endpoint 2 default/shop at veth0 identity 257"), "{told:?}");
    assert!(says(&told, "ipcache 10.0.0.7/32 257") && bench.node.is_settled(), "{told:?}");
    // Who has it keeps it when the node gets it, too, until he goes; then it is nobody else's.
    also(&bench);
    bench.step();
    bench.told.host_has(&["10.0.0.1", "10.0.0.7"]);
    bench.node.look_at_interfaces(bench.now);
    assert_eq!(bench.wait(Duration::ZERO), NOTHING);
    let errors = bench.node.status().errors;
    assert!(
        errors.iter().any(|error| error.contains("endpoint default/shop keeps it")),
        "{errors:?}"
    );
    bench.remove("shop.yaml");
    assert!(says(&bench.step(), "ipcache 10.0.0.7/32 1"));
    assert!(error_of(&bench, "default/also").starts_with("`10.0.0.7` is an address of the node"));
}

#[test]
fn addresses_of_the_node_that_can_not_be_read_are_an_error_and_stay_as_they_were() {
    let mut bench = Bench::new();
    bench.told.host_has(&["10.0.0.1"]);
    bench.told.fail("host addresses");
    two(&bench);
    assert!(!says(&bench.step(), HOST));
    let errors = bench.node.status().errors;
    assert!(errors.len() == 1 && errors[0].contains("which addresses this node has"), "{errors:?}");
    bench.told.mend();
    assert!(bench.node.look_at_node(bench.now));
    assert!(says(&bench.wait(Duration::ZERO), HOST));
    bench.told.fail("host addresses");
    assert!(!bench.node.look_at_node(bench.now));
    assert_eq!(bench.wait(Duration::ZERO), NOTHING);
}

/// The proxy's own endpoints, without a proxy.
struct Known(Registered);

impl Proxying for Known {
    fn policy_set(
        &mut self,
        endpoint: &EndpointSpec,
        _: u64,
        policy: EndpointPolicy,
    ) -> Result<(), DatapathError> {
        self.0.put(endpoint, policy)
    }

    fn endpoint_removed(&mut self, id: EndpointId) {
        self.0.remove(id);
    }

    fn addresses_changed(
        &mut self,
        policies: &mut dyn Iterator<Item = (EndpointId, EndpointPolicy)>,
    ) {
        self.0.addresses_changed(policies);
    }

    fn health(&self) -> Result<(), DatapathError> {
        Ok(())
    }

    fn reopen_logs(&mut self) {}
}

#[test]
fn the_proxy_knows_who_has_an_address_while_another_names_it_and_after_that() {
    let mut bench = Bench::new();
    let proxied = Arc::<Proxied>::default();
    let known = Box::new(Known(Registered::new(proxied.clone())));
    bench.node = open_with(bench.state.path(), &bench.told, known, bench.now);
    let owner = || {
        let all = proxied.list();
        let own = all.iter().filter(|own| own.addresses.contains(&"10.0.0.7".parse().unwrap()));
        own.map(|own| own.name.clone()).collect::<Vec<_>>()
    };
    two(&bench);
    bench.step();
    also(&bench);
    bench.step();
    assert_eq!(owner(), ["default/shop"]);
    bench.remove("also.yaml");
    bench.step();
    bench.write("client.yaml", &workload("client", "client", "addresses: [10.1.0.1]"));
    bench.step();
    assert_eq!(owner(), ["default/shop"]);
    // It goes over from one to the other, with both of them there.
    also(&bench);
    bench.step();
    bench.write("shop.yaml", &workload("shop", "shop", "addresses: [10.0.0.6], interface: veth0"));
    bench.step();
    assert_eq!(owner(), ["default/also"]);
    assert_eq!(proxied.list().len(), 3);
}

#[test]
fn one_whom_the_proxy_has_lost_comes_back_with_the_next_addresses() {
    let mut bench = Bench::new();
    two(&bench);
    bench.step();
    let proxied = Arc::<Proxied>::default();
    let mut known = Registered::new(proxied.clone());
    let spec = |name: &str| bench.node.endpoints.all[name].spec.clone();
    let policy = || bench.node.engine.policy("default/shop").unwrap();
    let (mut shop, mut bank) = (spec("default/shop"), spec("default/bank"));
    shop.addresses.push([10, 0, 0, 5].into());
    known.put(&shop, policy()).unwrap();
    // One of its addresses is another's now; it was not told of itself yet.
    bank.addresses = spec("default/shop").addresses;
    known.put(&bank, policy()).unwrap();
    let addresses = |name: &str| proxied.get(name).map(|own| own.addresses);
    assert_eq!(addresses("default/bank"), Some(bank.addresses));
    assert_eq!(addresses("default/shop"), Some(vec![[10, 0, 0, 5].into()]));
    proxied.remove("default/shop");
    known.addresses_changed(&mut [(1, policy()), (2, policy())].into_iter());
    assert_eq!(addresses("default/shop"), Some(vec![[10, 0, 0, 5].into()]));
}
