//! The JSON Schemas know every field that the reader accepts: what loads is valid.
#![expect(clippy::unwrap_used, reason = "a failing test may panic")]

use std::fs;
use std::path::Path;

use portreeve_policy::{Features, Repository, Source};
use serde_json::Value;

/// What of a value a schema does not allow. Only the words that our schemas use are understood.
fn invalid(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let definition = &root["$defs"][name.trim_start_matches("#/$defs/")];
        assert!(definition.is_object(), "{name} is not defined");
        return invalid(root, definition, value, at, found);
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        found.push(format!("{at}: {value} is none of {words:?}"));
    }
    if schema.get("const").is_some_and(|only| only != value) {
        found.push(format!("{at}: {value} is not {}", schema["const"]));
    }
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "boolean" => value.is_boolean(),
        other => panic!("{other} is not a type here"),
    };
    let allowed = match &schema["type"] {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().any(|name| is(name.as_str().unwrap())),
        _ => true,
    };
    if !allowed {
        found.push(format!("{at}: {value} is not of type {}", schema["type"]));
        return;
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        invalid(root, &schema["items"], item, &format!("{at}[{index}]"), found);
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => found.push(format!("{at}: not a field")),
            (Value::Null, more) if more.is_object() => invalid(root, more, field, &at, found),
            (Value::Null, _) => {}
            (known, _) if field.is_null() => assert!(known.is_object()),
            (known, _) => invalid(root, known, field, &at, found),
        }
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            found.push(format!("{at}: {name} is missing"));
        }
    }
}

fn schema(kind: &str) -> Option<Value> {
    let name = match kind {
        "CiliumNetworkPolicy" | "CiliumClusterwideNetworkPolicy" => "CiliumNetworkPolicy",
        "TrafficPolicy" => "TrafficPolicy",
        _ => return None,
    };
    let path = format!("{}/schema/{name}.json", env!("CARGO_MANIFEST_DIR"));
    Some(serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
}

/// Every policy of the cases that loads.
fn policies() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut policies = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let file: Value = serde_saphyr::from_str(&text).unwrap();
        for case in file["cases"].as_array().unwrap() {
            policies.extend(case["policies"].as_array().into_iter().flatten().cloned());
        }
    }
    let features = Features { node_selectors: true, extended_protocols: true };
    policies.retain(|policy| {
        let source = Source::new("policy.json", policy.to_string());
        Repository::parse_with([source], features).is_ok()
    });
    policies
}

#[test]
fn what_loads_is_valid() {
    let mut seen = 0;
    for policy in policies() {
        let Some(schema) = schema(policy["kind"].as_str().unwrap()) else { continue };
        let mut found = Vec::new();
        invalid(&schema, &schema, &policy, "", &mut found);
        assert!(found.is_empty(), "{found:?}\n{policy}");
        seen += 1;
    }
    assert!(seen > 100, "only {seen} policies");
}

#[test]
fn a_misspelt_field_is_not_valid() {
    let schema = schema("CiliumNetworkPolicy").unwrap();
    let policy = serde_json::json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "x"},
        "spec": {"endpointSelector": {}, "ingres": []},
    });
    let mut found = Vec::new();
    invalid(&schema, &schema, &policy, "", &mut found);
    assert_eq!(found, [".spec.ingres: not a field"]);
}
