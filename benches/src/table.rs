//! The table: every question asked of every proxy in turn, round by round, medians printed.
//!
//! Noise comes and goes over minutes; asking in turn lets it meet all proxies alike. A measurement
//! that failed is shown as such, with its reason, and never counts.

use std::net::SocketAddr;

use crate::Failure;
use crate::contender::Contender;

/// Each measurement is repeated so often, all proxies in turn; the median counts.
const ROUNDS: usize = 5;

/// What to ask, and how often.
pub struct Options {
    rounds: usize,
    only: Option<String>,
}

impl Options {
    /// From the command line; ends the program if it makes no sense.
    pub fn from_arguments(usage: &str) -> Self {
        let mut options = Self { rounds: ROUNDS, only: None };
        for argument in std::env::args().skip(1) {
            match argument.as_str() {
                "--quick" => options.rounds = 2,
                flag if flag.starts_with('-') => {
                    eprintln!("{usage}");
                    std::process::exit(2);
                }
                words => options.only = Some(words.to_owned()),
            }
        }
        options
    }

    fn asks(&self, question: &Question) -> bool {
        let Some(words) = &self.only else { return true };
        question.what.iter().any(|what| what.contains(words.as_str()))
    }
}

/// One measurement, and the lines of the table that it fills.
pub struct Question {
    /// What each of its figures is.
    pub what: &'static [&'static str],
    /// The floor denies nothing.
    pub needs_judgement: bool,
    /// Memory does not vary as time does.
    pub once: bool,
    /// As many figures as `what` has names.
    pub measure: fn(&Contender, SocketAddr) -> Result<Vec<f64>, Failure>,
}

/// Prints the table. Returns whether everything could be measured.
#[must_use]
pub fn ask(
    questions: &[Question],
    contenders: &[Contender],
    upstream: SocketAddr,
    options: &Options,
) -> bool {
    let names: Vec<&str> = contenders.iter().map(|contender| contender.name).collect();
    println!("\nMedians of {} rounds; in brackets the ratio to the floor.\n", options.rounds);
    println!("| what | {} |", names.join(" | "));
    println!("| --- |{}", " --- |".repeat(names.len()));
    let mut failures = Vec::new();
    for question in questions.iter().filter(|question| options.asks(question)) {
        let mut columns: Vec<Column> = names.iter().map(|_| Column::default()).collect();
        for _ in 0..if question.once { 1 } else { options.rounds } {
            for (contender, column) in contenders.iter().zip(&mut columns) {
                if contender.judges || !question.needs_judgement {
                    column.add((question.measure)(contender, upstream));
                }
            }
        }
        for (place, what) in question.what.iter().enumerate() {
            let floor = contenders.iter().zip(&columns).find(|(contender, _)| !contender.judges);
            let floor = floor.and_then(|(_, column)| column.median(place));
            let cells: Vec<String> = columns.iter().map(|c| c.cell(place, floor)).collect();
            println!("| {what} | {} |", cells.join(" | "));
        }
        for (name, column) in names.iter().zip(columns) {
            let what = question.what.first().copied().unwrap_or_default();
            failures.extend(column.failure.map(|why| format!("{name}, {what}: {why}")));
        }
    }
    for failure in &failures {
        eprintln!("failed: {failure}");
    }
    failures.is_empty()
}

/// What the rounds of one proxy gave.
#[derive(Default)]
struct Column {
    rounds: Vec<Vec<f64>>,
    failure: Option<Failure>,
}

impl Column {
    fn add(&mut self, outcome: Result<Vec<f64>, Failure>) {
        match outcome {
            Ok(figures) => self.rounds.push(figures),
            Err(why) => self.failure = Some(why),
        }
    }

    /// None if a round failed: what is left of the others would hide it.
    fn median(&self, place: usize) -> Option<f64> {
        if self.failure.is_some() {
            return None;
        }
        let mut values: Vec<f64> = self.rounds.iter().map(|figures| figures[place]).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    fn cell(&self, place: usize, floor: Option<f64>) -> String {
        match (self.median(place), floor) {
            (None, _) if self.failure.is_some() => "failed".to_owned(),
            (None, _) => "–".to_owned(),
            (Some(value), Some(floor)) if floor > 0.0 => {
                format!("{value:.2} ({:.2})", value / floor)
            }
            (Some(value), _) => format!("{value:.2}"),
        }
    }
}
