//! Answers as tables, for people. Programs ask for JSON.

#[cfg(test)]
mod tests;

use std::fmt::Write;

use serde_json::{Value, json};

use crate::state::short;

/// JSON, as it came.
pub(crate) fn as_json(answer: &Value) -> String {
    let text = serde_json::to_string_pretty(answer).unwrap_or_else(|_| answer.to_string());
    text + "\n"
}

/// `endpoint list`.
pub(crate) fn endpoints(answer: &Value) -> String {
    table(
        answer,
        &[
            ("ID", "id"),
            ("ENDPOINT", "name"),
            ("IDENTITY", "identity"),
            ("ADDRESSES", "addresses"),
            ("AT", "attachment"),
            ("INGRESS", "ingress_enforced"),
            ("EGRESS", "egress_enforced"),
            ("REVISION", "revision"),
            ("IN FORCE", "realised"),
            ("ERROR", "error"),
        ],
        "no endpoints",
    )
}

/// `endpoint get`.
pub(crate) fn endpoint(answer: &Value) -> String {
    let fields = [
        ("Endpoint", "name"),
        ("Id", "id"),
        ("Identity", "identity"),
        ("Labels", "labels"),
        ("Addresses", "addresses"),
        ("Attached at", "attachment"),
        ("Ingress enforced", "ingress_enforced"),
        ("Egress enforced", "egress_enforced"),
        ("Revision wanted", "revision"),
        ("Revision in force", "realised"),
        ("Error", "error"),
    ];
    let mut out = fields_of(answer, &fields);
    let limit = |name: &str| cell(&answer["limits"][name]);
    let (connections, share) = (limit("connections"), limit("cpu_share"));
    line(
        &mut out,
        format_args!(
            "{:<18} {connections} connections, {} bytes held, share of time {share}",
            "Limits:",
            limit("buffered_bytes")
        ),
    );
    for rule in answer["rules"].as_array().into_iter().flatten() {
        line(&mut out, format_args!("Rule:              {}", cell(rule)));
    }
    out.push('\n');
    out + &policy(&answer["ports"])
}

/// `policy get`. Below a line that is inspected, one for each rule about what is said.
pub(crate) fn policy(answer: &Value) -> String {
    let mut rows = Vec::new();
    for row in answer.as_array().into_iter().flatten() {
        rows.push(row.clone());
        rows.extend(row["requests"].as_array().into_iter().flatten().map(request_row));
    }
    table(
        &Value::Array(rows),
        &[
            ("DIRECTION", "direction"),
            ("WHO", "who"),
            ("PROTOCOL", "protocol"),
            ("PORTS", "ports"),
            ("ACTION", "action"),
            ("RULE", "rule"),
        ],
        "nothing is allowed",
    )
}

/// A rule about requests, under the line that it belongs to.
fn request_row(request: &Value) -> Value {
    // Not nothing, which has a sign of its own.
    let blank = " ";
    let audit = if request["audited"].as_bool() == Some(true) { "audit: " } else { "" };
    json!({ "direction": blank, "who": [blank], "protocol": blank, "ports": blank,
        "action": format!("  {audit}{}", printable(&cell(&request["allows"]))),
        "rule": request["rule"] })
}

/// `service list`.
pub(crate) fn services(answer: &Value) -> String {
    table(
        answer,
        &[
            ("SERVICE", "name"),
            ("PORT", "port"),
            ("PROTOCOL", "protocol"),
            ("FRONTENDS", "frontends"),
            ("BACKENDS", "backends"),
            ("OPTIONS", "options"),
            ("IN FORCE", "realised"),
            ("ERROR", "error"),
        ],
        "no services",
    )
}

/// `identity list`.
pub(crate) fn identities(answer: &Value) -> String {
    let columns = [("IDENTITY", "identity"), ("WORKLOADS", "workloads"), ("LABELS", "name")];
    table(answer, &columns, "no identities")
}

/// `bpf … list`.
pub(crate) fn listing(answer: &Value) -> String {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(cell).collect()
    };
    let rows: Vec<_> = answer["rows"].as_array().into_iter().flatten().map(texts).collect();
    let mut out = aligned(&texts(&answer["columns"]), &rows);
    if let Some(more @ 1..) = answer["more"].as_u64() {
        line(&mut out, format_args!("and {more} more: `--limit` says how many are shown"));
    }
    out
}

