//! Running a case: loading its policies, resolving those of its subjects, asking.

use std::collections::HashMap;

use super::request::{Asked, Normalise};
use super::{
    Answer, AskedPeer, Case, CaseReport, DecidingRule, Load, PolicySource, Query, QueryReport,
    Question,
};
use crate::compiled::EndpointPolicy;
use crate::diagnostic::Diagnostics;
use crate::diff::conflicts;
use crate::directory::Directory;
use crate::document::{self, Objects};
use crate::endpoint::{Endpoint, Peer};
use crate::identity::Identity;
use crate::repository::Repository;
use crate::resolve::ResolveError;
use crate::rule::TrafficDirection;
use crate::source::Source;
use crate::verdict::{Action, Outcome, Reason, RuleId};

/// Policies of subjects, computed once.
type Resolved = HashMap<String, Result<EndpointPolicy, ResolveError>>;

impl Case {
    /// Runs the case. `open` reads a file of policies that the case names by path; `normalise` is the
    /// HTTP gate's way with request targets.
    pub fn run(
        &self,
        open: &dyn Fn(&str) -> Result<Source, String>,
        normalise: Normalise<'_>,
    ) -> CaseReport {
        if let Some(error) = &self.broken {
            return CaseReport { broken: true, ..self.refused(error.clone()) };
        }
        let repository = match self.load(open) {
            Ok(repository) => repository,
            Err(error) => return self.refused(error),
        };
        let mut resolved = Resolved::new();
        let queries: Vec<QueryReport> = self
            .queries
            .iter()
            .map(|query| self.ask(query, &repository, &mut resolved, normalise))
            .collect();
        let error = self.conflict(&repository);
        let got = if error.is_some() { Load::ResolveError } else { Load::Ok };
        self.report(got.as_str(), error.map(|error| error.to_string()), queries)
    }

    /// Why policies make no sense together, where that is what a case is about. Without workloads,
    /// those are looked at that the policies are about.
    fn conflict(&self, repository: &Repository) -> Option<ResolveError> {
        if self.load != Load::ResolveError {
            return None;
        }
        let directory = self.directory();
        let mut errors = self.endpoints.iter().filter_map(|endpoint| {
            EndpointPolicy::resolve(repository, endpoint, &directory, &self.options).err()
        });
        let suggested = || conflicts(repository, &self.options).into_iter().next();
        errors.next().or_else(|| suggested().map(|(_, error)| error))
    }

    fn report(
        &self,
        got: &'static str,
        error: Option<String>,
        queries: Vec<QueryReport>,
    ) -> CaseReport {
        let (id, title) = (self.id.clone(), self.title.clone());
        CaseReport { id, title, expected: self.load.as_str(), got, error, broken: false, queries }
    }

    fn load(&self, open: &dyn Fn(&str) -> Result<Source, String>) -> Result<Repository, String> {
        let (mut found, mut objects) = (Vec::new(), Objects::default());
        let mut carried = Vec::new();
        for policy in &self.policies {
            match policy {
                PolicySource::Carried(node) => carried.push(node),
                PolicySource::Path(path) => {
                    let source = open(path)?;
                    objects.append(document::read(&source, self.features, &mut found));
                }
            }
        }
        let own = document::read_nodes(&self.source, &carried, self.features, &mut found);
        objects.append(own);
        Repository::of(objects, &[], found).map_err(|errors: Diagnostics| errors.to_string())
    }

    /// A policy did not load: where that is expected, there is nothing to ask.
    fn refused(&self, error: String) -> CaseReport {
        let got = match self.load {
            // A refusal is one, whether the reference refuses in its engine or before it.
            Load::SchemaError => Load::SchemaError.as_str(),
            _ => Load::Error.as_str(),
        };
        let unanswered = |query: &Query| QueryReport {
            question: query.describe(),
            expected: query.expect,
            expected_effective: query.effective,
            got: Answer::LoadError,
            rule: None,
            reason: "policy_not_loaded".to_owned(),
        };
        self.report(got, Some(error), self.queries.iter().map(unanswered).collect())
    }

    fn directory(&self) -> Directory {
        let peer = |endpoint: &Endpoint| Peer {
            prefixes: endpoint.addresses.iter().map(|address| (*address).into()).collect(),
            labels: endpoint.labels.clone(),
            named_ports: endpoint.named_ports.clone(),
        };
        let hypothetical = self.queries.iter().filter_map(|query| match &query.question.peer {
            AskedPeer::Labels(labels) => Some(labels.clone()),
            _ => None,
        });
        Directory {
            peers: self.endpoints.iter().map(peer).collect(),
            hypothetical: hypothetical.collect(),
            ..Directory::default()
        }
    }

