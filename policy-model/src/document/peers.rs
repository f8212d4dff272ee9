//! Who a rule is about: label selectors, CIDRs, entities, names, services, nodes.

use super::cidr;
use super::dns;
use super::node::Node;
use super::reader::{Fields, Reader};
use super::selector;
use super::service;
use super::spec::Scope;
use crate::entity;
use crate::label::RESERVED;
use crate::rule::{PeerSelector, Peers, TrafficDirection};
use crate::selector::{Requirement, Selector};

/// The names of the peer fields of a direction.
struct Names {
    endpoints: &'static str,
    requires: &'static str,
    cidr: &'static str,
    cidr_set: &'static str,
    entities: &'static str,
    groups: &'static str,
    nodes: &'static str,
}

const INGRESS: Names = Names {
    endpoints: "fromEndpoints",
    requires: "fromRequires",
    cidr: "fromCIDR",
    cidr_set: "fromCIDRSet",
    entities: "fromEntities",
    groups: "fromGroups",
    nodes: "fromNodes",
};

const EGRESS: Names = Names {
    endpoints: "toEndpoints",
    requires: "toRequires",
    cidr: "toCIDR",
    cidr_set: "toCIDRSet",
    entities: "toEntities",
    groups: "toGroups",
    nodes: "toNodes",
};

/// A peer field, and whom it selects; `None` after an error.
type Said = (&'static str, Option<Filled>);

/// What a peer field says.
struct Filled {
    peers: Vec<PeerSelector>,
    /// The list has items, whether or not anybody is selected by them.
    filled: bool,
}

/// Reads the peer fields of an entry: who, and what they are required to fulfil.
pub(super) fn read(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    scope: &Scope<'_>,
) -> Option<(Peers, Vec<Selector>)> {
    let names = match scope.direction {
        TrafficDirection::Ingress => INGRESS,
        TrafficDirection::Egress => EGRESS,
    };
    let at = fields.at;
    let mut said: Vec<Said> = Vec::new();
    let mut one =
        |reader: &mut Reader<'_>,
         fields: &mut Fields<'_>,
         name: &'static str,
         read: &mut dyn FnMut(&mut Reader<'_>, &Node) -> Option<Vec<PeerSelector>>| {
            if let Some(node) = fields.take(name) {
                said.push((name, listed(reader, name, node, read)));
            }
        };
    one(reader, fields, names.endpoints, &mut |reader, node| {
        Some(vec![PeerSelector::Endpoints(endpoint(reader, node, scope)?)])
    });
    one(reader, fields, names.cidr, &mut |r, node| Some(vec![cidr::peer(r, node)?]));
    one(reader, fields, names.cidr_set, &mut |r, node| Some(vec![cidr::set(r, node)?]));
    one(reader, fields, names.entities, &mut entities);
    one(reader, fields, names.groups, &mut |reader, node| group(reader, node));
    one(reader, fields, names.nodes, &mut |reader, node| nodes(reader, node, scope));
    if scope.direction == TrafficDirection::Egress {
        one(reader, fields, "toServices", &mut |reader, node| {
            Some(vec![service::read(reader, node)?])
        });
        if !scope.denies {
            one(reader, fields, "toFQDNs", &mut |reader, node| {
                Some(dns::peer(reader, node)?.into_iter().collect())
            });
        }
    }
    let requires = match fields.take(names.requires) {
        None => Some(Vec::new()),
        Some(node) => reader.field(names.requires, |reader| {
            let errors = reader.errors();
            let list = reader.list(node, |reader, node| endpoint(reader, node, scope));
            list.filter(|_| reader.errors() == errors)
        }),
    };
    let filled: Vec<_> = said
        .iter()
        .filter(|(_, peers)| peers.as_ref().is_some_and(|peers| peers.filled))
        .map(|(name, _)| *name)
        .collect();
    if filled.len() > 1 {
        reader.error_hint(
            at,
            format_args!("`{}` can't stand together in one rule", filled.join("` and `")),
            "write one rule for each; they are alternatives",
        );
        return None;
    }
    let requires = requires?;
    if said.is_empty() {
        // Requirements alone grant nothing.
        let nobody = !requires.is_empty();
        return Some((if nobody { Peers::Of(Vec::new()) } else { Peers::Unsaid }, requires));
    }
    let lists: Option<Vec<_>> = said.into_iter().map(|(_, peers)| peers).collect();
    let lists = lists?;
    // An empty list selects nobody, even beside another field that is filled.
    let poisoned = lists.iter().any(|list| list.peers.is_empty());
    let peers = lists.into_iter().flat_map(|list| list.peers);
    Some((Peers::Of(if poisoned { Vec::new() } else { peers.collect() }), requires))
}

fn listed(
    reader: &mut Reader<'_>,
    name: &str,
    node: &Node,
    read: &mut dyn FnMut(&mut Reader<'_>, &Node) -> Option<Vec<PeerSelector>>,
) -> Option<Filled> {
    let errors = reader.errors();
    let lists = reader.field(name, |reader| reader.list(node, read))?;
    (reader.errors() == errors)
        .then(|| Filled { filled: !lists.is_empty(), peers: lists.into_iter().flatten().collect() })
}

/// One item of `fromEndpoints`, put where the policy means it.
fn endpoint(reader: &mut Reader<'_>, node: &Node, scope: &Scope<'_>) -> Option<Selector> {
    let mut selector = selector::read(reader, node)?;
    if !scope.unplaced {
        selector.scope(scope.namespace);
    }
    Some(selector)
}

fn entities(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<PeerSelector>> {
    let name = reader.text(node)?;
    let name = reader.one_of(node.at, name, "an entity", &entity::NAMES)?;
    entity::selectors(name)
}

/// `fromNodes`, `toNodes`: the labels of remote nodes.
fn nodes(reader: &mut Reader<'_>, node: &Node, scope: &Scope<'_>) -> Option<Vec<PeerSelector>> {
    if !scope.dialect.features.node_selectors {
        reader.error_hint(
            node.at,
            "nodes can be selected by label only where node labels are known",
            "use `fromEntities: [remote-node]`, or turn the node-selector-labels option on",
        );
        return None;
    }
    let mut selector = selector::read(reader, node)?;
    selector.requirements.push(Requirement::exists(Some(RESERVED), "remote-node"));
    Some(vec![PeerSelector::Labels(selector)])
}

/// `fromGroups`, `toGroups`: a cloud resolves them, into rules of a policy of its own. Here they
/// select nobody.
fn group(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<PeerSelector>> {
    let mut fields = reader.fields(node)?;
    let aws = fields.required("aws", reader);
    fields.finish(reader);
    let aws = aws?;
    reader.field("aws", |reader| {
        let mut fields = reader.fields(aws)?;
        fields.ignore(&["labels", "securityGroupsIds", "securityGroupsNames", "region"]);
        fields.finish(reader);
        reader.warning(
            node.at,
            "groups of a cloud are not resolved here, so this selects nobody",
            "name the addresses: `fromCIDRSet`, or a CiliumCIDRGroup",
        );
        Some(Vec::new())
    })
}