/// `status`.
pub(crate) fn status(answer: &Value) -> String {
    let mut out = String::new();
    let number = |name: &str| answer[name].as_u64().unwrap_or_default();
    let with_pending = |name: &str, pending: &str| match number(pending) {
        0 => number(name).to_string(),
        pending => format!("{} ({pending} not in force yet)", number(name)),
    };
    let datapath = cell(&answer["datapath"]);
    let enforcing = match answer["enforcing"].as_bool() {
        Some(true) => datapath,
        _ => format!("{datapath}: NOTHING IS ENFORCED"),
    };
    for (name, text) in [
        ("Node", cell(&answer["node"])),
        ("Version", cell(&answer["version"])),
        ("Datapath", enforcing),
        ("State", format!("{}, revision {}", state(answer), number("revision"))),
        ("Policies", number("policies").to_string()),
        ("Endpoints", with_pending("endpoints", "endpoints_pending")),
        ("Peers", number("peers").to_string()),
        ("Identities", number("identities").to_string()),
        ("Addresses", with_pending("addresses", "addresses_pending")),
        ("Services", number("services").to_string()),
    ] {
        line(&mut out, format_args!("{:<12}{text}", format!("{name}:")));
    }
    let attached = answer["attached"]["attached"].as_array();
    for program in attached.into_iter().flatten() {
        line(&mut out, format_args!("Attached:   {}", cell(program)));
    }
    for map in answer["attached"]["maps"].as_array().into_iter().flatten() {
        let (name, entries) = (cell(&map["name"]), cell(&map["entries"]));
        line(&mut out, format_args!("Map:        {name} {entries} of {}", cell(&map["capacity"])));
    }
    let objects: Vec<_> = answer["object_errors"].as_array().into_iter().flatten().collect();
    for error in &objects {
        object_error(&mut out, error);
    }
    let errors: Vec<_> = answer["errors"].as_array().into_iter().flatten().collect();
    for error in &errors {
        line(&mut out, format_args!("\nerror: {}", cell(error)));
    }
    out
}

fn state(answer: &Value) -> String {
    match (answer["draining"].as_u64(), answer["settled"].as_bool(), answer["synced"].as_bool()) {
        (Some(1), ..) => "ending, waits for 1 connection".to_owned(),
        (Some(count), ..) => format!("ending, waits for {count} connections"),
        (_, Some(true), _) => "all that is wanted is in force".to_owned(),
        (_, _, Some(true)) => "not all that is wanted is in force".to_owned(),
        _ => "starting".to_owned(),
    }
}

fn object_error(out: &mut String, error: &Value) {
    let place = match error["line"].as_u64() {
        None | Some(0) => cell(&error["file"]),
        Some(number) => format!("{}:{number}", cell(&error["file"])),
    };
    let field = match error["field"].as_str() {
        None | Some("") => String::new(),
        Some(field) => format!("`{field}`: "),
    };
    line(out, format_args!("\nerror: {place}: {field}{}", cell(&error["error"])));
    if let Some(hint) = error["hint"].as_str() {
        line(out, format_args!("  hint: {hint}"));
    }
    let Some(object) = error["object"].as_str() else { return };
    let is = |what: &str| error[what].as_bool() == Some(true);
    let force = if is("last_good_in_force") {
        "the version before stays in force"
    } else if is("closed_for_it") {
        "the workloads it could be about are closed until it is mended"
    } else if is("services_stay") {
        "services that the kernel has stay, and whoever may not talk to some services may talk to nobody, \
         until it is mended"
    } else {
        "nothing of it is in force"
    };
    line(out, format_args!("  {object}: {force}"));
}

/// A line of `monitor`.
pub(crate) fn news(news: &Value) -> String {
    match news["event"].as_str() {
        Some("dropped" | "opened") => return packet(news),
        Some("judged") => return request(news),
        _ => {}
    }
    let mut out = format!("{} {}", cell(&news["time"]), cell(&news["event"]));
    for (name, value) in news.as_object().into_iter().flatten() {
        if !matches!(name.as_str(), "event" | "time") {
            // Errors of objects have several lines; here the first says it.
            let text = cell(value);
            let _ = write!(out, " {name}={}", text.lines().next().unwrap_or_default());
        }
    }
    out + "\n"
}

/// `time event endpoint direction: protocol source (who) -> destination (who): why`
fn packet(news: &Value) -> String {
    let text = |name: &str| cell(&news[name]);
    let endpoint = match news["endpoint"].as_str() {
        Some(name) => name.to_owned(),
        None => format!("endpoint {}", text("id")),
    };
    let event = match (news["event"].as_str(), news["verdict"].as_str()) {
        (Some("opened"), Some("audit")) => "opened, would be denied,".to_owned(),
        _ => text("event"),
    };
    format!(
        "{} {event} {endpoint} {}: {} {}\n",
        text("time"),
        text("direction"),
        text("protocol"),
        way_and_reason(news)
    )
}

