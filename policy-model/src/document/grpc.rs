//! `rules.grpc`: service, method and metadata, our own shape for what is HTTP on the wire. It becomes
//! an HTTP rule: `POST`, `/service/method`, and the metadata as header fields.

use std::sync::Arc;

use super::node::Node;
use super::reader::{Fields, Reader};
use super::values;
use crate::pattern::Pattern;
use crate::rule::{HeaderMatch, HttpRule, Mismatch};

/// Reads one gRPC rule.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<Arc<HttpRule>> {
    let mut fields = reader.fields(node)?;
    let section = reader.path().to_owned();
    let errors = reader.errors();
    let service = name(reader, &mut fields, "service", |b| b == b'.');
    let method = name(reader, &mut fields, "method", |_| false);
    let mut headers = Vec::new();
    if let Some(node) = fields.take("metadata") {
        let read = reader.field("metadata", |reader| reader.list(node, metadata));
        headers.extend(read.unwrap_or_default());
    }
    fields.finish(reader);
    if reader.errors() > errors {
        return None;
    }
    let service = service.map_or("[^/]+".to_owned(), regex_syntax::escape);
    let method = method.map_or("[^/]+".to_owned(), regex_syntax::escape);
    let path = compile(reader, node, &format!("/{service}/{method}"))?;
    let post = compile(reader, node, "POST")?;
    Some(Arc::new(HttpRule {
        section,
        at: node.at,
        method: Some(post),
        path: Some(path),
        host: None,
        headers,
        query: Vec::new(),
    }))
}

fn compile(reader: &mut Reader<'_>, node: &Node, text: &str) -> Option<Pattern> {
    Pattern::new(text).map_err(|error| reader.error(node.at, error)).ok()
}

/// A name as protobuf has them; absent or `*`: any.
fn name<'n>(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'n>,
    field: &'static str,
    also: impl Fn(u8) -> bool,
) -> Option<&'n str> {
    let node = fields.take(field)?;
    reader.field(field, |reader| {
        let text = reader.text(node)?;
        if text == "*" {
            return None;
        }
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || also(b))
        {
            reader.error_hint(
                node.at,
                format_args!("`{text}` is not the name of a gRPC {field}"),
                "write it as in the .proto file: `service: shop.v1.Orders`, `method: Get`; `*` is any",
            );
            return None;
        }
        Some(text)
    })
}

/// A condition on one metadata key.
fn metadata(reader: &mut Reader<'_>, node: &Node) -> Option<HeaderMatch> {
    let mut fields = reader.fields(node)?;
    let name = fields.required("name", reader);
    let name = name.and_then(|node| reader.field("name", |r| values::header_name(r, node)));
    let value = values::condition(reader, &mut fields);
    fields.finish(reader);
    Some(HeaderMatch { name: name?, value: value?, mismatch: Mismatch::Fail })
}
