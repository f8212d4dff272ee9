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
type Compiled = HashMap<(Vec<usize>, Option<RuleId>), Inspection>;

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
        if let Some(seen) = of(Effect::See).next()
            && matches!(winner.filter.parser, Parser::None)
        {
            let http = Alternatives { set: self.sets.http(&[])?.0, ids: [].into(), open: rule };
            let http = Alternatives { open: http.open.or(Some(seen.rule)), ..http };
            let as_what = Inspection::Http(HttpRules::new(http));
            return Ok(Some(PortAction::Inspect { rule, authentication, as_what }));
        }
        if matches!(winner.filter.parser, Parser::None) {
            return Ok(Some(PortAction::Allow { rule, authentication }));
        }
        let as_what = self.inspection(active, winner.filter)?;
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
        let key = (speaking, open);
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
                let lists = speaking.iter().filter_map(|filter| match &filter.parser {
                    Parser::Http(lists) => Some(lists),
                    _ => None,
                });
                let (set, ids) = self.sets.http(&flat(lists))?;
                Some(Inspection::Http(HttpRules::new(Alternatives { set, ids, open })))
            }
            Parser::Kafka(_) => {
                let lists = speaking.iter().filter_map(|filter| match &filter.parser {
                    Parser::Kafka(lists) => Some(lists),
                    _ => None,
                });
                let (ids, rules) = flat(lists).into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
                let set = Arc::new(KafkaRuleSet::new(rules));
                let rules = Alternatives { set, ids: ids.into(), open };
                Some(Inspection::Kafka(KafkaRules::new(rules)))
            }
            Parser::Dns(_) => {
                let lists = speaking.iter().filter_map(|filter| match &filter.parser {
                    Parser::Dns(lists) => Some(lists),
                    _ => None,
                });
                let (ids, rules) = flat(lists).into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
                let set = Arc::new(DnsRuleSet::new(rules));
                return Ok(Inspection::Dns(DnsRules::new(Alternatives {
                    set,
                    ids: ids.into(),
                    open,
                })));
            }
            Parser::Generic(protocol, _) => {
                let lists = speaking.iter().filter_map(|filter| match &filter.parser {
                    Parser::Generic(_, lists) => Some(lists),
                    _ => None,
                });
                // A protocol without any rules is read, and everything in it is allowed.
                let unsaid = speaking.iter().find(|filter| {
                    matches!(&filter.parser, Parser::Generic(_, lists)
                        if lists.iter().any(|list| list.is_empty()))
                });
                let open = open.or(unsaid.map(|filter| filter.rule));
                let (ids, rules) = flat(lists).into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
                let set = Arc::new(GenericRuleSet::new(protocol.clone(), rules));
                let rules = Alternatives { set, ids: ids.into(), open };
                Some(Inspection::Generic(GenericRules::new(rules)))
            }
            Parser::Listener => {
                let listener = winner.listener.clone();
                return Ok(match listener {
                    Some(listener) => Inspection::Listener(Arc::new(listener)),
                    None => unreachable_listener(),
                });
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

/// A filter with the parser of listeners has one; were it not so, nothing may pass.
fn unreachable_listener() -> Inspection {
    let set = Arc::new(DnsRuleSet::new(Vec::new()));
    Inspection::Dns(DnsRules::new(Alternatives { set, ids: [].into(), open: None }))
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

/// The rules of several lists, in the order of the policies, each once.
fn flat<'l, R: 'l>(lists: impl Iterator<Item = &'l Vec<Numbered<R>>>) -> Vec<(RuleId, Arc<R>)> {
    let mut rules: Vec<(RuleId, Arc<R>)> =
        lists.flatten().flat_map(|list| list.iter().cloned()).collect();
    rules.sort_by_key(|(id, _)| *id);
    rules.dedup_by_key(|(id, _)| *id);
    rules
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
