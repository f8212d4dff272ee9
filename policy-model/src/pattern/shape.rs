//! What an expression comes down to: the simplest thing that decides it.
//!
//! Most patterns of real policies are literals, prefixes, or a few gaps between slashes. Taking them
//! apart leaves automata for the gaps alone (`[0-9]+`), of which thousands of patterns share a few.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use regex_syntax::hir::{Class, Hir, HirKind, Look, LookSet};

use super::automaton::{self, Automaton};
use super::{MAX_LITERALS, PatternError, is_one_line};

/// The simplest thing that decides a pattern.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// `.*`
    Any,
    /// A few literal values: `GET|POST`.
    Literals(Arc<[Box<[u8]>]>),
    /// A literal, then `.*`.
    Prefix(Box<[u8]>),
    /// A literal, then something else.
    Regex { prefix: Box<[u8]>, rest: Arc<Rest> },
}

/// What follows a literal.
#[derive(Debug)]
pub(crate) enum Rest {
    /// Something without a slash, a slash, and what follows it.
    Gap { gap: Arc<Automaton>, then: Shape },
    /// Literals in this order with anything before and between them: `.*a.*b`, `.*a.*`.
    Scattered(Scattered),
    /// Anything else.
    Opaque(Opaque),
}

/// Literals in one line, with anything before and between them.
#[derive(Debug)]
pub(crate) struct Scattered {
    /// Those before the last; or all, if anything may follow.
    middle: Box<[Box<[u8]>]>,
    /// What the value ends with; empty: anything.
    pub(crate) suffix: Box<[u8]>,
}

impl Scattered {
    fn of(hir: &Hir) -> Option<Self> {
        let (mut literals, mut gap) = (Vec::new(), false);
        for part in parts(hir) {
            match part.kind() {
                HirKind::Literal(literal) if gap => {
                    literals.push(literal.0.clone());
                    gap = false;
                }
                _ if is_dot_star(&part) => gap = true,
                _ => return None,
            }
        }
        // A line feed in a literal can't be told from one in a gap.
        if literals.is_empty() || literals.iter().any(|literal| !is_one_line(literal)) {
            return None;
        }
        let suffix = if gap { Box::default() } else { literals.pop()? };
        Some(Self { middle: literals.into(), suffix })
    }

    /// The first place of each literal is as good as any later one.
    pub(crate) fn matches(&self, value: &[u8]) -> bool {
        let Some(mut rest) = value.strip_suffix(&*self.suffix) else { return false };
        for literal in &self.middle {
            match memchr::memmem::find(rest, literal) {
                Some(place) => rest = &rest[place + literal.len()..],
                None => return false,
            }
        }
        is_one_line(value)
    }
}

/// An expression that is not taken apart.
#[derive(Debug)]
pub(crate) struct Opaque {
    pub(crate) automaton: Arc<Automaton>,
    /// What every value that matches ends with.
    pub(crate) suffix: Box<[u8]>,
    /// The expression, in the parser's own syntax.
    pub(crate) text: Arc<str>,
}

impl Shape {
    /// What text comes down to that has no more to it than `^` in front, and `.*` or `$` behind: most
    /// paths are so, and need no parser.
    pub(super) fn of_plain(text: &str) -> Option<Self> {
        let text = text.strip_prefix('^').unwrap_or(text);
        let text = text.strip_suffix('$').unwrap_or(text);
        let (text, open) = match text.strip_suffix(".*") {
            Some(text) => (text, true),
            None => (text, false),
        };
        let special = |byte: u8| !byte.is_ascii() || b"\\.+*?()|[]{}^$".contains(&byte);
        if text.bytes().any(special) {
            return None;
        }
        let text: Box<[u8]> = text.as_bytes().into();
        Some(match open {
            true if text.is_empty() => Self::Any,
            true => Self::Prefix(text),
            false => Self::Literals([text].into()),
        })
    }

    /// Takes an expression apart.
    pub(super) fn of(hir: &Hir) -> Result<Self, PatternError> {
        if let Some(literals) = literals(hir) {
            return Ok(Self::Literals(literals.into()));
        }
        let (prefix, rest) = split(hir);
        let rest = match rest.as_slice() {
            [] => return Ok(Self::Literals([prefix.into()].into())),
            [only] if is_dot_star(only) && prefix.is_empty() => return Ok(Self::Any),
            [only] if is_dot_star(only) => return Ok(Self::Prefix(prefix.into())),
            rest => Hir::concat(rest.to_vec()),
        };
        // What looks at its surroundings must see all of the value.
        if looks_around(hir) {
            let rest = Rest::opaque(hir)?;
            return Ok(Self::Regex { prefix: Box::default(), rest });
        }
        Ok(Self::Regex { prefix: prefix.into(), rest: Rest::of(&rest)? })
    }

