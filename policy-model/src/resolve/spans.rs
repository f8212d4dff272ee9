//! From filters to answers: which of those that cover a port decides there.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::ResolveError;
use super::filter::{EVERYBODY, Effect, Filter, Numbered, Parser};
use super::sets::Sets;
use crate::compiled::{
    Alternatives, Authentication, Class, DnsRuleSet, DnsRules, GenericRuleSet, GenericRules,
    HttpRules, KafkaRuleSet, KafkaRules, PortAction, ServerNameRules, ServerNames, Span,
    TlsInspection,
};
use crate::rule::{AuthenticationMode, Protocol};
use crate::verdict::{Inspection, RuleId};

/// What was compiled for one combination of filters serves all classes that have it.
type Compiled = HashMap<(Vec<usize>, RuleId, Option<RuleId>), Inspection>;

/// Compiles classes of one direction.
pub(super) struct Compiler<'a> {
    pub(super) filters: &'a [Filter],
    pub(super) sets: &'a mut Sets,
    pub(super) compiled: Compiled,
}

impl Compiler<'_> {
    /// What those may do whom these filters are about.
    pub(super) fn class(&mut self, about: &[usize]) -> Result<Class, ResolveError> {
        let filters = self.filters;
        let named: BTreeSet<Protocol> =
            about.iter().filter_map(|index| filters[*index].protocol).collect();
        let mut protocols = Vec::with_capacity(named.len());
        for protocol in named {
            let own: Vec<usize> = about
                .iter()
                .copied()
                .filter(|index| filters[*index].protocol.is_none_or(|own| own == protocol))
                .collect();
            protocols.push((protocol, self.spans(&own)?));
        }
        let all: Vec<usize> =
            about.iter().copied().filter(|index| filters[*index].protocol.is_none()).collect();
        Ok(Class::new(protocols, self.spans(&all)?))
    }

    /// The ports at which the answer may change, and the answer between each two.
    fn spans(&mut self, about: &[usize]) -> Result<Box<[Span]>, ResolveError> {
        // Where filters begin and end, in order; what ends at a port ends before another begins.
        let mut edges: Vec<(u32, bool, usize)> = Vec::with_capacity(2 * about.len());
        for &index in about {
            let filter = &self.filters[index];
            edges.push((u32::from(filter.first), true, index));
            edges.push((u32::from(filter.last) + 1, false, index));
        }
        edges.sort_unstable();
        let mut active = BTreeSet::new();
        let mut spans: Vec<Span> = Vec::new();
        let mut edges = edges.into_iter().peekable();
        while let Some((port, begins, index)) = edges.next() {
            match begins {
                true => active.insert(index),
                false => active.remove(&index),
            };
            let Some((next, ..)) = edges.peek() else { break };
            let (Ok(first), Ok(last)) = (u16::try_from(port), u16::try_from(next.wrapping_sub(1)))
            else {
                continue;
            };
            if *next == port || active.is_empty() {
                continue;
            }
            if let Some(action) = self.action(&active)? {
                spans.push(Span { first, last, action });
            }
        }
        Ok(spans.into())
    }

    /// What happens where these filters hold: a denial beats all; else what is most specific of those
    /// for the peer, or of those for everybody, whichever asks for the stronger parser (Cilium
    /// `mapState.lookup`).
    fn action(&mut self, active: &BTreeSet<usize>) -> Result<Option<PortAction>, ResolveError> {
        let filters = self.filters;
        let of = |effect| {
            active.iter().map(|i| &filters[*i]).filter(move |filter| filter.effect == effect)
        };
        if let Some(denial) = of(Effect::Deny).next() {
            return Ok(Some(PortAction::Deny(Some(denial.rule))));
        }
        let allowing: Vec<&Filter> = of(Effect::Allow).collect();
        let own = Winner::of(allowing.iter().copied().filter(|f| f.peer != EVERYBODY));
        let any = Winner::of(allowing.iter().copied().filter(|f| f.peer == EVERYBODY));
        let Some(winner) = [own, any]
            .into_iter()
            .flatten()
            .min_by_key(|winner| (winner.filter.priority(), winner.filter.width()))
        else {
            return Ok(None);
        };
        let strongest = allowing.iter().filter_map(|filter| filter.authentication).max();
        let authentication = match (winner.authentication, strongest) {
            (Some(mode), _) => Some(Authentication { mode, explicit: true }),
            (None, Some(mode)) if mode != AuthenticationMode::Disabled => {
                Some(Authentication { mode, explicit: false })
            }
            _ => None,
        };
        let rule = Some(winner.filter.rule);
        let as_what = match winner.filter.parser {
            Parser::None if of(Effect::See).next().is_none() => {
                return Ok(Some(PortAction::Allow { rule, authentication }));
            }
            Parser::None => {
                let (set, ids) = self.sets.http(&[])?;
                Inspection::Http(HttpRules::new(Alternatives { set, ids, open: rule }))
            }
            _ => self.inspection(active, winner.filter)?,
        };
        Ok(Some(PortAction::Inspect { rule, authentication, as_what }))
    }

    /// The rules of all filters that speak the winner's protocol, as alternatives.
    fn inspection(
        &mut self,
        active: &BTreeSet<usize>,
        winner: &Filter,
    ) -> Result<Inspection, ResolveError> {
        let filters = self.filters;
        let allowing = || active.iter().copied().filter(|i| filters[*i].effect == Effect::Allow);
        let same = |one: &Parser, two: &Parser| match (one, two) {
            (Parser::Generic(one, _), Parser::Generic(two, _)) => one == two,
            (one, two) => std::mem::discriminant(one) == std::mem::discriminant(two),
        };
        let speaking: Vec<usize> =
            allowing().filter(|i| same(&filters[*i].parser, &winner.parser)).collect();
        // What allows the peer anything allows anything on this port. Only DNS is judged by what is
        // said of exactly its port.
        let dns = matches!(winner.parser, Parser::Dns(_));
        let plain = allowing()
            .map(|i| &filters[i])
            .find(|f| matches!(f.parser, Parser::None) && (!dns || f.width() == 0));
        let judged = speaking.iter().find_map(|i| filters[*i].open);
        let open = plain.map(|filter| filter.rule).or(match winner.parser {
            Parser::Tls => None,
            _ => judged,
        });
        let key = (speaking, winner.rule, open);
        if let Some(compiled) = self.compiled.get(&key) {
            return Ok(compiled.clone());
        }
        let compiled = self.compile(&key.0, open, winner)?;
        self.compiled.insert(key, compiled.clone());
        Ok(compiled)
    }

    fn compile(
        &mut self,
        speaking: &[usize],
        open: Option<RuleId>,
        winner: &Filter,
    ) -> Result<Inspection, ResolveError> {
        let speaking: Vec<&Filter> = speaking.iter().map(|index| &self.filters[*index]).collect();
        let inner = match &winner.parser {
            Parser::Http(_) => {
                let rules = flat(&speaking, |parser| match parser {
                    Parser::Http(lists) => Some(lists),
                    _ => None,
                });
                let (set, ids) = self.sets.http(&rules)?;
                Some(Inspection::Http(HttpRules::new(Alternatives { set, ids, open })))
            }
            Parser::Kafka(_) => {
                let rules = flat(&speaking, |parser| match parser {
                    Parser::Kafka(lists) => Some(lists),
                    _ => None,
                });
                let rules = alternatives(rules, open, KafkaRuleSet::new);
                Some(Inspection::Kafka(KafkaRules::new(rules)))
            }
            Parser::Dns(_) => {
                let rules = flat(&speaking, |parser| match parser {
                    Parser::Dns(lists) => Some(lists),
                    _ => None,
                });
                Some(Inspection::Dns(DnsRules::new(alternatives(rules, open, DnsRuleSet::new))))
            }
            Parser::Generic(protocol, _) => {
                let rules = flat(&speaking, |parser| match parser {
                    Parser::Generic(_, lists) => Some(lists),
                    _ => None,
                });
                let set = |rules| GenericRuleSet::new(protocol.clone(), rules);
                Some(Inspection::Generic(GenericRules::new(alternatives(rules, open, set))))
            }
            Parser::Listener(listener) => {
                return Ok(Inspection::Listener(Arc::new(listener.clone())));
            }
            Parser::Tls | Parser::None => None,
        };
        let demands = |filter: &&Filter| !filter.server_names.is_empty() || !filter.tls.is_empty();
        match inner {
            Some(inner) if !speaking.iter().any(demands) => Ok(inner),
            inner => Ok(Inspection::Tls(Arc::new(tls(&speaking, open, winner, inner)))),
        }
    }
}

