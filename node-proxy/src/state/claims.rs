//! Who has which interface and which address. Of two who name the same one, the first keeps it: an
//! interface is judged by one policy, and an address means one workload.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use crate::datapath::EndpointSpec;
use crate::objects::Attachment;

/// What endpoints have, and their names.
#[derive(Debug, Default)]
pub(super) struct Claims {
    attachments: BTreeMap<Attachment, String>,
    addresses: HashMap<IpAddr, String>,
}

/// Something that another has.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{what}` is {holder}'s already: of two workloads that name one {kind}, the first has it")]
pub(super) struct Conflict {
    kind: &'static str,
    what: String,
    pub(super) holder: String,
}

impl Claims {
    /// Whether another has something of this.
    pub(super) fn conflict(&self, spec: &EndpointSpec) -> Option<Conflict> {
        let other = |holder: &&String| **holder != spec.name;
        if let Some(holder) = self.attachments.get(&spec.attachment).filter(other) {
            let what = spec.attachment.to_string();
            return Some(Conflict { kind: "interface", what, holder: holder.clone() });
        }
        spec.addresses.iter().find_map(|address| {
            let holder = self.addresses.get(address).filter(other)?.clone();
            Some(Conflict { kind: "address", what: address.to_string(), holder })
        })
    }

    /// An endpoint has all of this.
    pub(super) fn claim(&mut self, spec: &EndpointSpec) {
        self.attachments.insert(spec.attachment.clone(), spec.name.clone());
        for address in &spec.addresses {
            self.addresses.insert(*address, spec.name.clone());
        }
    }

    /// An endpoint has nothing more of what it had, but for what it is to have now.
    pub(super) fn release(&mut self, had: &EndpointSpec, now: Option<&EndpointSpec>) {
        let is_own = |holder: Option<&String>| holder == Some(&had.name);
        if now.is_none_or(|now| now.attachment != had.attachment)
            && is_own(self.attachments.get(&had.attachment))
        {
            self.attachments.remove(&had.attachment);
        }
        for address in &had.addresses {
            if now.is_none_or(|now| !now.addresses.contains(address))
                && is_own(self.addresses.get(address))
            {
                self.addresses.remove(address);
            }
        }
    }
}