    /// Bytes held by automata.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Any | Self::Literals(_) | Self::Prefix(_) => 0,
            Self::Regex { rest, .. } => rest.memory(),
        }
    }

    /// Whether the whole value matches.
    pub(super) fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Any => is_one_line(value),
            Self::Literals(literals) => literals.iter().any(|literal| **literal == *value),
            Self::Prefix(prefix) => value.strip_prefix(&**prefix).is_some_and(is_one_line),
            Self::Regex { prefix, rest } => {
                value.strip_prefix(&**prefix).is_some_and(|value| rest.matches(value))
            }
        }
    }
}

impl Rest {
    /// Equal expressions are one, as long as anybody has it: thousands of rules end alike.
    fn of(hir: &Hir) -> Result<Arc<Self>, PatternError> {
        static INTERNED: Interned<Rest> = Interned::new();
        let text = hir.to_string();
        if let Some(rest) = INTERNED.get(&text) {
            return Ok(rest);
        }
        let rest = Self::build(hir)?;
        INTERNED.insert(text, &rest);
        Ok(rest)
    }

    fn build(hir: &Hir) -> Result<Arc<Self>, PatternError> {
        if let Some((gap, then)) = gap(hir) {
            let gap = interned(&gap)?;
            return Ok(Arc::new(Self::Gap { gap, then: Shape::of(&then)? }));
        }
        if let Some(scattered) = Scattered::of(hir) {
            return Ok(Arc::new(Self::Scattered(scattered)));
        }
        Self::opaque(hir)
    }

    fn opaque(hir: &Hir) -> Result<Arc<Self>, PatternError> {
        let text: Arc<str> = hir.to_string().into();
        let (automaton, suffix) = (interned(hir)?, suffix(hir).into());
        Ok(Arc::new(Self::Opaque(Opaque { automaton, suffix, text })))
    }

    /// Bytes held by automata.
    fn memory(&self) -> usize {
        match self {
            Self::Opaque(opaque) => opaque.automaton.memory(),
            Self::Scattered(_) => 0,
            Self::Gap { gap, then } => gap.memory() + then.memory(),
        }
    }

    pub(super) fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Opaque(opaque) => opaque.automaton.matches(value),
            Self::Scattered(scattered) => scattered.matches(value),
            Self::Gap { gap, then } => match memchr::memchr(b'/', value) {
                Some(slash) => gap.matches(&value[..slash]) && then.matches(&value[slash + 1..]),
                None => false,
            },
        }
    }
}

/// The automaton of an expression; equal expressions share one.
fn interned(hir: &Hir) -> Result<Arc<Automaton>, PatternError> {
    static INTERNED: Interned<Automaton> = Interned::new();
    let text = hir.to_string();
    if let Some(automaton) = INTERNED.get(&text) {
        return Ok(automaton);
    }
    let automaton = Arc::new(Automaton::new(&[hir], automaton::LARGEST)?);
    INTERNED.insert(text, &automaton);
    Ok(automaton)
}

/// What expressions were compiled to, by their text, as long as anybody has it.
struct Interned<T>(LazyLock<Mutex<HashMap<String, Weak<T>>>>);

impl<T> Interned<T> {
    const fn new() -> Self {
        Self(LazyLock::new(Mutex::default))
    }

    fn get(&self, text: &str) -> Option<Arc<T>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(text).and_then(Weak::upgrade)
    }

    fn insert(&self, text: String, value: &Arc<T>) {
        /// So many before those that nobody has any more are swept out.
        const MANY: usize = 1 << 10;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MANY && known.len().is_power_of_two() {
            known.retain(|_, value| value.strong_count() > 0);
        }
        known.insert(text, Arc::downgrade(value));
    }
}

/// Whether something in the expression looks at what stands around it, but for its two ends.
fn looks_around(hir: &Hir) -> bool {
    let ends = LookSet::singleton(Look::End).insert(Look::Start);
    let parts = parts(hir);
    let inner = parts.iter().filter(|part| !matches!(part.kind(), HirKind::Look(_)));
    let binds = |part: &Hir| part.properties().look_set().contains(Look::Start);
    !hir.properties().look_set().subtract(ends).is_empty() || inner.clone().any(binds)
}

/// The literal that every match begins with, and what follows, without a final `$`.
fn split(hir: &Hir) -> (Vec<u8>, Vec<Hir>) {
    let mut parts = parts(hir);
    if parts.first().is_some_and(|part| matches!(part.kind(), HirKind::Look(Look::Start))) {
        parts.remove(0);
    }
    while parts.last().is_some_and(|part| matches!(part.kind(), HirKind::Look(Look::End))) {
        parts.pop();
    }
    let mut prefix = Vec::new();
    let literals = parts.iter().take_while(|part| matches!(part.kind(), HirKind::Literal(_)));
    let count = literals.count();
    for part in parts.drain(..count) {
        if let HirKind::Literal(literal) = part.kind() {
            prefix.extend_from_slice(&literal.0);
        }
    }
    (prefix, parts)
}

