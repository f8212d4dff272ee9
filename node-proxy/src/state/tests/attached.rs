//! Interfaces and addresses: who has them, who waits for them, and what is said of it.

use super::*;

fn error_of(bench: &Bench, name: &str) -> Option<String> {
    let rows = bench.node.endpoints();
    rows.into_iter().find(|row| row.name == name).and_then(|row| row.error)
}

#[test]
fn of_two_who_name_one_interface_the_first_keeps_it_and_the_other_follows_him() {
    let mut bench = Bench::new();
    two(&bench);
    bench.step();
    bench.write("also.yaml", &workload("also", "also", "addresses: [10.0.0.9], interface: veth0"));
    let told = bench.step();
    assert!(!told.iter().any(|line| line.contains("veth0")), "{told:?}");
    let error = error_of(&bench, "default/also").unwrap();
    assert!(error.starts_with("`veth0` is default/shop's already"), "{error}");
    assert!(error.contains("it is not attached"), "{error}");
    let errors = bench.node.status().errors;
    assert!(errors.iter().any(|error| error.contains("default/shop's already")), "{errors:?}");
    bench.remove("shop.yaml");
    let told = bench.step();
    let at = |line: &str| told.iter().position(|told| told == line);
    let closed = at("endpoint 2 closed").expect("it is judged all the time");
    let put = at("endpoint 3 default/also at veth0 identity 258").expect("the other comes");
    let removed = at("endpoint 2 removed").expect("it goes");
    assert!(closed < put && put < removed, "{told:?}");
    assert!(bench.node.is_settled() && error_of(&bench, "default/also").is_none());
}

#[test]
fn of_two_who_name_one_address_the_first_keeps_it_and_the_other_follows_him() {
    let mut bench = Bench::new();
    two(&bench);
    bench.step();
    bench.write("also.yaml", &workload("also", "also", "addresses: [10.0.0.7], interface: veth9"));
    bench.step();
    let error = error_of(&bench, "default/also").unwrap();
    assert!(error.starts_with("`10.0.0.7` is default/shop's already"), "{error}");
    bench.write("shop.yaml", &workload("shop", "shop", "addresses: [10.0.0.6], interface: veth0"));
    let told = bench.step();
    assert!(told.contains(&"endpoint 3 default/also at veth9 identity 258".to_owned()), "{told:?}");
    assert!(bench.node.is_settled());
}

#[test]
fn two_who_change_places_are_both_told_before_any_interface_is_let_go() {
    let mut bench = Bench::new();
    two(&bench);
    bench.step();
    bench.write("shop.yaml", &workload("shop", "shop", "addresses: [10.0.0.7], interface: veth1"));
    bench.write("bank.yaml", &workload("bank", "bank", "addresses: [10.0.0.8], interface: veth0"));
    assert_eq!(
        bench.step(),
        [
            "endpoint 1 default/bank at veth0 identity 256",
            "proxy policy 1",
            "endpoint 2 default/shop at veth1 identity 257",
            "proxy policy 2",
            "policy 1",
            "policy 2",
            "keep endpoints 1,2"
        ]
    );
}

#[test]
fn an_interface_that_is_another_under_the_same_name_is_attached_again() {
    let mut bench = Bench::new();
    two(&bench);
    bench.step();
    bench.node.look_at_interfaces(bench.now);
    assert_eq!(bench.wait(Duration::ZERO), NOTHING);
    bench.told.lose(2);
    bench.node.look_at_interfaces(bench.now);
    assert!(!bench.node.is_settled());
    assert_eq!(
        bench.wait(Duration::ZERO),
        [
            "endpoint 2 default/shop at veth0 identity 257",
            "proxy policy 2",
            "policy 2",
            "keep endpoints 1,2"
        ]
    );
    // While it is away, it is closed; and when interfaces come, it is tried at once.
    bench.told.lose(2);
    for way in ["endpoint 2 default/shop", "closed endpoint 2"] {
        bench.told.fail(way);
    }
    bench.node.look_at_interfaces(bench.now);
    assert!(bench.wait(Duration::ZERO).contains(&"endpoint 2 closed".to_owned()));
    let error = error_of(&bench, "default/shop").unwrap();
    assert!(error.ends_with("it is not attached: its policy judges nothing"), "{error}");
    bench.told.mend();
    assert_eq!(bench.wait(Duration::ZERO), NOTHING, "not yet");
    bench.node.look_at_interfaces(bench.now);
    assert!(bench.wait(Duration::ZERO).contains(&"policy 2".to_owned()));
    assert!(bench.node.is_settled());
}

#[test]
fn one_that_can_not_be_attached_keeps_nothing_else_up() {
    let mut bench = Bench::new();
    two(&bench);
    bench.write("client.yaml", &workload("client", "client", "addresses: [10.1.0.1]"));
    for way in ["endpoint 2 default/shop", "closed endpoint 2"] {
        bench.told.fail(way);
    }
    let told = bench.step();
    assert_eq!(told[told.len() - 2..], ["keep endpoints 1,2", "keep addresses"], "{told:?}");
    assert!(bench.node.status().synced && !bench.node.is_settled());
    // Numbers that nobody has are given up all the same: what can't be attached is closed.
    bench.remove("client.yaml");
    bench.step();
    for _ in 0..3 {
        bench.wait(LINGER);
    }
    assert_eq!(bench.node.identities().len(), 2);
}

#[test]
fn addresses_that_could_not_be_judged_anew_are_until_they_are() {
    let mut bench = Bench::new();
    two(&bench);
    bench.step();
    bench.told.fail("rejudge");
    bench.write("client.yaml", &workload("client", "client", "addresses: [10.1.0.1]"));
    assert!(bench.step().contains(&"rejudge".to_owned()));
    assert!(!bench.node.is_settled());
    let errors = bench.node.status().errors;
    assert!(errors[0].contains("open connections are not judged anew"), "{errors:?}");
    bench.told.mend();
    assert_eq!(bench.wait(Duration::from_millis(150)), ["rejudge"]);
    assert!(bench.node.is_settled() && bench.node.status().errors.is_empty());
}

#[test]
fn one_that_is_called_otherwise_keeps_its_interface_judged_all_the_time() {
    let mut bench = Bench::new();
    two(&bench);
    bench.step();
    bench.write("shop.yaml", &workload("market", "shop", SHOP));
    let told = bench.step();
    let new = "endpoint 3 default/market at veth0 identity 257";
    assert_eq!(
        told,
        [
            "proxy endpoint 2 removed",
            "endpoint 2 closed",
            new,
            "proxy policy 3",
            "policy 3",
            "endpoint 2 removed",
            "keep endpoints 1,3"
        ]
    );
    // The next one can't be attached: until it can, nothing passes there.
    for way in ["endpoint 4 default/mall", "closed endpoint 4"] {
        bench.told.fail(way);
    }
    bench.write("shop.yaml", &workload("mall", "shop", SHOP));
    let told = bench.step();
    assert!(told.contains(&"endpoint 3 closed".to_owned()), "{told:?}");
    assert!(!told.contains(&"endpoint 3 removed".to_owned()), "{told:?}");
    assert!(told.contains(&"keep endpoints 1,3,4".to_owned()), "{told:?}");
    assert!(bench.node.next().unwrap() > bench.now);
    bench.told.mend();
    let told = bench.wait(Duration::from_secs(1));
    assert_eq!(told[told.len() - 2..], ["endpoint 3 removed", "keep endpoints 1,4"], "{told:?}");
    assert!(bench.node.is_settled());
}
