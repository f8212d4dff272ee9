//! Many patterns over one value: which of them match? The cost depends on the value's length and
//! on how many patterns share its beginning, not on how many there are.
//!
//! Literals are looked up in a hash table. Everything else stands in a trie at the literal that all
//! its matches begin with, so that a value meets only the patterns whose beginning it shares; the
//! regular expressions of one node are compiled together.

use std::collections::HashMap;
use std::sync::Arc;

use regex_syntax::hir::Hir;

use super::{Automaton, Pattern, Shape, is_one_line, syntax};

/// Bytes that a node's automaton may need before its expressions are split in two.
const GROUP_LIMIT: usize = 1 << 18;
/// Most expressions that are compiled together; building costs more than proportionally.
const GROUP_SIZE: usize = 64;

/// Patterns, known by the index at which they were given.
#[derive(Debug, Default)]
pub(crate) struct PatternSet {
    literals: HashMap<Box<[u8]>, Vec<u32>>,
    nodes: Vec<Node>,
}

/// One node of a radix trie.
#[derive(Debug, Default)]
struct Node {
    /// What stands on the way from the parent.
    label: Box<[u8]>,
    /// Sorted by first byte.
    children: Vec<(u8, u32)>,
    /// Patterns that are decided here: literal, then `.*`.
    prefixes: Vec<u32>,
    groups: Vec<Group>,
}

/// Expressions compiled together, with the indices they were given.
#[derive(Debug)]
struct Group {
    automaton: Arc<Automaton>,
    patterns: Box<[u32]>,
}

impl PatternSet {
    pub(crate) fn new<'p>(patterns: impl IntoIterator<Item = &'p Pattern>) -> Self {
        let mut set = Self { literals: HashMap::new(), nodes: vec![Node::default()] };
        let mut expressions: HashMap<u32, Vec<(u32, &Pattern)>> = HashMap::new();
        for (index, pattern) in (0..).zip(patterns) {
            match &pattern.shape {
                Shape::Any => set.nodes[0].prefixes.push(index),
                Shape::Literals(literals) => {
                    for literal in literals.iter() {
                        set.literals.entry(literal.clone()).or_default().push(index);
                    }
                }
                Shape::Prefix(prefix) => {
                    let node = set.node_at(prefix);
                    set.nodes[node as usize].prefixes.push(index);
                }
                Shape::Regex { prefix, .. } => {
                    let node = set.node_at(prefix);
                    expressions.entry(node).or_default().push((index, pattern));
                }
            }
        }
        // Splitting nodes on the way has kept their numbers, so the groups go where they belong.
        for (node, members) in expressions {
            for members in members.chunks(GROUP_SIZE) {
                group(members, &mut set.nodes[node as usize].groups);
            }
        }
        set
    }

    /// Calls `found` with the index of every pattern that the whole value matches.
    pub(crate) fn each_match(&self, value: &[u8], found: &mut impl FnMut(u32)) {
        if let Some(literals) = self.literals.get(value) {
            literals.iter().copied().for_each(&mut *found);
        }
        let Some(mut node) = self.nodes.first() else { return };
        let mut rest = value;
        loop {
            if !node.prefixes.is_empty() && is_one_line(rest) {
                node.prefixes.iter().copied().for_each(&mut *found);
            }
            for group in &node.groups {
                group.automaton.each_match(value, &mut |index| found(group.patterns[index]));
            }
            let Some(next) = rest.first().and_then(|byte| node.child(*byte)) else { return };
            node = &self.nodes[next as usize];
            match rest.strip_prefix(&*node.label) {
                Some(after) => rest = after,
                None => return,
            }
        }
    }

    /// The node at this prefix, made if it isn't there.
    fn node_at(&mut self, prefix: &[u8]) -> u32 {
        let (mut at, mut rest) = (0_u32, prefix);
        while let Some(first) = rest.first() {
            let Some(next) = self.nodes[at as usize].child(*first) else {
                return self.add_child(at, rest);
            };
            let label = &self.nodes[next as usize].label;
            let shared = label.iter().zip(rest).take_while(|(a, b)| a == b).count();
            at = if shared < label.len() { self.split(at, next, shared) } else { next };
            rest = &rest[shared..];
        }
        at
    }

    fn add_child(&mut self, parent: u32, label: &[u8]) -> u32 {
        let index = number(self.nodes.len());
        self.nodes.push(Node { label: label.into(), ..Node::default() });
        self.nodes[parent as usize].link(label[0], index);
        index
    }

    /// Puts a node between `parent` and `child` after `shared` bytes of the child's label.
    fn split(&mut self, parent: u32, child: u32, shared: usize) -> u32 {
        let index = number(self.nodes.len());
        let label = std::mem::take(&mut self.nodes[child as usize].label);
        let mut middle = Node { label: label[..shared].into(), ..Node::default() };
        middle.link(label[shared], child);
        self.nodes[child as usize].label = label[shared..].into();
        self.nodes.push(middle);
        self.nodes[parent as usize].link(label[0], index);
        index
    }

    /// Most steps that a value can cost, where a match of a pattern costs what `of` says.
    pub(crate) fn worst_cost(&self, of: &impl Fn(u32) -> usize) -> usize {
        let sum = |patterns: &[u32]| patterns.iter().map(|pattern| of(*pattern)).sum::<usize>();
        let literal = self.literals.values().map(|patterns| sum(patterns)).max().unwrap_or(0);
        let at = |node: &Node| {
            let groups = node.groups.iter().map(|group| 1 + sum(&group.patterns)).sum::<usize>();
            sum(&node.prefixes) + groups
        };
        // A child stands behind its parent's index only until nodes are split, so no order is assumed.
        let mut way = vec![(0_usize, 0_usize)];
        let mut worst = 0;
        while let Some((index, before)) = way.pop() {
            let Some(node) = self.nodes.get(index) else { continue };
            let here = before + at(node);
            worst = worst.max(here);
            way.extend(node.children.iter().map(|(_, child)| (*child as usize, here)));
        }
        literal + worst
    }

    /// Bytes held by automata.
    pub(crate) fn memory(&self) -> usize {
        let groups = self.nodes.iter().flat_map(|node| &node.groups);
        groups.map(|group| group.automaton.memory()).sum()
    }
}

