//! Schemas made ready for walking: for one version of one message, the steps to take over its bytes.
//!
//! Fields that nobody looks for melt into runs to skip, so that a walk costs about as much as there
//! are texts and arrays in the message. Plans are made when they are first needed and kept.

use std::sync::{LazyLock, OnceLock};

use super::schema::{self, Field, Kind, Mark, Schema};

/// One step over a message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// So many bytes that nobody looks for.
    Skip(u32),
    /// A plain value.
    Value { mark: Mark, size: u8 },
    /// A text.
    Text { mark: Option<Mark>, nullable: bool },
    /// Bytes or records.
    Bytes { nullable: bool },
    /// An array; the steps of an item follow, up to `end`. `size`: bytes of an item, if all have the
    /// same and nobody looks into them, else 0.
    Array { mark: Option<Mark>, nullable: bool, end: u32, size: u32 },
    /// A structure that may be null; its steps follow, up to `end`.
    Optional { end: u32 },
    /// Tagged fields; the known ones follow, up to `end`.
    Tags { end: u32 },
    /// A known tagged field; its steps follow, up to `end`.
    Tag { tag: u32, end: u32 },
}

/// The steps over one message.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) steps: Box<[Step]>,
    pub(super) flexible: bool,
}

/// What a plan is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// A request, to be judged.
    Judge,
    /// A request, to be answered.
    Answer,
    /// A response.
    Response,
}

impl Purpose {
    const COUNT: usize = 3;

    fn looks_for(self, mark: Mark) -> bool {
        let only_to_answer = [Mark::Partitions, Mark::Partition, Mark::Items].contains(&mark);
        !matches!(self, Self::Judge) || !only_to_answer
    }
}

type Kept = [OnceLock<Plan>; Purpose::COUNT];

/// For each API, by its place in [`schema::ALL`], the plans of each version.
static PLANS: LazyLock<Vec<Vec<Kept>>> = LazyLock::new(|| {
    let versions = |schema: &&Schema| schema.versions.0..=schema.versions.1;
    let of = |schema| versions(schema).map(|_| Kept::default()).collect();
    schema::ALL.iter().map(of).collect()
});

/// The plan for `version` of the API at `place` in [`schema::ALL`]; `None` if that is not known.
pub(super) fn plan(place: usize, version: i16, purpose: Purpose) -> Option<&'static Plan> {
    let schema = schema::ALL.get(place)?;
    let index = usize::try_from(version.checked_sub(schema.versions.0)?).ok()?;
    let kept = PLANS.get(place)?.get(index)?;
    Some(kept[purpose as usize].get_or_init(|| compile(schema, version, purpose)))
}

fn compile(schema: &Schema, version: i16, purpose: Purpose) -> Plan {
    let flexible = schema.is_flexible(version);
    let fields = match purpose {
        Purpose::Judge | Purpose::Answer => schema.request,
        Purpose::Response => schema.response,
    };
    let mut compiler = Compiler { steps: Vec::new(), version, flexible, purpose, fence: 0 };
    compiler.structure(fields);
    Plan { steps: compiler.steps.into_boxed_slice(), flexible }
}

struct Compiler {
    steps: Vec<Step>,
    version: i16,
    flexible: bool,
    purpose: Purpose,
    /// Steps before this one are closed: a run to skip does not grow into them.
    fence: usize,
}

impl Compiler {
    fn structure(&mut self, fields: &[Field]) {
        let mine = || fields.iter().filter(|field| field.is_in(self.version));
        let (plain, tagged): (Vec<_>, Vec<_>) = mine().partition(|field| field.tagged().is_none());
        for field in plain {
            self.field(field);
        }
        if !self.flexible {
            return;
        }
        let tags = self.open(Step::Tags { end: 0 });
        for field in tagged {
            let tag = self.open(Step::Tag { tag: field.tagged().unwrap_or_default(), end: 0 });
            self.field(field);
            self.close(tag);
        }
        self.close(tags);
    }

    fn field(&mut self, field: &Field) {
        let mark = field.mark.filter(|mark| self.purpose.looks_for(*mark));
        let nullable = field.is_nullable(self.version);
        match field.kind {
            Kind::Fixed(size) => match mark {
                Some(mark) => self.steps.push(Step::Value { mark, size }),
                None => self.skip(size.into()),
            },
            Kind::Text => self.steps.push(Step::Text { mark, nullable }),
            Kind::Bytes => self.steps.push(Step::Bytes { nullable }),
            Kind::Array(item) => {
                let array = self.open(Step::Array { mark, nullable, end: 0, size: 0 });
                self.structure(item);
                self.close(array);
            }
            Kind::List(item) => {
                let array = self.open(Step::Array { mark, nullable, end: 0, size: 0 });
                item.iter().for_each(|field| self.field(field));
                self.close(array);
            }
            Kind::Structure(fields) if nullable => {
                let optional = self.open(Step::Optional { end: 0 });
                self.structure(fields);
                self.close(optional);
            }
            Kind::Structure(fields) => self.structure(fields),
        }
    }

    fn skip(&mut self, size: u32) {
        let open = self.steps.len() > self.fence;
        match self.steps.last_mut() {
            Some(Step::Skip(run)) if open => *run += size,
            _ => self.steps.push(Step::Skip(size)),
        }
    }

    fn open(&mut self, step: Step) -> usize {
        self.steps.push(step);
        self.fence = self.steps.len();
        self.fence - 1
    }

    fn close(&mut self, place: usize) {
        self.fence = self.steps.len();
        let here = u32::try_from(self.fence).unwrap_or(u32::MAX);
        let body = match self.steps.get(place + 1..) {
            Some([Step::Skip(size)]) => *size,
            _ => 0,
        };
        match &mut self.steps[place] {
            Step::Array { mark, end, size, .. } => {
                *end = here;
                if mark.is_none() {
                    *size = body;
                }
            }
            Step::Optional { end } | Step::Tags { end } | Step::Tag { end, .. } => *end = here,
            Step::Skip(_) | Step::Value { .. } | Step::Text { .. } | Step::Bytes { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_of_every_api_has_plans() {
        for (place, schema) in schema::ALL.iter().enumerate() {
            for version in schema.versions.0..=schema.versions.1 {
                for purpose in [Purpose::Judge, Purpose::Answer, Purpose::Response] {
                    assert!(plan(place, version, purpose).is_some(), "{} v{version}", schema.name);
                }
            }
            assert!(plan(place, schema.versions.0 - 1, Purpose::Judge).is_none());
            assert!(plan(place, schema.versions.1 + 1, Purpose::Judge).is_none());
        }
    }

    #[test]
    fn what_nobody_looks_for_is_skipped_in_one_step() {
        // Fetch v4: replica, then 4 + 4 + 4 + 1 bytes, then the topics, each with partitions of 16.
        let place = schema::find(schema::FETCH).unwrap();
        let steps = &plan(place, 4, Purpose::Judge).unwrap().steps;
        assert!(
            matches!(
                steps[..],
                [
                    Step::Value { mark: Mark::Replica, .. },
                    Step::Skip(13),
                    Step::Array { mark: Some(Mark::Topics), end: 6, .. },
                    Step::Text { mark: Some(Mark::Topic), .. },
                    Step::Array { mark: None, size: 16, end: 6, .. },
                    Step::Skip(16),
                ]
            ),
            "{steps:?}"
        );
    }
}
