//! The state of a node, to be shown. Fields are an interface: `--output json` prints them.

use portreeve_policy::{Diagnostic, Identity, Severity, TrafficDirection};
use serde::{Deserialize, Serialize};

use super::policy_rows::{self, PolicyRow, short};
use super::services::ServiceState;
use super::{Leftovers, Node};
use crate::datapath::{DatapathStatus, Frontend, ServiceName, ServiceSpec};
use crate::objects::ObjectKey;

/// What `portreeve-node status` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The version of the program.
    pub version: String,
    /// What this node is called.
    pub node: String,
    /// What carries policy out.
    pub datapath: String,
    /// Whether anything is carried out.
    pub enforcing: bool,
    /// Everything that is wanted is in force.
    pub settled: bool,
    /// Everything was in force at least once since the process began.
    pub synced: bool,
    /// The daemon is ending, and waits for so many connections; none: it is not ending.
    pub draining: Option<usize>,
    /// The revision of the policy engine.
    pub revision: u64,
    /// Policies that were read.
    pub policies: usize,
    /// Endpoints.
    pub endpoints: usize,
    /// Endpoints whose policy is not in force as it should be.
    pub endpoints_pending: usize,
    /// Peers elsewhere.
    pub peers: usize,
    /// Identities of label sets.
    pub identities: usize,
    /// Entries that say who is where.
    pub addresses: usize,
    /// Those that are not in force yet.
    pub addresses_pending: usize,
    /// Services.
    pub services: usize,
    /// What is attached, and how full it is.
    pub attached: DatapathStatus,
    /// Objects and files with errors.
    pub object_errors: Vec<ObjectError>,
    /// What the datapath, or the disk, could not do.
    pub errors: Vec<String>,
}

/// An object, or a file, with an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectError {
    /// Which; none: that could not be read.
    pub object: Option<String>,
    /// A version of it is in force.
    pub last_good_in_force: bool,
    /// Workloads are closed until it can be read.
    pub closed_for_it: bool,
    /// What the kernel has of services stays until it can be read, and whoever may not talk to some of them may
    /// talk to nobody.
    pub services_stay: bool,
    /// The file.
    pub file: String,
    /// The line.
    pub line: u32,
    /// The field.
    pub field: String,
    /// What is wrong.
    pub error: String,
    /// What to do.
    pub hint: Option<String>,
}

/// An endpoint, in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointRow {
    /// Its number.
    pub id: u32,
    /// `namespace/name`.
    pub name: String,
    /// Its identity.
    pub identity: u32,
    /// Its labels, as a person calls it.
    pub labels: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Where it is attached.
    pub attachment: String,
    /// Whether policy restricts what comes to it.
    pub ingress_enforced: bool,
    /// Whether policy restricts what it may send.
    pub egress_enforced: bool,
    /// The revision of the policy it is to have.
    pub revision: u64,
    /// The revision of the policy it has; none: it is closed.
    pub realised: Option<u64>,
    /// What is wrong with it.
    pub error: Option<String>,
}

/// An endpoint, with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointDetail {
    /// What is in its line.
    #[serde(flatten)]
    pub row: EndpointRow,
    /// What it may use of the proxy that it shares with the others.
    pub limits: LimitsView,
    /// The rules that decide about it.
    pub rules: Vec<String>,
    /// What it may do with whom.
    pub ports: Vec<PolicyRow>,
}

/// What an endpoint may use of the proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LimitsView {
    /// Connections at once.
    pub connections: usize,
    /// Bytes that the proxy holds for them.
    pub buffered_bytes: usize,
    /// What it gets of a busy worker's time, in proportion to the others' shares.
    pub cpu_share: u32,
}

/// A service, in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceRow {
    /// `namespace/name`.
    pub name: String,
    /// Its port's name.
    pub port: String,
    /// What is spoken.
    pub protocol: String,
    /// What clients connect to.
    pub frontends: Vec<String>,
    /// Who answers: `address (state)`.
    pub backends: Vec<String>,
    /// Where policies of traffic and affinity differ from the default.
    pub options: Vec<String>,
    /// It is in force.
    pub realised: bool,
    /// What is wrong with it.
    pub error: Option<String>,
}

