//! One or many expressions as one deterministic automaton: a table look-up a byte, no state of its
//! own, no allocation, the same cost for every value of a length.

use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::hir::{Hir, Look};

use super::PatternError;

/// Bytes that one expression's automaton may need.
pub(super) const LARGEST: usize = 1 << 20;

/// Some expressions, each matched against the whole value.
pub(crate) struct Automaton {
    table: dense::DFA<Vec<u32>>,
    start: StateID,
}

impl std::fmt::Debug for Automaton {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Automaton({} patterns)", self.table.pattern_len())
    }
}

impl Automaton {
    /// Compiles expressions together; their indices are how matches are told apart.
    pub(super) fn new(expressions: &[&Hir], limit: usize) -> Result<Self, PatternError> {
        let whole: Vec<Hir> = expressions
            .iter()
            .map(|hir| Hir::concat(vec![(*hir).clone(), Hir::look(Look::End)]))
            .collect();
        let too_complex = || PatternError::TooComplex(limit);
        let nfa = thompson::Compiler::new()
            .configure(
                thompson::Config::new()
                    .utf8(false)
                    .which_captures(thompson::WhichCaptures::None)
                    .nfa_size_limit(Some(4 * limit)),
            )
            .build_many_from_hir(&whole)
            .map_err(|_| too_complex())?;
        let table = dense::Builder::new()
            .configure(
                dense::Config::new()
                    .match_kind(MatchKind::All)
                    .start_kind(StartKind::Anchored)
                    .accelerate(false)
                    .dfa_size_limit(Some(limit))
                    .determinize_size_limit(Some(8 * limit)),
            )
            .build_from_nfa(&nfa)
            .map_err(|_| too_complex())?;
        let start = table
            .start_state(&start::Config::new().anchored(Anchored::Yes))
            .map_err(|_| too_complex())?;
        Ok(Self { table, start })
    }

    /// Whether the value matches any of them.
    pub(crate) fn matches(&self, value: &[u8]) -> bool {
        let end = self.run(self.start, value);
        self.is_match(end)
    }

    /// Calls `found` with the index of every expression that the value matches.
    pub(crate) fn each_match(&self, value: &[u8], found: &mut impl FnMut(usize)) {
        let end = self.table.next_eoi_state(self.run(self.start, value));
        if self.table.is_match_state(end) {
            for index in 0..self.table.match_len(end) {
                found(self.table.match_pattern(end, index).as_usize());
            }
        }
    }

    fn run(&self, mut state: StateID, value: &[u8]) -> StateID {
        for byte in value {
            state = self.table.next_state(state, *byte);
            if self.table.is_dead_state(state) {
                break;
            }
        }
        state
    }

    fn is_match(&self, state: StateID) -> bool {
        self.table.is_match_state(self.table.next_eoi_state(state))
    }

    /// Bytes of the table.
    pub(crate) fn memory(&self) -> usize {
        self.table.memory_usage()
    }
}
