//! `toServices`: services by name or by label (Cilium `api.Service`).

use super::node::Node;
use super::object::name_of;
use super::reader::{Fields, Reader};
use super::selector;
use crate::rule::{PeerSelector, ServiceRef};

/// Reads one item of `toServices`.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<PeerSelector> {
    let mut fields = reader.fields(node)?;
    let at = fields.at;
    let by_name =
        fields.take("k8sService").map(|node| reader.field("k8sService", |r| named(r, node)));
    let by_labels = fields
        .take("k8sServiceSelector")
        .map(|node| reader.field("k8sServiceSelector", |reader| labelled(reader, node)));
    fields.finish(reader);
    match (by_name, by_labels) {
        (Some(service), None) | (None, Some(service)) => service.map(PeerSelector::Service),
        _ => {
            reader.error_hint(
                at,
                "exactly one of `k8sService` and `k8sServiceSelector` is needed",
                "write one item for each",
            );
            None
        }
    }
}

fn named(reader: &mut Reader<'_>, node: &Node) -> Option<ServiceRef> {
    let mut fields = reader.fields(node)?;
    let name = fields.required("serviceName", reader);
    let name = name.and_then(|node| reader.field("serviceName", |reader| name_of(reader, node)));
    let namespace = namespace(reader, &mut fields);
    fields.finish(reader);
    Some(ServiceRef::Name { namespace: namespace?, name: name? })
}

fn labelled(reader: &mut Reader<'_>, node: &Node) -> Option<ServiceRef> {
    let mut fields = reader.fields(node)?;
    let selector = fields.required("selector", reader);
    let selector =
        selector.and_then(|node| reader.field("selector", |reader| selector::read(reader, node)));
    let namespace = namespace(reader, &mut fields);
    fields.finish(reader);
    Some(ServiceRef::Labels { namespace: namespace?, selector: selector? })
}

/// `Some(None)`: none was written.
fn namespace(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Option<String>> {
    let Some(node) = fields.take("namespace") else { return Some(None) };
    reader.field("namespace", |reader| match reader.text(node)? {
        "" => Some(None),
        _ => name_of(reader, node).map(Some),
    })
}