    fn ask(
        &self,
        query: &Query,
        repository: &Repository,
        resolved: &mut Resolved,
        normalise: Normalise<'_>,
    ) -> QueryReport {
        let resolve = |directory: &Directory| {
            let subject = self.endpoints.iter().find(|endpoint| endpoint.name == query.subject);
            let nobody = Endpoint::default();
            let subject = subject.unwrap_or(&nobody);
            EndpointPolicy::resolve(repository, subject, directory, &self.options)
        };
        let own;
        let policy = match &query.question.peer {
            // What a name stands for may differ from one question to the next.
            AskedPeer::Named(address, names) => {
                let mut directory = self.directory();
                for name in names {
                    directory.names.learn(name, [*address]);
                }
                own = resolve(&directory);
                &own
            }
            _ => {
                resolved.entry(query.subject.clone()).or_insert_with(|| resolve(&self.directory()))
            }
        };
        let (got, rule, reason) = match policy {
            Ok(policy) => {
                let who = self.who(query, policy);
                answer(&query.question, who, policy, normalise)
            }
            Err(error) => (Answer::ResolveError, None, error.to_string()),
        };
        QueryReport {
            question: query.describe(),
            expected: query.expect,
            expected_effective: query.effective,
            got,
            rule,
            reason,
        }
    }

    fn who(&self, query: &Query, policy: &EndpointPolicy) -> Identity {
        match &query.question.peer {
            AskedPeer::Endpoint(name) => {
                let endpoint = self.endpoints.iter().find(|endpoint| endpoint.name == *name);
                endpoint.map_or(Identity::UNKNOWN, |e| policy.identity_of(&e.labels))
            }
            peer => peer.who(policy),
        }
    }
}

impl AskedPeer {
    /// Who that is to a policy.
    pub(crate) fn who(&self, policy: &EndpointPolicy) -> Identity {
        match self {
            Self::Address(address) | Self::Named(address, _) => policy.identify(*address),
            Self::Labels(labels) => policy.identity_of(labels),
            Self::Endpoint(_) => Identity::UNKNOWN,
        }
    }
}

/// What a policy answers, by which rule, and why.
pub(crate) fn answer(
    question: &Question,
    who: Identity,
    policy: &EndpointPolicy,
    normalise: Normalise<'_>,
) -> (Answer, Option<DecidingRule>, String) {
    let verdict = policy.connection(question.direction, who, question.protocol, question.port);
    let rule = |id: Option<RuleId>| {
        let origin = policy.rule(id?);
        Some(DecidingRule::new(origin.policy(), origin.section()))
    };
    let explicit = verdict.authentication.is_some_and(|auth| auth.explicit);
    let connection = |answer| (answer, rule(verdict.rule), verdict.reason.as_str().to_owned());
    let inspection = match &verdict.action {
        Action::Deny => return connection(Answer::Deny),
        Action::Allow if explicit && verdict.needs_authentication() => {
            return connection(Answer::AllowAuthenticated);
        }
        Action::Allow => return connection(Answer::Allow),
        Action::Inspect(inspection) => inspection,
    };
    let Some(request) = &question.l7 else { return connection(Answer::Redirect) };
    match request.ask(inspection, normalise) {
        Asked::Redirected => (Answer::Http307, None, "path_not_normal".to_owned()),
        Asked::NotUnderstood => (Answer::L7Deny, None, "not_understood".to_owned()),
        Asked::Judged(judged) => {
            let answer = match judged.outcome {
                Outcome::Deny => Answer::L7Deny,
                Outcome::Allow | Outcome::Audit => Answer::L7Allow,
            };
            let reason: Reason = judged.reason;
            (answer, rule(judged.rule), reason.as_str().to_owned())
        }
    }
}

impl Query {
    fn describe(&self) -> String {
        self.question.describe(&self.subject)
    }
}

impl Question {
    /// The question in one line.
    #[must_use]
    pub fn describe(&self, subject: &str) -> String {
        let peer = match &self.peer {
            AskedPeer::Endpoint(name) => name.clone(),
            AskedPeer::Labels(labels) => labels.short(),
            AskedPeer::Address(address) => address.to_string(),
            AskedPeer::Named(address, names) => format!("{address} ({})", names.join(", ")),
        };
        let way = match self.direction {
            TrafficDirection::Ingress => "from",
            TrafficDirection::Egress => "to",
        };
        let direction = self.direction.as_str();
        let mut text =
            format!("{direction} of {subject} {way} {peer}, {} {}", self.protocol, self.port);
        if let Some(request) = &self.l7 {
            text.push_str(", ");
            text.push_str(&request.describe());
        }
        text
    }
}
