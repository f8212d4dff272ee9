//! Filters: what rules say of one group of peers on one port, merged (POLICY: same direction,
//! protocol, port and peer selector are one; different selectors are alternatives).

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use super::ResolveError;
use crate::name::NamePattern;
use crate::rule::{
    AuthenticationMode, DnsRule, GenericRule, HttpRule, KafkaRule, Listener, Protocol, TlsContexts,
};
use crate::verdict::RuleId;

/// What a filter does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
    /// Requests are to be seen; grants nothing.
    See,
}

/// One thing that rules say of a group of peers.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    /// The selector's number; [`EVERYBODY`] is everybody.
    pub(super) peer: usize,
    /// `None`: every protocol.
    pub(super) protocol: Option<Protocol>,
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) effect: Effect,
    pub(super) parser: Parser,
    /// A rule that allows everything that the parser can read.
    pub(super) open: Option<RuleId>,
    pub(super) server_names: Vec<NamePattern>,
    pub(super) tls: TlsContexts,
    pub(super) authentication: Option<AuthenticationMode>,
    /// The rule that speaks, for who asks.
    pub(super) rule: RuleId,
}

/// The selector that everybody is selected by.
pub(super) const EVERYBODY: usize = 0;

/// Rules of one entry with their numbers; shared by all filters that the entry becomes.
pub(super) type Numbered<R> = Arc<[(RuleId, Arc<R>)]>;

/// The protocol that a connection is read in, and the lists of rules for it.
#[derive(Clone, Debug)]
pub(super) enum Parser {
    None,
    Tls,
    Http(Vec<Numbered<HttpRule>>),
    Kafka(Vec<Numbered<KafkaRule>>),
    Dns(Vec<Numbered<DnsRule>>),
    Generic(Arc<str>, Vec<Numbered<GenericRule>>),
    Listener(Listener),
}

impl Parser {
    /// Which parser has a connection that several are asked for: the smallest number (Cilium
    /// `policy.ListenerPriority…`).
    fn priority(&self) -> u16 {
        match self {
            Self::Http(_) => 101,
            Self::Kafka(_) => 106,
            Self::Generic(..) => 111,
            Self::Tls => 116,
            Self::Dns(_) => 121,
            Self::Listener(listener) => match listener.priority {
                0 => 126,
                priority => u16::from(priority),
            },
            Self::None => u16::MAX,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::None => "no rules",
            Self::Tls => "TLS",
            Self::Http(_) => "HTTP rules",
            Self::Kafka(_) => "Kafka rules",
            Self::Dns(_) => "DNS rules",
            Self::Generic(protocol, _) => protocol,
            Self::Listener(_) => "a listener",
        }
    }

    /// Whether it judges what is said.
    fn judges(&self) -> bool {
        !matches!(self, Self::None | Self::Tls | Self::Listener(_))
    }
}

impl Filter {
    /// Every protocol and port.
    pub(super) fn of_everything(peer: usize, effect: Effect, rule: RuleId) -> Self {
        Self {
            peer,
            protocol: None,
            first: 0,
            last: u16::MAX,
            effect,
            parser: Parser::None,
            open: None,
            server_names: Vec::new(),
            tls: TlsContexts::default(),
            authentication: None,
            rule,
        }
    }

    pub(super) fn priority(&self) -> u16 {
        self.parser.priority()
    }

    /// How much it covers; the smaller, the more specific.
    pub(super) fn width(&self) -> u32 {
        match self.protocol {
            None => u32::MAX,
            Some(_) => u32::from(self.last - self.first),
        }
    }

    /// Takes in another filter of the same peers and ports.
    fn merge(&mut self, other: Self) -> Result<(), String> {
        if self.effect == Effect::Deny {
            return Ok(());
        }
        if other.effect == Effect::Deny {
            *self = other;
            return Ok(());
        }
        self.authentication = match (self.authentication, other.authentication) {
            (Some(one), Some(two)) if one != two => {
                return Err("different `authentication`".to_owned());
            }
            (one, two) => one.or(two),
        };
        let tls = std::mem::take(&mut self.tls);
        self.tls = TlsContexts {
            terminating: context(tls.terminating, other.tls.terminating)?,
            originating: context(tls.originating, other.tls.originating)?,
        };
        for name in other.server_names {
            if !self.server_names.contains(&name) {
                self.server_names.push(name);
            }
        }
        // Where only one side has rules, the other allows everything.
        let open = match (self.parser.judges(), other.parser.judges()) {
            (true, false) => Some(other.rule),
            (false, true) => Some(self.rule),
            _ => None,
        };
        self.open = self.open.or(other.open).or(open);
        self.parser = parser(std::mem::replace(&mut self.parser, Parser::None), other.parser)?;
        Ok(())
    }
}

