//! What a connection is read as: by one policy, or by those of both its ends.

use std::sync::Arc;

use portreeve_policy::{Action, HttpRules, Inspection, KafkaRules, Reason};

/// How a connection that may exist is relayed, with the near policy's rules; `None`: the near policy has
/// none, and only the far one judges requests.
pub(super) enum Reading {
    /// Nobody looks inside.
    Unseen,
    Http {
        rules: Option<Arc<HttpRules>>,
        /// Nobody would refuse a request: what isn't HTTP after all is not to be refused for that.
        only_seen: bool,
    },
    Kafka {
        rules: Option<Arc<KafkaRules>>,
        /// As for HTTP.
        only_seen: bool,
    },
}

impl Reading {
    /// What both ask for, the near policy first.
    ///
    /// # Errors
    /// Why it must not pass: both would judge what is said, in different protocols, or one in a protocol
    /// that is not read here.
    pub(super) fn of(near: &Action, far: Option<&Action>) -> Result<Self, Reason> {
        let near = Wish::of(near)?;
        let far = far.map_or(Ok(Wish::Nothing), Wish::of)?;
        match (near, far) {
            (Wish::Nothing, Wish::Nothing) => Ok(Self::Unseen),
            (Wish::Http(rules), Wish::Nothing) => Ok(Self::http(Some(rules), None)),
            (Wish::Kafka(rules), Wish::Nothing) => Ok(Self::kafka(Some(rules), None)),
            (Wish::Nothing, Wish::Http(far)) => Ok(Self::http(None, Some(far))),
            (Wish::Nothing, Wish::Kafka(far)) => Ok(Self::kafka(None, Some(far))),
            (Wish::Http(near), Wish::Http(far)) => Ok(Self::http(Some(near), Some(far))),
            (Wish::Kafka(near), Wish::Kafka(far)) => Ok(Self::kafka(Some(near), Some(far))),
            // Who only wants to see goes without.
            (Wish::Http(near), Wish::Kafka(far)) if far.is_observed_only() => {
                Ok(Self::http(Some(near), None))
            }
            (Wish::Kafka(near), Wish::Http(far)) if far.is_observed_only() => {
                Ok(Self::kafka(Some(near), None))
            }
            (Wish::Http(near), Wish::Kafka(far)) if near.is_observed_only() => {
                Ok(Self::kafka(None, Some(far)))
            }
            (Wish::Kafka(near), Wish::Http(far)) if near.is_observed_only() => {
                Ok(Self::http(None, Some(far)))
            }
            (Wish::Http(_), Wish::Kafka(_)) | (Wish::Kafka(_), Wish::Http(_)) => {
                Err(Reason::ProtocolsDiffer)
            }
        }
    }

    fn http(near: Option<&Arc<HttpRules>>, far: Option<&Arc<HttpRules>>) -> Self {
        let only_seen = near.into_iter().chain(far).all(|rules| rules.is_observed_only());
        Self::Http { rules: near.cloned(), only_seen }
    }

    fn kafka(near: Option<&Arc<KafkaRules>>, far: Option<&Arc<KafkaRules>>) -> Self {
        let only_seen = near.into_iter().chain(far).all(|rules| rules.is_observed_only());
        Self::Kafka { rules: near.cloned(), only_seen }
    }
}

/// What one policy wants to read.
enum Wish<'a> {
    Nothing,
    Http(&'a Arc<HttpRules>),
    Kafka(&'a Arc<KafkaRules>),
}

impl<'a> Wish<'a> {
    fn of(action: &'a Action) -> Result<Self, Reason> {
        match action {
            Action::Allow => Ok(Self::Nothing),
            Action::Inspect(Inspection::Http(rules)) => Ok(Self::Http(rules)),
            Action::Inspect(Inspection::Kafka(rules)) => Ok(Self::Kafka(rules)),
            // Something that this proxy can't judge yet must not pass unjudged.
            _ => Err(Reason::NotInspectable),
        }
    }
}

/// What a policy says of a connection that is under way.
pub(super) enum Ruled<'a, R> {
    /// Its requests are not judged.
    Freely,
    By(&'a Arc<R>),
    /// It may not go on as what it is read as.
    Not,
}

/// What `action` says of a connection that is read as HTTP.
pub(super) fn http(action: &Action) -> Ruled<'_, HttpRules> {
    match action {
        Action::Allow => Ruled::Freely,
        Action::Inspect(Inspection::Http(rules)) => Ruled::By(rules),
        Action::Inspect(as_what) if as_what.is_observed_only() => Ruled::Freely,
        // Denied, or to be judged in another protocol than this connection speaks.
        _ => Ruled::Not,
    }
}

/// What `action` says of a connection that is read as Kafka.
pub(super) fn kafka(action: &Action) -> Ruled<'_, KafkaRules> {
    match action {
        Action::Allow => Ruled::Freely,
        Action::Inspect(Inspection::Kafka(rules)) => Ruled::By(rules),
        Action::Inspect(as_what) if as_what.is_observed_only() => Ruled::Freely,
        _ => Ruled::Not,
    }
}

/// Whether `action` lets a connection pass that nobody reads.
pub(super) fn unread(action: &Action) -> bool {
    match action {
        Action::Allow => true,
        // One that must be inspected from now on can't be: its beginning is gone. One that is only to be
        // seen may go on unseen.
        Action::Inspect(as_what) => as_what.is_observed_only(),
        _ => false,
    }
}
