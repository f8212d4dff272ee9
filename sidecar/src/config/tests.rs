//! The file as users get it right and wrong.

use std::path::Path;

use super::read::parse;
use super::{EXAMPLE, from_file};

fn error(text: &str) -> String {
    match parse("sidecar.yaml", text) {
        Err(error) => error.to_string(),
        Ok(file) => match from_file(&file, Path::new("sidecar.yaml")) {
            Err(failure) => failure.message,
            Ok(_) => panic!("no error in {text}"),
        },
    }
}

#[test]
fn the_example_is_a_valid_file_with_the_defaults_it_claims() {
    let file = parse("example.yaml", EXAMPLE).unwrap_or_else(|error| panic!("{error}"));
    let config = from_file(&file, Path::new("/etc/portreeve/example.yaml"))
        .unwrap_or_else(|failure| panic!("{}", failure.message));
    assert_eq!(config.limits, portreeve_core::Limits::default());
    let paths = config.policy.files().map(|files| files.paths.as_slice());
    assert_eq!(paths, Some(&[Path::new("/etc/portreeve/policies/").to_owned()][..]));
}

const MINIMAL: &str = "workload: {labels: {app: shop}}\npolicy: {paths: [p.yaml]}\n";

#[test]
fn a_minimal_file_is_enough() {
    let text = format!("{MINIMAL}inbound: [{{listen: '127.0.0.1:0', upstream: '127.0.0.1:80'}}]\n");
    let file = parse("sidecar.yaml", &text).unwrap_or_else(|error| panic!("{error}"));
    assert!(from_file(&file, Path::new("sidecar.yaml")).is_ok());
}

#[test]
fn errors_say_where_and_what_is_wrong() {
    for (addition, expected) in [
        ("inbund: []\n", "sidecar.yaml:3:1: unknown field `inbund`"),
        ("limits: {header_timeout: 10}\n", "`10` is not a time"),
        ("limits: {header_timeout: 0s}\n", "a time of zero"),
        (
            "peers: [{addresses: [10.0.0.0/33], labels: {}}]\n",
            "`10.0.0.0/33` is not an address or a prefix",
        ),
        ("inbound: [{listen: '127.0.0.1:1'}]\n", "`inbound[0].upstream`: is missing"),
        ("inbound: [{listen: 'here', upstream: '127.0.0.1:1'}]\n", "sidecar.yaml:3:20: "),
        ("", "nothing to listen on"),
    ] {
        let shown = error(&format!("{MINIMAL}{addition}"));
        assert!(shown.contains(expected), "{addition}\n{shown}");
    }
}

/// `docs/configuration.md` carries the example; set `UPDATE_EXPECTED=1` to write it anew.
#[test]
fn the_documentation_carries_the_example() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let expected = format!(
        "# Configuration\n\n\
         `portreeve run --config sidecar.yaml` reads this file; `portreeve config example` prints it, \
         and `portreeve config check sidecar.yaml` checks one together with the policy it names. Every \
         key that has a default may be left out. An unknown key is an error. Relative paths begin at \
         the file's own folder.\n\n\
         `portreeve run --help` lists the flags that do the same without a file.\n\n```yaml\n{EXAMPLE}```\n"
    );
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, &expected).unwrap_or_else(|error| panic!("{error}"));
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "run `UPDATE_EXPECTED=1 cargo test -p portreeve`");
}