/// An identity, in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IdentityRow {
    /// Its number.
    pub identity: u32,
    /// As a person calls it.
    pub name: String,
    /// All of its labels.
    pub labels: Vec<String>,
    /// How many workloads have it.
    pub workloads: usize,
}

impl Node {
    /// What there is, in numbers, and what is wrong.
    #[must_use]
    pub fn status(&self) -> Status {
        let here = self.people.workloads.values().filter(|own| own.attachment.is_some()).count();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.options.name.clone(),
            datapath: self.datapath.name().to_owned(),
            enforcing: self.datapath.is_enforcing(),
            settled: self.is_settled(),
            synced: self.leftovers.is_synced,
            draining: self.is_ending.then(|| self.proxy.connections()),
            revision: self.engine.revision(),
            policies: self.engine.repository().policies().count()
                - self.closed.values().map(Vec::len).sum::<usize>(),
            endpoints: here,
            endpoints_pending: self.endpoints.pending.len() + self.endpoints.numberless.len(),
            peers: self.people.workloads.len() - here,
            identities: self.identities.list().len(),
            addresses: self.ipcache.wanted.len(),
            addresses_pending: self.ipcache.pending.len(),
            services: self.services.all.len(),
            attached: self.datapath.status(),
            object_errors: self.object_errors(),
            errors: self.errors(),
        }
    }

    /// Objects and files with errors.
    #[must_use]
    pub fn object_errors(&self) -> Vec<ObjectError> {
        let mut all = Vec::new();
        for (key, known) in self.objects.iter().filter(|(_, known)| known.is_broken) {
            let errors = known.diagnostics.iter().filter(|found| found.severity == Severity::Error);
            all.extend(errors.map(|error| ObjectError {
                object: Some(key.to_string()),
                last_good_in_force: known.is_in_force,
                closed_for_it: self.closed.contains_key(key),
                services_stay: self.unknown_services.contains(key),
                ..object_error(error)
            }));
        }
        all.extend(self.unreadable.iter().chain(&self.doubles).map(object_error));
        all
    }

    fn errors(&self) -> Vec<String> {
        let mut all: Vec<String> = self.saving.error.iter().cloned().collect();
        // One that drains is not well either, and is to.
        let unwell = self.proxy.health().err().filter(|_| !self.is_ending);
        all.extend(unwell.map(|error| {
            format!("the shared proxy: {error}; what it is to read is refused until the daemon is started again")
        }));
        all.extend(self.datapath.troubles());
        let addresses = self.ipcache.backoff.error.iter();
        all.extend(addresses.map(|error| format!("addresses: {error}")));
        let Leftovers { endpoints, addresses, services, unreadable, is_synced, .. } =
            &self.leftovers;
        let leftovers = endpoints.error.iter().chain(&addresses.error).chain(&services.error);
        all.extend(leftovers.map(|error| format!("leftovers: {error}")));
        for own in unreadable.values() {
            let error = own.backoff.error.iter();
            all.extend(error.map(|error| format!("{} can't be closed: {error}", own.key)));
        }
        if let Some(key) = self.unknown().filter(|_| !is_synced) {
            all.push(format!(
                "leftovers: {key} can't be read, and may be one of them; they stay until it is mended"
            ));
        }
        for leaving in self.endpoints.leaving.values() {
            let error = leaving.backoff.error.iter();
            all.extend(error.map(|error| format!("endpoint {} leaves: {error}", leaving.name)));
        }
        for name in &self.endpoints.numberless {
            all.push(format!(
                "endpoint {name}: there is no number left for it; it is not attached: its policy judges nothing"
            ));
        }
        for (address, name, holder) in self.addresses.of_elsewhere() {
            all.push(format!(
                "workload {name}: `{address}` is {holder}'s, which is on this node: nobody elsewhere has it"
            ));
        }
        all.extend(self.node_errors());
        all.extend(
            self.services
                .unable
                .iter()
                .map(|error| format!("backends can't be asked whether they are well: {error}")),
        );
        for row in self.endpoints() {
            all.extend(row.error.map(|error| format!("endpoint {}: {error}", row.name)));
        }
        for key in &self.unknown_services {
            let which = match key.kind.as_str() {
                "Service" => "services that the kernel has".to_owned(),
                _ => format!("services of namespace {}", key.namespace.as_deref().unwrap_or("")),
            };
            all.push(format!("{which} stay as they were: {key} can't be read"));
        }
        for (name, state) in &self.services.all {
            let errors = state.backoff.error.clone().into_iter();
            let errors = errors.chain(self.services.health_error(name));
            all.extend(errors.map(|error| format!("service {name}: {error}")));
        }
        for (name, backoff) in &self.services.leaving {
            all.extend(backoff.error.iter().map(|error| format!("service {name} leaves: {error}")));
        }
        all
    }

    /// What is wrong with the node's own addresses.
    fn node_errors(&self) -> Vec<String> {
        let unread = self.node_error.iter().map(|error| {
            format!(
                "can't read which addresses this node has: {error}; what policy says of `host` is about those \
                 that were read before, and it is tried again"
            )
        });
        let taken = self.addresses.taken_from_node().map(|(address, holder)| {
            format!(
                "`{address}` is an address of the node itself by now, and endpoint {holder} keeps it: give one \
                 of them another"
            )
        });
        unread.chain(taken).collect()
    }

    /// All endpoints, by name.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointRow> {
        self.endpoints.all.keys().filter_map(|name| self.endpoint_row(name)).collect()
    }

    fn endpoint_row(&self, name: &str) -> Option<EndpointRow> {
        let state = self.endpoints.all.get(name)?;
        let policy = self.engine.policy(name);
        let enforced = |direction| policy.as_ref().is_some_and(|p| p.is_enforced(direction));
        let refused = self.engine.error(name).map(|error| format!("keeps its policy: {error}"));
        Some(EndpointRow {
            id: state.spec.id,
            name: name.to_owned(),
            identity: state.spec.identity.get(),
            labels: state.labels.clone(),
            addresses: state.spec.addresses.iter().map(ToString::to_string).collect(),
            attachment: state.spec.attachment.to_string(),
            ingress_enforced: enforced(TrafficDirection::Ingress),
            egress_enforced: enforced(TrafficDirection::Egress),
            revision: state.wanted,
            realised: state.realised,
            error: state.backoff.error.clone().or(refused),
        })
    }

    /// An endpoint, by `namespace/name`, by its number, or by its name when only one is called so.
    #[must_use]
    pub fn endpoint(&self, which: &str) -> Option<EndpointDetail> {
        let name = self.find(which)?;
        let policy = self.engine.policy(&name)?;
        let limits = &self.endpoints.all.get(&name)?.spec.limits;
        let limits = LimitsView {
            connections: limits.connections,
            buffered_bytes: limits.buffered_bytes,
            cpu_share: limits.cpu_share,
        };
        Some(EndpointDetail {
            row: self.endpoint_row(&name)?,
            limits,
            rules: policy.rules().iter().map(policy_rows::place).collect(),
            ports: self.policy(&name).unwrap_or_default(),
        })
    }

    /// What an endpoint is called: as [`Node::endpoint`] finds it.
    pub(crate) fn find(&self, which: &str) -> Option<String> {
        match self.called(which).as_mut_slice() {
            [only] => Some(std::mem::take(only)),
            _ => None,
        }
    }

    /// Who may be meant by a name or a number.
    pub(crate) fn called(&self, which: &str) -> Vec<String> {
        if self.endpoints.all.contains_key(which) {
            return vec![which.to_owned()];
        }
        let id = which.parse::<u32>().ok();
        let named = self.endpoints.all.iter().filter(|(name, state)| {
            Some(state.spec.id) == id || name.split_once('/').is_some_and(|(_, own)| own == which)
        });
        named.map(|(name, _)| name.clone()).collect()
    }

    /// The number of an endpoint: as [`Node::endpoint`] finds it.
    pub(crate) fn find_id(&self, which: &str) -> Option<u32> {
        Some(self.endpoints.all.get(&self.find(which)?)?.spec.id)
    }

    /// What an endpoint may do with whom: as [`Node::endpoint`] finds it.
    #[must_use]
    pub fn policy(&self, which: &str) -> Option<Vec<PolicyRow>> {
        let name = self.find(which)?;
        let policy = self.engine.policy(&name)?;
        let mut known: Vec<Identity> = policy.addresses().map(|(_, identity)| identity).collect();
        known.extend(self.identities.list().into_iter().map(|(identity, ..)| identity));
        Some(policy_rows::of(&name, &policy, known))
    }

    /// All services: a line for every port, and one for each of which no version could be read.
    #[must_use]
    pub fn services(&self) -> Vec<ServiceRow> {
        let unread = self.unknown_services.iter().filter(|key| key.kind == "Service");
        let mut rows: Vec<ServiceRow> = unread.map(unread_service).collect();
        for state in self.services.all.values() {
            for port in &state.spec.ports {
                let name = &state.spec.name;
                let shown = |one| backend(one, self.services.wrong(name, port.protocol, one));
                rows.push(ServiceRow {
                    name: state.spec.name.to_string(),
                    port: port.name.clone(),
                    protocol: port.protocol.to_string(),
                    frontends: port.frontends.iter().map(frontend).collect(),
                    backends: port.backends.iter().map(shown).collect(),
                    options: service_options(&state.spec),
                    realised: state.is_realised,
                    error: self.service_error(name, state),
                });
            }
        }
        rows
    }

    fn service_error(&self, name: &ServiceName, state: &ServiceState) -> Option<String> {
        let of_this = |key: &&ObjectKey| {
            key.kind == "EndpointSlice" && key.namespace.as_ref() == Some(&name.namespace)
        };
        let held = || {
            let key = self.unknown_services.iter().find(of_this)?;
            Some(format!("stays as it was: {key} can't be read"))
        };
        let error = state.backoff.error.clone().or_else(|| self.services.health_error(name));
        error.or_else(held)
    }

    /// All identities of label sets.
    #[must_use]
    pub fn identities(&self) -> Vec<IdentityRow> {
        let rows = self.identities.list().into_iter().map(|(identity, labels, held)| IdentityRow {
            identity: identity.get(),
            name: short(&labels),
            labels: labels.iter().map(ToString::to_string).collect(),
            // One of those who hold it is only there to let it linger.
            workloads: held.saturating_sub(1),
        });
        rows.collect()
    }
}