fn tls(
    speaking: &[&Filter],
    open: Option<RuleId>,
    winner: &Filter,
    inner: Option<Inspection>,
) -> TlsInspection {
    let ids = speaking.iter().map(|filter| filter.rule).collect();
    let lists = speaking.iter().map(|filter| filter.server_names.clone()).collect();
    let set = Arc::new(ServerNames::new(lists));
    // What is open inside is not thereby open to every name.
    let open = if inner.is_some() { None } else { open };
    TlsInspection {
        server_names: ServerNameRules::new(Alternatives { set, ids, open }),
        terminating: winner.tls.terminating.clone(),
        originating: winner.tls.originating.clone(),
        inner,
    }
}

/// The rules of some filters' lists, in the order of the policies, each once.
fn flat<'f, R: 'f>(
    filters: &[&'f Filter],
    lists: impl Fn(&'f Parser) -> Option<&'f Vec<Numbered<R>>>,
) -> Vec<(RuleId, Arc<R>)> {
    let lists = filters.iter().filter_map(|filter| lists(&filter.parser)).flatten();
    let mut rules: Vec<(RuleId, Arc<R>)> = lists.flat_map(|list| list.iter().cloned()).collect();
    rules.sort_by_key(|(id, _)| *id);
    rules.dedup_by_key(|(id, _)| *id);
    rules
}

/// Rules as a set, with their numbers.
fn alternatives<R, S>(
    rules: Vec<(RuleId, Arc<R>)>,
    open: Option<RuleId>,
    set: impl FnOnce(Vec<Arc<R>>) -> S,
) -> Alternatives<S> {
    let (ids, rules): (Vec<_>, Vec<_>) = rules.into_iter().unzip();
    Alternatives { set: Arc::new(set(rules)), ids: ids.into(), open }
}

/// The most specific of some filters.
struct Winner<'f> {
    filter: &'f Filter,
    authentication: Option<AuthenticationMode>,
}

impl<'f> Winner<'f> {
    fn of(filters: impl Iterator<Item = &'f Filter> + Clone) -> Option<Self> {
        let narrowest = filters.clone().map(Filter::width).min()?;
        let narrow = filters.filter(|filter| filter.width() == narrowest);
        let authentication = narrow.clone().filter_map(|filter| filter.authentication).max();
        let filter = narrow.min_by_key(|filter| filter.priority())?;
        Some(Self { filter, authentication })
    }
}
