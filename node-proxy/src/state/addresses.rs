//! Who has which address, of all who name it. An address means one workload: in the engine, in the kernel
//! and in the proxy alike. Of endpoints of this node the first that is attached has it, and as long as none
//! is, the first that named it; workloads elsewhere have none that an endpoint here names, or the node itself
//! has. Who is attached with an address before the node gets it keeps it until he goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use super::claims::Conflict;
use crate::objects::Workload;

/// What the node itself is called among those who have addresses. No workload can be called so.
pub(super) const NODE: &str = "the node itself";

/// Addresses, and who names them.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Endpoints of this node, each once for an address, in the order in which they came.
    here: HashMap<IpAddr, Vec<Claim>>,
    /// Workloads elsewhere.
    elsewhere: HashMap<IpAddr, BTreeSet<String>>,
    /// What the node itself has.
    node: BTreeSet<IpAddr>,
    /// What endpoints had in the time before, of whom nothing has been heard yet.
    before: BTreeMap<String, Vec<IpAddr>>,
}

/// One who names an address.
#[derive(Debug)]
struct Claim {
    name: String,
    /// He has been attached with it. At most one of an address.
    is_firm: bool,
}

impl Addresses {
    /// An endpoint had an address in the time before, and has it until he says otherwise.
    pub(super) fn begin_with(&mut self, name: &str, address: IpAddr) {
        let claim = Claim { name: name.to_owned(), is_firm: true };
        self.here.insert(address, vec![claim]);
        self.before.entry(name.to_owned()).or_default().push(address);
    }

    /// Those who had something in the time before and were not heard of are gone, but for these. Returns
    /// who has others than before by that.
    pub(super) fn forget_before(&mut self, keep: &BTreeSet<String>) -> BTreeSet<String> {
        let gone: Vec<String> =
            self.before.keys().filter(|name| !keep.contains(*name)).cloned().collect();
        gone.iter().flat_map(|name| self.change(name, None, None)).collect()
    }

    /// A workload is another than it was. Returns who else has others than before by that.
    pub(super) fn change(
        &mut self,
        name: &str,
        old: Option<&Workload>,
        new: Option<&Workload>,
    ) -> BTreeSet<String> {
        for address in old.into_iter().flat_map(elsewhere) {
            if let Some(names) = self.elsewhere.get_mut(&address) {
                names.remove(name);
                if names.is_empty() {
                    self.elsewhere.remove(&address);
                }
            }
        }
        for address in new.into_iter().flat_map(elsewhere) {
            self.elsewhere.entry(address).or_default().insert(name.to_owned());
        }
        let before = self.before.remove(name).into_iter().flatten();
        let had: BTreeSet<IpAddr> = before.chain(old.into_iter().flat_map(here)).collect();
        let has: BTreeSet<IpAddr> = new.into_iter().flat_map(here).collect();
        self.change_here(name, &had, &has)
    }

    /// The node itself has these. Returns who else has others than before by that; none: it had them.
    pub(super) fn set_node(&mut self, has: BTreeSet<IpAddr>) -> Option<BTreeSet<String>> {
        if self.node == has {
            return None;
        }
        let had = std::mem::replace(&mut self.node, has.clone());
        let mut others = self.change_here(NODE, &had, &has);
        for address in has.difference(&had) {
            let Some(claims) = self.here.get_mut(address) else { continue };
            // Who is attached with it keeps it until he goes.
            let is_taken = claims.iter().any(|claim| claim.is_firm);
            for claim in claims.iter_mut().filter(|_| !is_taken) {
                claim.is_firm = claim.name == NODE;
                others.insert(claim.name.clone());
            }
        }
        others.remove(NODE);
        Some(others)
    }

    /// Those of its addresses that the node has, and nobody else.
    pub(super) fn of_node(&self) -> impl Iterator<Item = IpAddr> {
        self.node.iter().copied().filter(|address| self.holder(*address) == Some(NODE))
    }

    /// Those that an endpoint had before the node, and who that is.
    pub(super) fn taken_from_node(&self) -> impl Iterator<Item = (IpAddr, &str)> {
        let held = self.node.iter().filter_map(|address| Some((*address, self.holder(*address)?)));
        held.filter(|(_, holder)| *holder != NODE)
    }

