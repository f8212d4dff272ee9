//! From policy files to the snapshot in force; a failure changes nothing and is remembered.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use portreeve_policy::{
    Diagnostics, Directory, Endpoint, EndpointPolicy, Enforcement, Options, PolicySummary,
    Repository, ResolveError, TrafficDirection,
};

use crate::config::{PolicyFiles, ProxyConfig};
use crate::policy_files::{self, PolicyFilesError};

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
}

/// Loads the policy that a proxy of this configuration would read, and returns its warnings.
///
/// # Errors
/// [`LoadError`] as starting the proxy would.
pub fn check_policy(config: &ProxyConfig) -> Result<Vec<String>, LoadError> {
    let loader = PolicyLoader::new(config);
    loader.load()?;
    Ok(loader.status().warnings)
}

/// Compiles the policy files for one workload.
#[derive(Debug)]
pub(crate) struct PolicyLoader {
    pub(crate) files: PolicyFiles,
    pub(crate) endpoint: Endpoint,
    pub(crate) directory: Directory,
    pub(crate) options: Options,
    /// Those in which the proxy listens.
    directions: Vec<TrafficDirection>,
    status: Mutex<LoadStatus>,
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
            files: config.policy.clone(),
            endpoint: config.endpoint.clone(),
            directory: config.peers.clone().into(),
            options: config.options.clone(),
            directions,
            status: Mutex::default(),
        }
    }

    /// Reads and compiles everything.
    ///
    /// # Errors
    /// [`LoadError`]; it is also kept for [`PolicyLoader::status`].
    pub(crate) fn load(&self) -> Result<EndpointPolicy, LoadError> {
        let result = self.compile();
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
        let never = self.options.enforcement == Enforcement::Never || self.options.audit;
        for direction in &self.directions {
            if !never && !policy.is_enforced(*direction) {
                warnings.push(format!(
                    "warning: no policy speaks of {} for this workload, so all of it is allowed\n  \
                     hint: compare `endpointSelector` and `metadata.namespace` with the workload's \
                     labels `{}` and namespace `{}`, or set `enforcement: always`",
                    direction.as_str(),
                    self.endpoint.labels,
                    self.endpoint.namespace,
                ));
            }
        }
        warnings
    }

    pub(crate) fn status(&self) -> LoadStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn compile(&self) -> Result<(Repository, EndpointPolicy), LoadError> {
        let repository = Repository::parse(policy_files::read(&self.files.paths)?)?;
        let policy =
            EndpointPolicy::resolve(&repository, &self.endpoint, &self.directory, &self.options)?;
        Ok((repository, policy))
    }
}
