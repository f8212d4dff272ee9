//! What is printed, of what a daemon without a datapath has nothing of.

use std::path::Path;

use super::*;

/// Compares with a file of `tests/expected/`; set `UPDATE_EXPECTED=1` to write it anew.
fn compare(name: &str, said: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/expected").join(name);
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, said).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(said, expected, "{name}: run `UPDATE_EXPECTED=1 cargo test -p portreeve-node`");
}

#[test]
fn what_the_proxy_judges_is_a_line_each() {
    let client = json!({ "address": "10.60.0.2:43130", "identity": 256, "labels":
        "k8s:app=client,k8s:io.kubernetes.pod.namespace=default" });
    let shop = json!({ "address": "10.60.0.3:8081", "identity": 257, "labels":
        "k8s:app=shop,k8s:io.kubernetes.pod.namespace=default" });
    let nobody = json!({ "address": "10.60.0.9:1", "identity": 0, "labels": "" });
    let (rule, section) = ("default/shop", "spec.ingress[0].toPorts[0].rules.http[0]");
    let lines = [
        json!({ "type": "http", "verdict": "allow", "method": "GET", "host": "shop", "path": "/public/a",
            "status": 200, "reason": "rule_allows", "policy": rule, "rule": section }),
        json!({ "type": "http", "verdict": "deny", "method": "GET", "host": "shop",
            "path": "/\u{1b}[2Jadmin", "status": 403, "reason": "no_rule_allows" }),
        json!({ "type": "http", "verdict": "audit", "method": "PUT", "host": "shop", "path": "/",
            "status": 0, "reason": "no_rule_allows" }),
        json!({ "type": "kafka", "verdict": "deny", "api": "Produce", "client_id": "c", "group": "",
            "topics": ["orders"], "denied_topics": ["audit", "keys"], "reason": "no_rule_allows" }),
        json!({ "type": "kafka", "verdict": "allow", "api": "JoinGroup", "client_id": "c",
            "group": "readers", "topics": [], "denied_topics": [], "reason": "rule_allows" }),
        json!({ "type": "connection", "verdict": "deny", "reason": "protocols_differ" }),
        json!({ "type": "refused", "protocol": "http1", "verdict": "deny", "reason": "target_parameter" }),
        json!({ "type": "limit", "verdict": "deny", "reason": "connections" }),
        json!({ "type": "limit", "verdict": "deny", "reason": "no_endpoint", "endpoint": null,
            "source": nobody, "destination": { "address": "", "identity": 0, "labels": "" } }),
    ];
    let mut said = String::new();
    for line in lines {
        let mut told = json!({ "event": "judged", "time": "2026-11-21T19:41:15.957659Z",
            "endpoint": "default/shop", "direction": "ingress", "source": client, "destination": shop,
            "policy": "", "rule": "" });
        let Some(object) = line.as_object() else { continue };
        for (name, value) in object {
            told[name] = value.clone();
        }
        said += &news(&told);
    }
    compare("monitor-l7.table.txt", &said);
}

#[test]
fn a_change_is_a_line_that_begins_as_those_of_packets_do() {
    let told = [
        crate::state::News::ObjectBroken {
            object: "Service default/shop".to_owned(),
            origin: "objects/shop.yaml:1".to_owned(),
            error: "objects/shop.yaml:7:16: not a port\n  7 | nodePort: 99999".to_owned(),
        },
        crate::state::News::Addresses { put: 2, removed: 0 },
        crate::state::News::Synced,
    ];
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_micros(1_795_290_075_957_659);
    let line = |told| {
        let dated = crate::state::Dated::at(time, told);
        news(&serde_json::to_value(dated).unwrap())
    };
    let said: String = told.into_iter().map(line).collect();
    compare("monitor-change.table.txt", &said);
}
