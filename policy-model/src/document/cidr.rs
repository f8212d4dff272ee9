//! CIDRs: `fromCIDR`, `fromCIDRSet`, `ipBlock`, and groups of them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::node::Node;
use super::object::name_of;
use super::reader::Reader;
use super::selector;
use crate::rule::{GroupRef, PeerSelector};

/// One item of `fromCIDR` or `toCIDR`.
pub(super) fn peer(reader: &mut Reader<'_>, node: &Node) -> Option<PeerSelector> {
    Some(PeerSelector::Cidr { prefix: prefix_or_address(reader, node)?, except: Vec::new() })
}

/// A prefix, or an address, which is a prefix of its full length.
pub(super) fn prefix_or_address(reader: &mut Reader<'_>, node: &Node) -> Option<IpNet> {
    match reader.text(node)?.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address)),
        Err(_) => prefix(reader, node),
    }
}

pub(super) fn prefix(reader: &mut Reader<'_>, node: &Node) -> Option<IpNet> {
    let text = reader.text(node)?;
    match text.parse::<IpNet>() {
        Ok(prefix) => Some(prefix.trunc()),
        Err(_) => {
            reader.error_hint(
                node.at,
                format_args!("`{text}` is not a CIDR"),
                "write an address and a prefix length: 10.0.0.0/8 or 2001:db8::/32",
            );
            None
        }
    }
}

/// One item of `fromCIDRSet` or `toCIDRSet`: prefixes, or groups of them, and what is taken out.
pub(super) fn set(reader: &mut Reader<'_>, node: &Node) -> Option<PeerSelector> {
    let mut fields = reader.fields(node)?;
    let at = fields.at;
    let errors = reader.errors();
    let cidr = fields.take("cidr").map(|node| reader.field("cidr", |r| prefix(r, node)));
    let by_name = fields.take("cidrGroupRef").map(|node| {
        reader.field("cidrGroupRef", |reader| name_of(reader, node)).map(GroupRef::Name)
    });
    let by_labels = fields.take("cidrGroupSelector").map(|node| {
        reader
            .field("cidrGroupSelector", |reader| selector::read(reader, node))
            .map(GroupRef::Labels)
    });
    let except = match fields.take("except") {
        Some(node) => reader.field("except", |reader| reader.list(node, prefix)),
        None => Some(Vec::new()),
    };
    fields.finish(reader);
    let said = [cidr.is_some(), by_name.is_some(), by_labels.is_some()];
    if said.iter().filter(|said| **said).count() != 1 {
        reader.error_hint(
            at,
            "exactly one of `cidr`, `cidrGroupRef` and `cidrGroupSelector` is needed",
            "write one item for each",
        );
        return None;
    }
    let except = except?;
    if let Some(group) = by_name.or(by_labels).flatten() {
        return Some(PeerSelector::CidrGroup { group, except });
    }
    let prefix = cidr.flatten().filter(|_| reader.errors() == errors)?;
    inside(reader, at, prefix, &except)?;
    Some(PeerSelector::Cidr { prefix, except })
}

/// Whether every exception lies inside of the prefix.
pub(super) fn inside(
    reader: &mut Reader<'_>,
    at: crate::diagnostic::Position,
    prefix: IpNet,
    except: &[IpNet],
) -> Option<()> {
    let outside = except.iter().find(|except| !prefix.contains(*except));
    if let Some(outside) = outside {
        reader.error_hint(
            at,
            format_args!("the exception `{outside}` is not inside `{prefix}`"),
            "an exception takes addresses out of `cidr`; it denies nothing by itself",
        );
    }
    outside.is_none().then_some(())
}
