//! `terminatingTLS`, `originatingTLS`, `serverNames` and `listener` of a `toPorts` item.

use super::node::Node;
use super::reader::{Fields, Reader};
use super::spec::Scope;
use crate::name::NamePattern;
use crate::rule::{Listener, TlsContext, TlsContexts};

/// Reads both TLS contexts.
pub(super) fn contexts(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<TlsContexts> {
    let mut one = |name: &'static str| match fields.take(name) {
        None => Some(None),
        Some(node) => reader.field(name, |reader| context(reader, node)).map(Some),
    };
    let (terminating, originating) = (one("terminatingTLS"), one("originatingTLS"));
    Some(TlsContexts { terminating: terminating?, originating: originating? })
}

fn context(reader: &mut Reader<'_>, node: &Node) -> Option<TlsContext> {
    let mut fields = reader.fields(node)?;
    let secret = fields.required("secret", reader);
    let secret = secret.and_then(|node| reader.field("secret", |reader| secret_ref(reader, node)));
    let mut text = |name: &'static str| {
        let node = fields.take(name)?;
        reader.field(name, |reader| reader.text(node)).map(str::to_owned)
    };
    let (trusted_ca, certificate) = (text("trustedCA"), text("certificate"));
    let private_key = text("privateKey");
    fields.finish(reader);
    Some(TlsContext { secret: secret?, trusted_ca, certificate, private_key })
}

/// Namespace and name of a secret.
pub(super) fn secret_ref(reader: &mut Reader<'_>, node: &Node) -> Option<(Option<String>, String)> {
    let mut fields = reader.fields(node)?;
    let namespace = match fields.take("namespace") {
        Some(node) => reader.field("namespace", |reader| reader.text(node)).map(str::to_owned),
        None => None,
    };
    let name = fields.required("name", reader);
    let name = name.and_then(|node| {
        reader.field("name", |reader| {
            let name = reader.text(node)?;
            if name.is_empty() {
                reader.error(node.at, "a secret needs a name");
                return None;
            }
            Some(name.to_owned())
        })
    });
    fields.finish(reader);
    Some((namespace, name?))
}

/// Reads `serverNames`: names that TLS clients may ask for.
pub(super) fn server_names(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
) -> Option<Vec<NamePattern>> {
    let Some(node) = fields.take("serverNames") else { return Some(Vec::new()) };
    reader.field("serverNames", |reader| {
        let errors = reader.errors();
        let names = reader.list(node, |reader, node| {
            let text = reader.text(node)?;
            match NamePattern::server_name(text) {
                Ok(name) => Some(name),
                Err(why) => {
                    reader.error_hint(node.at, format_args!("`{text}` is not a server name"), why);
                    None
                }
            }
        })?;
        (reader.errors() == errors).then_some(names)
    })
}

/// Reads `listener`: `Some(None)` if there is none.
pub(super) fn listener(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    scope: &Scope<'_>,
) -> Option<Option<Listener>> {
    let Some(node) = fields.take("listener") else { return Some(None) };
    reader.field("listener", |reader| {
        if scope.direction == crate::rule::TrafficDirection::Ingress {
            reader.error(node.at, "a `listener` is for egress only");
            return None;
        }
        let mut fields = reader.fields(node)?;
        let config = fields.required("envoyConfig", reader);
        let config = config
            .and_then(|node| reader.field("envoyConfig", |reader| envoy_config(reader, node)));
        let name = fields.required("name", reader);
        let name = name.and_then(|node| reader.field("name", |reader| some_text(reader, node)));
        let priority = match fields.take("priority") {
            None => Some(0),
            Some(node) => reader.field("priority", |reader| match node.value {
                super::node::Value::Integer(number @ 0..=100) => u8::try_from(number).ok(),
                _ => {
                    reader.error(node.at, "must be a number from 1 to 100");
                    None
                }
            }),
        };
        fields.finish(reader);
        let (kind, config) = config?;
        Some(Some(Listener { kind, config, name: name?, priority: priority? }))
    })
}

fn envoy_config(reader: &mut Reader<'_>, node: &Node) -> Option<(&'static str, String)> {
    const KINDS: [&str; 2] = ["CiliumEnvoyConfig", "CiliumClusterwideEnvoyConfig"];
    let mut fields = reader.fields(node)?;
    let kind = match fields.take("kind") {
        // Cilium chooses by the policy's own kind.
        None => Some(""),
        Some(node) => reader.field("kind", |reader| {
            let word = reader.text(node)?;
            reader.one_of(node.at, word, "a kind of Envoy configuration", &KINDS)
        }),
    };
    let name = fields.required("name", reader);
    let name = name.and_then(|node| reader.field("name", |reader| some_text(reader, node)));
    fields.finish(reader);
    Some((kind?, name?))
}

fn some_text(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.text(node)?;
    if text.is_empty() {
        reader.error(node.at, "can't be empty");
        return None;
    }
    Some(text.to_owned())
}
