//! Comparing two sets of policies by what they answer: who gains access, and who loses it.
//!
//! The questions are those that the policies themselves suggest: every workload, peer, port and
//! request that a rule of either set is about, beside some that none is about.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | asking both sets |
//! | `suggest.rs` | workloads, peers, ports and requests that rules suggest |

mod suggest;

use std::collections::BTreeMap;

use self::suggest::{Suggested, suggested};
use crate::case::{Answer, DecidingRule, Normalised, Question, answer};
use crate::compiled::EndpointPolicy;
use crate::directory::Directory;
use crate::label::Labels;
use crate::repository::Repository;
use crate::resolve::{Options, ResolveError};

/// A question whose answer changes.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The question in one line.
    pub question: String,
    /// What the old set answers.
    pub old: Answer,
    /// What the new one does.
    pub new: Answer,
    /// The rule that decides in the old set.
    pub old_rule: Option<DecidingRule>,
    /// The rule that decides in the new one.
    pub new_rule: Option<DecidingRule>,
    /// Why one of them has no answer.
    pub error: Option<String>,
}

/// What a difference means for who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// It was refused and gets through.
    Gains,
    /// It got through and is refused.
    Loses,
    /// It gets through, or is refused, in another way.
    Changes,
}

impl Effect {
    /// `gains`, `loses`, `changes`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gains => "gains",
            Self::Loses => "loses",
            Self::Changes => "changes",
        }
    }
}

impl Difference {
    /// What it means for who asks.
    #[must_use]
    pub fn effect(&self) -> Effect {
        match (self.old.is_allowed(), self.new.is_allowed()) {
            (false, true) => Effect::Gains,
            (true, false) => Effect::Loses,
            _ => Effect::Changes,
        }
    }
}

/// Every difference, and how many questions were asked.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// How many questions were asked.
    pub questions: usize,
    /// Those whose answers differ.
    pub differences: Vec<Difference>,
}

/// Asks both sets every question that either suggests.
#[must_use]
pub fn diff(old: &Repository, new: &Repository, options: &Options) -> Comparison {
    let options = Options { host_firewall: true, ..options.clone() };
    let mut comparison = Comparison::default();
    let workloads: BTreeMap<String, Suggested> = suggested(old, new, &options);
    for (name, suggested) in &workloads {
        let directory = suggested.directory();
        let resolve = |repository| {
            EndpointPolicy::resolve(repository, &suggested.subject, &directory, &options)
        };
        let sides = [resolve(old), resolve(new)];
        let mut looked_into = true;
        for question in suggested.questions() {
            // Where neither side looks into the connection, what is said there changes nothing.
            if question.l7.is_some() && !looked_into {
                continue;
            }
            comparison.questions += 1;
            let [before, after] = [&sides[0], &sides[1]].map(|side| ask(&question, side));
            if question.l7.is_none() {
                looked_into = [before.answer, after.answer].contains(&Answer::Redirect);
            }
            if before.answer == after.answer {
                continue;
            }
            comparison.differences.push(Difference {
                question: question.describe(name),
                old: before.answer,
                new: after.answer,
                old_rule: before.rule,
                new_rule: after.rule,
                error: before.error.or(after.error),
            });
        }
    }
    comparison.differences.sort_by_key(Difference::effect);
    comparison
}

/// The workloads whose policies make no sense together, of those that rules select: what each is
/// called, and why. Its policy would not change, or, where it has none, it would be closed.
#[must_use]
pub fn conflicts(repository: &Repository, options: &Options) -> Vec<(String, ResolveError)> {
    let options = Options { host_firewall: true, ..options.clone() };
    let mut found: Vec<(String, ResolveError)> = Vec::new();
    for subject in suggest::subjects(repository) {
        let resolved =
            EndpointPolicy::resolve(repository, &subject, &Directory::default(), &options);
        if let Err(error) = resolved
            && !found.iter().any(|(_, known)| *known == error)
        {
            found.push((subject.name, error));
        }
    }
    found
}

struct Side {
    answer: Answer,
    rule: Option<DecidingRule>,
    error: Option<String>,
}

fn ask(question: &Question, policy: &Result<EndpointPolicy, ResolveError>) -> Side {
    match policy {
        Ok(policy) => {
            let who = question.peer.who(policy);
            let as_written = |path: &str| Normalised::Path(path.to_owned());
            let (answer, rule, _) = answer(question, who, policy, &as_written);
            Side { answer, rule, error: None }
        }
        Err(error) => {
            Side { answer: Answer::ResolveError, rule: None, error: Some(error.to_string()) }
        }
    }
}

/// Labels that a person recognises as nobody's in particular.
fn stranger(namespace: &str) -> Labels {
    let label = crate::label::Label::new(crate::label::K8S, "app", "somebody-else");
    [label].into_iter().collect::<Labels>().placed(namespace)
}

impl Suggested {
    fn directory(&self) -> Directory {
        let mut directory = Directory {
            hypothetical: self.labels.iter().cloned().collect(),
            ..Directory::default()
        };
        for (address, name) in &self.names {
            directory.names.learn(name, [*address]);
        }
        directory
    }
}