fn object_error(error: &Diagnostic) -> ObjectError {
    ObjectError {
        object: None,
        last_good_in_force: false,
        closed_for_it: false,
        services_stay: false,
        file: error.source.clone(),
        line: error.line,
        field: error.path.clone(),
        error: error.message.clone(),
        hint: error.hint.clone(),
    }
}

/// What the kernel has from before may be its.
fn unread_service(key: &ObjectKey) -> ServiceRow {
    let namespace = key.namespace.clone().unwrap_or_default();
    ServiceRow {
        name: ServiceName { namespace, name: key.name.clone() }.to_string(),
        port: String::new(),
        protocol: String::new(),
        frontends: Vec::new(),
        backends: Vec::new(),
        options: Vec::new(),
        realised: false,
        error: Some("can't be read: what the kernel has of it stays".to_owned()),
    }
}

fn frontend(frontend: &Frontend) -> String {
    match frontend {
        Frontend::Cluster(address) => address.to_string(),
        Frontend::External(address) => format!("{address} (external)"),
        Frontend::Node(port) => format!("*:{port} (node)"),
    }
}

fn backend(backend: &crate::datapath::Backend, wrong: Option<&str>) -> String {
    use crate::datapath::BackendState::{NotReady, Ready, Terminating, Unhealthy};
    let state = match backend.state {
        Ready => "ready",
        Terminating => "terminating",
        Unhealthy => "unhealthy",
        NotReady => "not ready",
    };
    let here = if backend.is_local { ", here" } else { "" };
    let wrong = wrong.map(|wrong| format!(": {wrong}")).unwrap_or_default();
    format!("{} ({state}{here}{wrong})", backend.address)
}

fn service_options(spec: &ServiceSpec) -> Vec<String> {
    let mut all = Vec::new();
    if spec.external_local {
        all.push("externalTrafficPolicy=Local".to_owned());
    }
    if spec.internal_local {
        all.push("internalTrafficPolicy=Local".to_owned());
    }
    all.extend(spec.affinity.map(|time| format!("affinity={}s", time.as_secs())));
    all
}
