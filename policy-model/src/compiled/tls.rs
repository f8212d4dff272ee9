//! Server names: may a TLS client ask for this one?

use std::sync::Arc;

use super::rules::{RuleSet, ServerNameRules};
use crate::name::NamePattern;
use crate::rule::TlsContext;
use crate::verdict::Inspection;

/// What is to be looked at in a TLS connection. What is no TLS is to be refused.
#[derive(Debug)]
pub struct TlsInspection {
    /// The names that may be asked for.
    pub server_names: Arc<ServerNameRules>,
    /// Where TLS from the client is to end.
    pub terminating: Option<TlsContext>,
    /// How TLS to the server is to begin.
    pub originating: Option<TlsContext>,
    /// What is to be read inside of it.
    pub inner: Option<Inspection>,
}

/// Lists of names, one for each rule; an empty one allows any name.
#[derive(Debug)]
pub(crate) struct ServerNames {
    lists: Vec<Vec<NamePattern>>,
}

impl ServerNames {
    pub(crate) fn new(lists: Vec<Vec<NamePattern>>) -> Self {
        Self { lists }
    }

    pub(super) fn lists(&self) -> &[Vec<NamePattern>] {
        &self.lists
    }
}

impl RuleSet<str> for ServerNames {
    fn find(&self, name: &str) -> Option<u32> {
        let mut lists = (0_u32..).zip(&self.lists);
        let allows = |list: &[NamePattern]| {
            list.is_empty() || (!name.is_empty() && list.iter().any(|p| p.matches(name)))
        };
        lists.find(|(_, list)| allows(list)).map(|(index, _)| index)
    }
}
