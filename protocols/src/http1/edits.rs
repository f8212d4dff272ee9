//! Changes to the head of an allowed request, and the writing of a changed head.

use super::head::Head;

/// Changes to the head of an allowed request, collected by the handler while it decides. Fields
/// that frame or route the message can't be changed; asking for it has no effect.
#[derive(Debug, Default)]
pub struct HeadEdits {
    edits: Vec<Edit>,
}

#[derive(Debug)]
struct Edit {
    name: Box<str>,
    removes: bool,
    adds: Option<Box<[u8]>>,
}

/// What the gate itself relies on.
const FIXED: [&str; 6] =
    ["host", "content-length", "transfer-encoding", "connection", "upgrade", "expect"];

impl HeadEdits {
    /// Adds a field at the end.
    pub fn add(&mut self, name: &str, value: &[u8]) {
        self.push(name, false, Some(value));
    }

    /// Removes every field of this name, whatever its case.
    pub fn remove(&mut self, name: &str) {
        self.push(name, true, None);
    }

    /// Removes every field of this name, then adds one.
    pub fn replace(&mut self, name: &str, value: &[u8]) {
        self.push(name, true, Some(value));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    fn push(&mut self, name: &str, removes: bool, value: Option<&[u8]>) {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let fixed = FIXED.iter().any(|fixed| name.eq_ignore_ascii_case(fixed));
        let clean = |value: &[u8]| value.iter().all(|&b| b == b'\t' || b >= b' ' && b != 0x7f);
        if fixed || name.is_empty() || !name.bytes().all(token) || !value.is_none_or(clean) {
            return;
        }
        let adds = value.map(Box::from);
        self.edits.push(Edit { name: name.into(), removes, adds });
    }

    fn keeps(&self, name: &str) -> bool {
        !self.edits.iter().any(|edit| edit.removes && edit.name.eq_ignore_ascii_case(name))
    }
}

/// Writes the head of a request anew: its target in normal form, with the edits, and without an
/// upgrade that isn't passed on.
pub(super) fn rewrite(head: &Head<'_>, path: &str, edits: &HeadEdits, out: &mut Vec<u8>) {
    out.extend_from_slice(head.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(path.as_bytes());
    out.extend_from_slice(if head.minor_version == 1 {
        b" HTTP/1.1\r\n"
    } else {
        b" HTTP/1.0\r\n"
    });
    for field in head.fields {
        let name = field.name;
        if !edits.keeps(name) {
            continue;
        }
        if head.drops_upgrade {
            if is_any(name, &["upgrade", "http2-settings"]) {
                continue;
            }
            if name.eq_ignore_ascii_case("connection") {
                write_options(field.value, out);
                continue;
            }
        }
        write_field(name, field.value, out);
    }
    // Later edits win over earlier ones of the same field only if they remove it; that is how rules
    // that run one after the other add up.
    for edit in &edits.edits {
        if let Some(value) = &edit.adds {
            write_field(&edit.name, value, out);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// `Connection` without the options that ask for an upgrade.
fn write_options(value: &[u8], out: &mut Vec<u8>) {
    let upgrade = |option: &&[u8]| {
        option.eq_ignore_ascii_case(b"upgrade") || option.eq_ignore_ascii_case(b"http2-settings")
    };
    let options = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
    let kept: Vec<&[u8]> =
        options.filter(|option| !option.is_empty() && !upgrade(option)).collect();
    if !kept.is_empty() {
        write_field("Connection", &kept.join(&b", "[..]), out);
    }
}

fn write_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn is_any(name: &str, names: &[&str]) -> bool {
    names.iter().any(|other| name.eq_ignore_ascii_case(other))
}