    /// The same for one who is on this node.
    fn change_here(
        &mut self,
        name: &str,
        had: &BTreeSet<IpAddr>,
        has: &BTreeSet<IpAddr>,
    ) -> BTreeSet<String> {
        let mut others = BTreeSet::new();
        for address in has.difference(had) {
            let claim = Claim { name: name.to_owned(), is_firm: false };
            let claims = self.here.entry(*address).or_default();
            claims.push(claim);
            if claims.len() == 1 {
                others.extend(self.elsewhere.get(address).into_iter().flatten().cloned());
            }
        }
        for address in had.difference(has) {
            let was_his = self.holder(*address) == Some(name);
            let Some(claims) = self.here.get_mut(address) else { continue };
            claims.retain(|claim| claim.name != name);
            if claims.is_empty() {
                self.here.remove(address);
                others.extend(self.elsewhere.get(address).into_iter().flatten().cloned());
            }
            if was_his {
                others.extend(self.holder(*address).map(str::to_owned));
            }
        }
        others.remove(name);
        others
    }

    /// Who has an address, of the endpoints here.
    pub(super) fn holder(&self, address: IpAddr) -> Option<&str> {
        let claims = self.here.get(&address)?;
        let firm = claims.iter().find(|claim| claim.is_firm);
        let node = || claims.iter().find(|claim| claim.name == NODE);
        firm.or_else(node).or(claims.first()).map(|claim| claim.name.as_str())
    }

    /// An endpoint is attached with these addresses, which it has.
    pub(super) fn attached(&mut self, name: &str, addresses: &[IpAddr]) {
        for address in addresses {
            let claims = self.here.get_mut(address).into_iter().flatten();
            for own in claims.filter(|claim| claim.name == name) {
                own.is_firm = true;
            }
        }
    }

    /// Whether who has an address has been attached with it.
    pub(super) fn is_firm(&self, address: IpAddr) -> bool {
        self.here.get(&address).into_iter().flatten().any(|claim| claim.is_firm)
    }

    /// One who names an address, too, has it instead of who has it.
    pub(super) fn pass_on(&mut self, address: IpAddr, to: &str) {
        let Some(claims) = self.here.get_mut(&address) else { return };
        claims.sort_by_key(|claim| claim.name != to);
        for claim in claims {
            claim.is_firm = false;
        }
    }

    /// Those of a workload's addresses that another has.
    pub(super) fn others<'a>(
        &'a self,
        name: &'a str,
        workload: &'a Workload,
    ) -> impl Iterator<Item = (IpAddr, &'a str)> {
        let addresses = here(workload).chain(elsewhere(workload));
        let held = addresses.filter_map(|address| Some((address, self.holder(address)?)));
        held.filter(move |(_, holder)| *holder != name)
    }

    /// Why a workload does not have all that it names.
    pub(super) fn conflict(&self, name: &str, workload: &Workload) -> Option<Conflict> {
        let (address, holder) = self.others(name, workload).next()?;
        Some(Conflict::of_address(address, holder))
    }

    /// Workloads elsewhere that name an address of an endpoint here. That other nodes know this one as a peer
    /// is nothing to tell.
    pub(super) fn of_elsewhere(&self) -> impl Iterator<Item = (IpAddr, &str, &str)> {
        let both = self.here.keys().filter_map(|address| {
            let holder = self.holder(*address).filter(|holder| *holder != NODE)?;
            Some((*address, self.elsewhere.get(address)?, holder))
        });
        both.flat_map(|(address, names, holder)| {
            names.iter().map(move |name| (address, name.as_str(), holder))
        })
    }
}

/// What an endpoint of this node names.
fn here(workload: &Workload) -> impl Iterator<Item = IpAddr> {
    workload.addresses().filter(|_| workload.attachment.is_some())
}

/// The single addresses that a workload elsewhere names; a prefix means those who are in it and have no name
/// of their own.
fn elsewhere(workload: &Workload) -> impl Iterator<Item = IpAddr> {
    let all = workload.prefixes.iter().filter(|_| workload.attachment.is_none());
    all.filter(|prefix| prefix.prefix_len() == prefix.max_prefix_len()).map(|prefix| prefix.addr())
}