fn parts(hir: &Hir) -> Vec<Hir> {
    match hir.kind() {
        HirKind::Concat(parts) => parts.clone(),
        _ => vec![hir.clone()],
    }
}

/// A beginning that can't match a slash, if a slash follows it: that, and what follows the slash.
fn gap(hir: &Hir) -> Option<(Hir, Hir)> {
    let parts = parts(hir);
    let mut before = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        if let HirKind::Literal(literal) = part.kind()
            && let Some(slash) = literal.0.iter().position(|byte| *byte == b'/')
        {
            let (head, tail) = (&literal.0[..slash], &literal.0[slash + 1..]);
            before.push(Hir::literal(head));
            let rest = std::iter::once(Hir::literal(tail)).chain(parts[index + 1..].to_vec());
            return Some((Hir::concat(before), Hir::concat(rest.collect())));
        }
        if may_match_slash(part) || !part.properties().look_set().is_empty() {
            return None;
        }
        before.push(part.clone());
    }
    None
}

fn may_match_slash(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => false,
        HirKind::Literal(literal) => literal.0.contains(&b'/'),
        HirKind::Class(Class::Bytes(class)) => {
            class.ranges().iter().any(|range| (range.start()..=range.end()).contains(&b'/'))
        }
        HirKind::Class(Class::Unicode(class)) => {
            class.ranges().iter().any(|range| (range.start()..=range.end()).contains(&'/'))
        }
        HirKind::Capture(capture) => may_match_slash(&capture.sub),
        HirKind::Repetition(repetition) => may_match_slash(&repetition.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().any(may_match_slash),
    }
}

/// What every match ends with.
fn suffix(hir: &Hir) -> Vec<u8> {
    let mut parts = parts(hir);
    while parts.last().is_some_and(|part| matches!(part.kind(), HirKind::Look(Look::End))) {
        parts.pop();
    }
    match parts.last().map(Hir::kind) {
        Some(HirKind::Literal(literal)) => literal.0.to_vec(),
        _ => Vec::new(),
    }
}

/// All values of an expression that is nothing but literals.
fn literals(hir: &Hir) -> Option<Vec<Box<[u8]>>> {
    let mut found = vec![Vec::new()];
    expand(hir, &mut found)?;
    Some(found.into_iter().map(Vec::into_boxed_slice).collect())
}

/// Appends every value of `hir` to every prefix in `found`.
fn expand(hir: &Hir, found: &mut Vec<Vec<u8>>) -> Option<()> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(Look::Start | Look::End) => {}
        HirKind::Literal(literal) => {
            for value in found.iter_mut() {
                value.extend_from_slice(&literal.0);
            }
        }
        HirKind::Capture(capture) => expand(&capture.sub, found)?,
        HirKind::Concat(parts) => {
            // `^` and `$` bind at the two ends only.
            let inner = parts.get(1..parts.len().saturating_sub(1)).unwrap_or_default();
            if inner.iter().any(|part| !part.properties().look_set().is_empty()) {
                return None;
            }
            parts.iter().try_for_each(|part| expand(part, found))?;
        }
        HirKind::Class(class) => {
            let class = match class {
                Class::Bytes(class) => class.clone(),
                Class::Unicode(class) => class.to_byte_class()?,
            };
            let bytes = || class.ranges().iter().flat_map(|range| range.start()..=range.end());
            if found.len() * bytes().count() > MAX_LITERALS {
                return None;
            }
            let one_more = |value: &Vec<u8>, byte| value.iter().copied().chain([byte]).collect();
            *found = found
                .iter()
                .flat_map(|value| bytes().map(move |byte| one_more(value, byte)))
                .collect();
        }
        HirKind::Alternation(parts) => {
            // `^` and `$` inside of an alternative bind that alternative only.
            if parts.iter().any(|part| !part.properties().look_set().is_empty()) {
                return None;
            }
            let mut all = Vec::new();
            for part in parts {
                let mut branch = found.clone();
                expand(part, &mut branch)?;
                all.append(&mut branch);
                if all.len() > MAX_LITERALS {
                    return None;
                }
            }
            *found = all;
        }
        HirKind::Repetition(_) | HirKind::Look(_) => return None,
    }
    Some(())
}

/// `.*`: any number of bytes but line feeds.
fn is_dot_star(hir: &Hir) -> bool {
    let HirKind::Repetition(repetition) = hir.kind() else { return false };
    let HirKind::Class(Class::Bytes(class)) = repetition.sub.kind() else { return false };
    let ranges: Vec<_> = class.ranges().iter().map(|range| (range.start(), range.end())).collect();
    (repetition.min, repetition.max) == (0, None)
        && ranges == [(0, b'\n' - 1), (b'\n' + 1, u8::MAX)]
}
