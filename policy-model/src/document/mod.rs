//! What policy files say: text → tree → checked rules, with every error at once.
//!
//! | file | what |
//! | --- | --- |
//! | `node.rs` | the tree: values with their place in the file |
//! | `reader.rs` | walking it: paths, unknown fields, accounting of errors |
//! | `object.rs` | kinds, metadata, `spec` and `specs` |
//! | `spec.rs` | a rule: subject, directions, entries |
//! | `peers.rs` | selectors, CIDRs, entities |
//! | `ports.rs` | `toPorts` |
//! | `http.rs` | `rules.http` |

mod http;
mod node;
mod object;
mod peers;
mod ports;
mod reader;
mod spec;

use self::reader::Reader;
use crate::diagnostic::Diagnostic;
use crate::rule::Policy;
use crate::source::Source;

/// Reads all policies of a source. What has errors is left out, and the errors are reported.
pub(crate) fn read(source: &Source, found: &mut Vec<Diagnostic>) -> Vec<Policy> {
    let nodes = match node::parse(source) {
        Ok(nodes) => nodes,
        Err(error) => {
            found.push(*error);
            return Vec::new();
        }
    };
    let mut reader = Reader::new(source);
    let mut policies = Vec::new();
    for node in &nodes {
        object::read(&mut reader, node, &mut policies);
    }
    reader.found.sort_by_key(|found| (found.line, found.column));
    found.append(&mut reader.found);
    policies
}

/// What a kind of policy may say.
#[derive(Clone, Copy)]
pub(crate) struct Dialect {
    /// Whether peers without a namespace are in this one.
    pub(crate) clusterwide: bool,
    /// Whether our own fields are known.
    pub(crate) extended: bool,
}