impl Node {
    fn child(&self, byte: u8) -> Option<u32> {
        let place = self.children.binary_search_by_key(&byte, |(first, _)| *first).ok()?;
        Some(self.children[place].1)
    }

    /// Sets the child for this first byte.
    fn link(&mut self, byte: u8, child: u32) {
        match self.children.binary_search_by_key(&byte, |(first, _)| *first) {
            Ok(place) => self.children[place].1 = child,
            Err(place) => self.children.insert(place, (byte, child)),
        }
    }
}

/// An index; memory ends long before these numbers do.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// Compiles expressions together, or, where that grows too large, in halves. One alone keeps the
/// automaton it already has.
fn group(members: &[(u32, &Pattern)], groups: &mut Vec<Group>) {
    if let [(index, pattern)] = members {
        if let Shape::Regex { automaton, .. } = &pattern.shape {
            let automaton = automaton.clone();
            groups.push(Group { automaton, patterns: Box::new([*index]) });
        }
        return;
    }
    let parsed: Vec<Hir> =
        members.iter().filter_map(|(_, pattern)| syntax::parse(pattern.as_str()).ok()).collect();
    let compiled = (parsed.len() == members.len())
        .then(|| Automaton::new(&parsed.iter().collect::<Vec<_>>(), GROUP_LIMIT).ok())
        .flatten();
    match compiled {
        Some(automaton) => {
            let patterns = members.iter().map(|(index, _)| *index).collect();
            groups.push(Group { automaton: Arc::new(automaton), patterns });
        }
        None => {
            let (left, right) = members.split_at(members.len() / 2);
            group(left, groups);
            group(right, groups);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The indices that the set finds, and those that one pattern after the other does.
    fn both(patterns: &[Pattern], value: &str) -> (Vec<u32>, Vec<u32>) {
        let mut found = Vec::new();
        PatternSet::new(patterns).each_match(value.as_bytes(), &mut |index| found.push(index));
        found.sort_unstable();
        let each = (0..).zip(patterns).filter(|(_, pattern)| pattern.matches(value.as_bytes()));
        (found, each.map(|(index, _)| index).collect())
    }

    #[test]
    fn a_set_finds_what_each_pattern_alone_finds() {
        let patterns: Vec<Pattern> = [
            "/a",
            "/a/.*",
            "/a/b",
            "/a/[0-9]+",
            "/a/[a-z]+",
            "/ab.*",
            ".*",
            "/a/b/.*",
            "/a|/ab",
            ".*b",
            "/a/.*/c",
            "(?i)/A",
            "",
            "/abc",
            "/abd/.*",
        ]
        .iter()
        .map(|text| Pattern::new(text).unwrap())
        .collect();
        for value in [
            "/a", "/a/", "/a/b", "/a/12", "/ab", "/abc", "/a/x/c", "", "/", "b", "/abd/", "/A",
            "/a\nb",
        ] {
            let (found, expected) = both(&patterns, value);
            assert_eq!(found, expected, "{value:?}");
        }
    }

    #[test]
    fn many_expressions_at_one_prefix_are_grouped() {
        let patterns: Vec<Pattern> =
            (0..500).map(|i| Pattern::new(&format!("/svc/[a-z]+/item{i}")).unwrap()).collect();
        let (found, expected) = both(&patterns, "/svc/abc/item321");
        assert_eq!(found, expected);
        assert_eq!(found, [321]);
        let set = PatternSet::new(&patterns);
        assert!(set.memory() < 8 << 20, "{}", set.memory());
    }
}
