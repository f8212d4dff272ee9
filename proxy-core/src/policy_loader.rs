//! From policy files to the snapshot in force; a failure changes nothing and is remembered.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use portreeve_policy::{
    Diagnostics, Directory, Endpoint, EndpointPolicy, Enforcement, Options, PolicySummary,
    Repository, ResolveError, Service, Source, TrafficDirection,
};

use crate::config::{PolicySource, ProxyConfig};
use crate::policy_files::PolicyFilesError;
use crate::redirection::Refusal;

/// Why a policy did not come into force.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its files can't be read.
    #[error(transparent)]
    Files(#[from] PolicyFilesError),
    /// Its documents are not valid; each problem with file, line and what to do.
    #[error("{0}")]
    Documents(#[from] Diagnostics),
    /// It can't be computed for this workload.
    #[error("{0}")]
    Resolve(#[from] ResolveError),
    /// Documents were handed over where files are read.
    #[error("policy is read from files here; it can't be replaced by documents of the program")]
    ReadFromFiles,
    /// The kernel can't carry it out.
    #[error("the kernel programs can't carry the policy out: {0}")]
    Refused(#[source] Refusal),
    /// There is nobody left to put it in force.
    #[error("the proxy has ended")]
    Ended,
}

/// Loads the policy that a proxy of this configuration would read, and returns its warnings.
///
/// # Errors
/// [`LoadError`] as starting the proxy would.
pub fn check_policy(config: &ProxyConfig) -> Result<Vec<String>, LoadError> {
    let loader = PolicyLoader::new(config);
    loader.load(|_| Ok(()))?;
    Ok(loader.status().warnings)
}

/// Says whether a policy may come into force.
pub(crate) trait Admit: FnOnce(&EndpointPolicy) -> Result<(), Refusal> {}

impl<F: FnOnce(&EndpointPolicy) -> Result<(), Refusal>> Admit for F {}

/// Compiles the policy for one workload.
#[derive(Debug)]
pub(crate) struct PolicyLoader {
    source: Mutex<PolicySource>,
    pub(crate) endpoint: Endpoint,
    directory: Mutex<Directory>,
    pub(crate) options: Options,
    /// Those in which the proxy listens.
    directions: Vec<TrafficDirection>,
    status: Mutex<LoadStatus>,
}

/// That policy restricts nothing in this direction, which is surely not meant.
pub(crate) fn unrestricted(
    policy: &EndpointPolicy,
    endpoint: &Endpoint,
    options: &Options,
    direction: TrafficDirection,
) -> Option<String> {
    let never = options.enforcement == Enforcement::Never || options.audit;
    (!never && !policy.is_enforced(direction)).then(|| {
        format!(
            "warning: no policy speaks of {} for this workload, so all of it is allowed\n  \
             hint: compare `endpointSelector` and `metadata.namespace` with the workload's \
             labels `{}` and namespace `{}`, or set `enforcement: always`",
            direction.as_str(),
            endpoint.labels,
            endpoint.namespace,
        )
    })
}

/// What is loaded, and what the last attempt said.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoadStatus {
    pub(crate) policies: Vec<PolicySummary>,
    pub(crate) warnings: Vec<String>,
    pub(crate) last_error: Option<(SystemTime, String)>,
}

impl PolicyLoader {
    pub(crate) fn new(config: &ProxyConfig) -> Self {
        let mut directions: Vec<_> =
            config.listeners.iter().map(|listener| listener.direction).collect();
        directions.dedup();
        Self {
            source: Mutex::new(config.policy.clone()),
            endpoint: config.endpoint.clone(),
            directory: Mutex::new(Directory {
                services: config.services.clone(),
                ..config.peers.clone().into()
            }),
            options: config.options.clone(),
            directions,
            status: Mutex::default(),
        }
    }

    /// Reads and compiles everything. `admit` has the last word.
    ///
    /// # Errors
    /// [`LoadError`]; it is also kept for [`PolicyLoader::status`].
    pub(crate) fn load(&self, admit: impl Admit) -> Result<EndpointPolicy, LoadError> {
        let source = self.source().clone();
        self.keep_status(self.compile(&source, admit))
    }

    /// Compiles documents in place of those that were in force; they stay if these have errors, or
    /// `admit` refuses them.
    ///
    /// # Errors
    /// [`LoadError`]; it is also kept for [`PolicyLoader::status`].
    pub(crate) fn replace(
        &self,
        documents: Vec<Source>,
        admit: impl Admit,
    ) -> Result<EndpointPolicy, LoadError> {
        let source = match &*self.source() {
            PolicySource::Files(_) => return Err(LoadError::ReadFromFiles),
            PolicySource::Documents(_) => PolicySource::Documents(documents),
        };
        let policy = self.keep_status(self.compile(&source, admit))?;
        *self.source() = source;
        Ok(policy)
    }

    /// From the next load on, `toServices` refers to these.
    pub(crate) fn set_services(&self, services: Vec<Service>) {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner).services = services;
    }

    fn source(&self) -> MutexGuard<'_, PolicySource> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_status(
        &self,
        result: Result<(Repository, EndpointPolicy), LoadError>,
    ) -> Result<EndpointPolicy, LoadError> {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok((repository, policy)) => {
                *status = LoadStatus {
                    policies: repository.policies().cloned().collect(),
                    warnings: self.warnings(&repository, &policy),
                    last_error: None,
                };
                for warning in &status.warnings {
                    tracing::warn!("{warning}");
                }
                Ok(policy)
            }
            Err(error) => {
                status.last_error = Some((SystemTime::now(), error.to_string()));
                Err(error)
            }
        }
    }

    /// What is legal and surely not meant.
    fn warnings(&self, repository: &Repository, policy: &EndpointPolicy) -> Vec<String> {
        let mut warnings: Vec<String> =
            repository.warnings().iter().filter(|w| !w.advice).map(ToString::to_string).collect();
        for direction in &self.directions {
            warnings.extend(unrestricted(policy, &self.endpoint, &self.options, *direction));
        }
        warnings
    }

    pub(crate) fn status(&self) -> LoadStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn compile(
        &self,
        source: &PolicySource,
        admit: impl Admit,
    ) -> Result<(Repository, EndpointPolicy), LoadError> {
        let repository = Repository::parse(source.read()?)?;
        let directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let policy =
            EndpointPolicy::resolve(&repository, &self.endpoint, &directory, &self.options)?;
        admit(&policy).map_err(LoadError::Refused)?;
        Ok((repository, policy))
    }
}