fn parser(one: Parser, two: Parser) -> Result<Parser, String> {
    Ok(match (one, two) {
        (Parser::None, two) => two,
        (one, Parser::None) => one,
        (Parser::Tls, two @ (Parser::Tls | Parser::Http(_) | Parser::Generic(..))) => two,
        (one @ (Parser::Http(_) | Parser::Generic(..)), Parser::Tls) => one,
        (Parser::Http(one), Parser::Http(two)) => Parser::Http(union(one, two)),
        (Parser::Kafka(one), Parser::Kafka(two)) => Parser::Kafka(union(one, two)),
        (Parser::Dns(one), Parser::Dns(two)) => Parser::Dns(union(one, two)),
        (Parser::Generic(name, one), Parser::Generic(other, two)) if name == other => {
            Parser::Generic(name, union(one, two))
        }
        (Parser::Listener(one), Parser::Listener(two)) => return listener(one, two),
        (one, two) => {
            let what = match (&one, &two) {
                (Parser::Generic(..), Parser::Generic(..)) => "different `l7proto`",
                _ => "rules of different protocols",
            };
            return Err(format!("{what} ({} and {})", one.name(), two.name()));
        }
    })
}

fn union<R>(mut one: Vec<Numbered<R>>, two: Vec<Numbered<R>>) -> Vec<Numbered<R>> {
    for list in two {
        if !one.iter().any(|own| Arc::ptr_eq(own, &list)) {
            one.push(list);
        }
    }
    one
}

fn context<T: PartialEq>(one: Option<T>, two: Option<T>) -> Result<Option<T>, String> {
    match (one, two) {
        (Some(one), Some(two)) if one != two => Err("different TLS contexts".to_owned()),
        (one, two) => Ok(one.or(two)),
    }
}

/// The smaller priority has the connection; none written comes last.
fn listener(one: Listener, two: Listener) -> Result<Parser, String> {
    let differ = one != two;
    let (one, two) = (Parser::Listener(one), Parser::Listener(two));
    match one.priority().cmp(&two.priority()) {
        Ordering::Equal if differ => Err("different listeners of the same priority".to_owned()),
        Ordering::Greater => Ok(two),
        _ => Ok(one),
    }
}

/// All filters of a direction, each of its peers and ports once.
#[derive(Default)]
pub(super) struct Filters {
    pub(super) list: Vec<Filter>,
    places: HashMap<(usize, Option<Protocol>, u16, u16, bool), usize>,
}

impl Filters {
    /// Adds a filter, or merges it into the one of the same peers and ports.
    pub(super) fn add(
        &mut self,
        filter: Filter,
        origin: impl Fn(RuleId) -> String,
    ) -> Result<(), ResolveError> {
        let seen = filter.effect == Effect::See;
        let key = (filter.peer, filter.protocol, filter.first, filter.last, seen);
        let place = *self.places.entry(key).or_insert(self.list.len());
        let Some(own) = self.list.get_mut(place) else {
            self.list.push(filter);
            return Ok(());
        };
        let (rule, new) = (own.rule, filter.rule);
        own.merge(filter).map_err(|what| ResolveError::Conflict {
            one: origin(rule),
            two: origin(new),
            what,
        })
    }

    /// What can be known to make no sense only when all is merged.
    pub(super) fn check(&self, origin: impl Fn(RuleId) -> String) -> Result<(), ResolveError> {
        let blind = |filter: &&Filter| {
            filter.parser.judges()
                && !filter.server_names.is_empty()
                && filter.tls.terminating.is_none()
        };
        match self.list.iter().find(blind) {
            Some(filter) => Err(ResolveError::Unreadable { rule: origin(filter.rule) }),
            None => Ok(()),
        }
    }
}
