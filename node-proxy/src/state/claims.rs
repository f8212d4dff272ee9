//! Who has which interface. Of two who name the same one, the first keeps it: an interface is judged by one
//! policy.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::addresses::NODE;
use crate::datapath::EndpointSpec;
use crate::objects::Attachment;

/// Interfaces that endpoints have, and their names.
#[derive(Debug, Default)]
pub(super) struct Claims {
    attachments: BTreeMap<Attachment, String>,
}

/// Something that another has.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{what}` is {why}")]
pub(super) struct Conflict {
    what: String,
    why: String,
    pub(super) holder: String,
}

impl Conflict {
    pub(super) fn of_address(address: IpAddr, holder: &str) -> Self {
        match holder {
            NODE => Self {
                what: address.to_string(),
                why: "an address of the node itself: give the workload another, or take it from the node"
                    .to_owned(),
                holder: holder.to_owned(),
            },
            _ => Self::of_two("address", address.to_string(), holder),
        }
    }

    fn of_two(kind: &str, what: String, holder: &str) -> Self {
        let why =
            format!("{holder}'s already: of two workloads that name one {kind}, the first has it");
        Self { what, why, holder: holder.to_owned() }
    }
}

impl Claims {
    /// Whether another has the interface.
    pub(super) fn conflict(&self, spec: &EndpointSpec) -> Option<Conflict> {
        let holder = self.attachments.get(&spec.attachment)?;
        let what = || spec.attachment.to_string();
        (*holder != spec.name).then(|| Conflict::of_two("interface", what(), holder))
    }

    /// An endpoint has its interface.
    pub(super) fn claim(&mut self, spec: &EndpointSpec) {
        self.attachments.insert(spec.attachment.clone(), spec.name.clone());
    }

    /// An endpoint had an interface in the time before.
    pub(super) fn begin_with(&mut self, name: &str, attachment: Attachment) {
        self.attachments.insert(attachment, name.to_owned());
    }

    /// An endpoint has no interface any more, but for the one that it is to have now.
    pub(super) fn release(&mut self, name: &str, now: Option<&Attachment>) {
        self.attachments.retain(|own, holder| *holder != name || Some(own) == now);
    }

    /// Only these have interfaces.
    pub(super) fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        self.attachments.retain(|_, holder| is_there(holder));
    }
}