/// `time event endpoint direction: what was asked source (who) -> destination (who): why`
fn request(news: &Value) -> String {
    let text = |name: &str| cell(&news[name]);
    let event = match (news["type"].as_str(), news["verdict"].as_str()) {
        (Some("limit"), _) => "reset",
        (Some("refused"), _) => "refused",
        (_, Some("allow")) => "allowed",
        (_, Some("audit")) => "allowed, would be denied,",
        _ => "denied",
    };
    let (time, direction) = (text("time"), text("direction"));
    let asked = printable(&asked(news));
    format!("{time} {event} {} {direction}: {asked} {}\n", text("endpoint"), way_and_reason(news))
}

/// What was asked, in a few words.
fn asked(news: &Value) -> String {
    let text = |name: &str| cell(&news[name]);
    match news["type"].as_str() {
        Some("http") => {
            let status = match news["status"].as_u64() {
                None | Some(0) => "no answer".to_owned(),
                Some(status) => status.to_string(),
            };
            let (host, path) = (news["host"].as_str().unwrap_or_default(), text("path"));
            format!("HTTP {} {host}{path} ({status})", text("method"))
        }
        Some("kafka") => {
            let mut out = format!("Kafka {}", text("api"));
            for (name, title) in
                [("topics", "topics"), ("denied_topics", "denied topics"), ("group", "group")]
            {
                let is_said = text(name) != "-";
                let _ = if is_said { write!(out, " {title} {}", text(name)) } else { Ok(()) };
            }
            out
        }
        Some("refused") => format!("a message of {}", text("protocol")),
        Some("limit" | "connection") => "TCP".to_owned(),
        _ => text("type"),
    }
}

/// What a client has written must not steer the terminal of who reads it.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => out.extend(character.escape_default()),
            false => out.push(character),
        }
    }
    out
}

/// `source (who) -> destination (who): why`
fn way_and_reason(news: &Value) -> String {
    let text = |name: &str| cell(&news[name]);
    let party = |name: &str| {
        let party = &news[name];
        format!("{} ({})", cell(&party["address"]), called(party))
    };
    let mut out = format!("{} -> {}: {}", party("source"), party("destination"), text("reason"));
    if news["policy"].as_str().is_some_and(|policy| !policy.is_empty()) {
        let _ = write!(out, " by {} {}", text("policy"), text("rule"));
    }
    out
}

/// Who somebody is: the labels, or the number if they have none.
fn called(party: &Value) -> String {
    match party["labels"].as_str() {
        None | Some("") => format!("identity {}", cell(&party["identity"])),
        Some(labels) => short(&labels.split(',').map(portreeve_policy::Label::of).collect()),
    }
}

fn fields_of(answer: &Value, fields: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (title, name) in fields {
        line(&mut out, format_args!("{:<18} {}", format!("{title}:"), cell(&answer[*name])));
    }
    out
}

/// A table of some fields of each row. Columns in which nobody has anything are left out, if they are
/// about errors.
fn table(answer: &Value, columns: &[(&str, &str)], nothing: &str) -> String {
    let rows: Vec<&Value> = answer.as_array().into_iter().flatten().collect();
    if rows.is_empty() {
        return format!("{nothing}\n");
    }
    let is_worth = |(_, name): &&(&str, &str)| {
        *name != "error" || rows.iter().any(|row| !row[*name].is_null())
    };
    let columns: Vec<_> = columns.iter().filter(is_worth).collect();
    let titles: Vec<String> = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
    let cell = |row: &&Value, name: &str| match name {
        "who" => who(&row[name]),
        _ => cell(&row[name]),
    };
    let cells = |row: &&Value| columns.iter().map(|(_, name)| cell(row, name)).collect();
    aligned(&titles, &rows.iter().map(cells).collect::<Vec<Vec<String>>>())
}

/// Many who are treated alike: the first few.
fn who(all: &Value) -> String {
    const FEW: usize = 3;
    let all = all.as_array().map_or(&[][..], Vec::as_slice);
    let shown: Vec<String> = all.iter().take(FEW).map(cell).collect();
    match all.len().saturating_sub(FEW) {
        0 => shown.join("; "),
        more => format!("{}; and {more} more", shown.join("; ")),
    }
}

fn aligned(titles: &[String], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let all = rows.iter().filter_map(|row| row.get(column)).chain(titles.get(column));
        all.map(|text| text.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let mut out = String::new();
    for row in std::iter::once(titles).chain(rows.iter().map(Vec::as_slice)) {
        let cells = row.iter().zip(&widths).map(|(text, width)| format!("{text:<width$}"));
        let text = cells.collect::<Vec<_>>().join("  ");
        line(&mut out, format_args!("{}", text.trim_end()));
    }
    out
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        // One error, one line.
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string can't fail.
    let _ = writeln!(out, "{text}");
}
