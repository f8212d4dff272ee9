//! The gate's own answers: a response of the same API and version, written from the request. What the
//! request names (topics, partitions, groups) is named again, each with its error; all else has the
//! value that the protocol gives it when there is nothing to say.

use std::ops::Range;

use super::header::{Header, LENGTH_BYTES};
use super::plan::{self, Plan, Purpose};
use super::schema::{Field, Kind, Mark};
use super::scope::Scope;
use super::wire::{Halt, write_length, write_text, write_varint};

/// What a refused request is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Errors<'e> {
    /// For the whole, where the response can say that.
    pub(super) whole: i16,
    /// For what is not among `denied`.
    pub(super) others: i16,
    /// Items (of topics, groups, …) by where they begin in the request, in order, and the error of
    /// each.
    pub(super) denied: &'e [(usize, i16)],
}

impl Errors<'_> {
    /// One error for everything.
    pub(super) fn all(error: i16) -> Self {
        Self { whole: error, others: error, denied: &[] }
    }
}

/// The whole response to a request of which nothing is forwarded.
pub(super) fn refuse(
    frame: &[u8],
    header: &Header,
    errors: &Errors<'_>,
    largest: usize,
) -> Result<Vec<u8>, Halt> {
    let mut out = vec![0; LENGTH_BYTES];
    out.extend_from_slice(&header.correlation.to_be_bytes());
    let schema = header.api.schema();
    if schema.has_response_tags(header.version) {
        out.push(0);
    }
    let Some(plan) = plan::plan(header.api.place(), header.version, Purpose::Answer) else {
        return Err(Halt::Enough);
    };
    let (scope, _) = Scope::read(plan, 0..plan.steps.len(), frame, header.body)?;
    let version = header.version;
    let mut writer = Writer { frame, plan, version, errors: *errors, out, largest };
    let fields = schema.response;
    if writer.answers_items(fields, &scope) && !errors.denied.is_empty() {
        writer.errors.whole = 0;
    }
    writer.structure(
        fields,
        &Scopes { scope: &scope, outer: None, error: writer.errors.whole, is_item: false },
    )?;
    let mut out = writer.out;
    set_length(&mut out);
    Ok(out)
}

/// The items of the response for the items of the request's array `mark` that begin at `places`.
pub(super) fn items(
    frame: &[u8],
    header: &Header,
    mark: Mark,
    denied: &[(usize, i16)],
    largest: usize,
) -> Result<Vec<u8>, Halt> {
    let plan =
        plan::plan(header.api.place(), header.version, Purpose::Answer).ok_or(Halt::Enough)?;
    let body = plan.body_of(mark).ok_or(Halt::Enough)?;
    let fields =
        array_of(header.api.schema().response, mark, header.version).ok_or(Halt::Enough)?;
    let errors = Errors { whole: 0, others: 0, denied };
    let (version, out) = (header.version, Vec::new());
    let mut writer = Writer { frame, plan, version, errors, out, largest };
    for (place, error) in denied {
        writer.item(fields, body.clone(), *place, None, *error)?;
    }
    Ok(writer.out)
}

/// Whether the response has an array of this mark whose items can say an error of their own.
pub(super) fn can_say(fields: &'static [Field], mark: Mark, version: i16) -> bool {
    array_of(fields, mark, version).is_some_and(|item| has_error(item, version))
}

/// The fields of an item of the first array of this mark.
fn array_of(fields: &'static [Field], mark: Mark, version: i16) -> Option<&'static [Field]> {
    fields.iter().filter(|field| field.is_in(version)).find_map(|field| match field.kind {
        Kind::Array(item) if field.mark == Some(mark) => Some(item),
        Kind::Array(item) => array_of(item, mark, version),
        _ => None,
    })
}

fn has_error(fields: &[Field], version: i16) -> bool {
    fields.iter().filter(|field| field.is_in(version)).any(|field| match field.kind {
        Kind::Array(item) => field.mark.is_some() && has_error(item, version),
        _ => field.mark == Some(Mark::Error),
    })
}

/// Writes the length of the frame that `out` is into its first bytes.
pub(super) fn set_length(out: &mut [u8]) {
    let length = u32::try_from(out.len().saturating_sub(LENGTH_BYTES)).unwrap_or(u32::MAX);
    if let Some(begin) = out.get_mut(..LENGTH_BYTES) {
        begin.copy_from_slice(&length.to_be_bytes());
    }
}

/// The levels of the request that are being answered, innermost first.
struct Scopes<'s, 'a> {
    scope: &'s Scope<'a>,
    outer: Option<&'s Scopes<'s, 'a>>,
    error: i16,
    /// An item of an array, not the whole.
    is_item: bool,
}

impl<'a> Scopes<'_, 'a> {
    fn value(&self, mark: Mark) -> Option<Option<&'a [u8]>> {
        self.scope.value(mark).or_else(|| self.outer?.value(mark))
    }
}

struct Writer<'a> {
    frame: &'a [u8],
    plan: &'static Plan,
    version: i16,
    errors: Errors<'a>,
    out: Vec<u8>,
    /// Most bytes that may be written: a partition that is asked for in few is answered in many.
    largest: usize,
}

impl<'a> Writer<'a> {
    /// Whether the response can answer items of the request one by one.
    fn answers_items(&self, fields: &[Field], scope: &Scope<'_>) -> bool {
        fields.iter().filter(|field| field.is_in(self.version)).any(|field| {
            match (field.kind, field.mark) {
                (Kind::Array(item), Some(mark)) => {
                    scope.items(mark).is_some_and(|items| items.count > 0)
                        && has_error(item, self.version)
                }
                _ => false,
            }
        })
    }

    fn structure(&mut self, fields: &[Field], scopes: &Scopes<'_, 'a>) -> Result<(), Halt> {
        for field in fields {
            if field.is_in(self.version) && field.tagged().is_none() {
                self.field(field, scopes)?;
            }
        }
        if self.plan.flexible {
            write_varint(0, &mut self.out);
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, scopes: &Scopes<'_, 'a>) -> Result<(), Halt> {
        let nullable = field.is_nullable(self.version);
        let flexible = self.plan.flexible;
        let value = field.mark.and_then(|mark| scopes.value(mark));
        match field.kind {
            Kind::Fixed(_) if field.mark == Some(Mark::Error) => {
                self.out.extend_from_slice(&scopes.error.to_be_bytes());
            }
            Kind::Fixed(size) => match value {
                Some(Some(value)) if value.len() == usize::from(size) => {
                    self.out.extend_from_slice(value);
                }
                _ => {
                    let default = i128::from(field.default).to_be_bytes();
                    self.out.extend_from_slice(&default[16 - usize::from(size)..]);
                }
            },
            Kind::Text => match value {
                Some(Some(text)) => write_text(Some(text), flexible, &mut self.out),
                _ if nullable => write_text(None, flexible, &mut self.out),
                _ => write_text(Some(b""), flexible, &mut self.out),
            },
            Kind::Bytes | Kind::List(_) => write_length(0, flexible, &mut self.out),
            Kind::Array(item) => self.array(field.mark, item, scopes)?,
            Kind::Structure(_) if nullable => self.out.push(0xff),
            Kind::Structure(fields) => self.structure(fields, scopes)?,
        }
        Ok(())
    }

    /// An array, with an item for each that the request has in its array of the same mark.
    fn array(
        &mut self,
        mark: Option<Mark>,
        item: &[Field],
        scopes: &Scopes<'_, 'a>,
    ) -> Result<(), Halt> {
        let items = mark.and_then(|mark| scopes.scope.items(mark)).cloned();
        let Some(items) = items else {
            write_length(0, self.plan.flexible, &mut self.out);
            return Ok(());
        };
        write_length(items.count, self.plan.flexible, &mut self.out);
        let mut at = items.first;
        for _ in 0..items.count {
            let error = match self.errors.denied.binary_search_by_key(&at, |(place, _)| *place) {
                Ok(found) => self.errors.denied[found].1,
                // What is inside of an item has the item's error.
                Err(_) if scopes.is_item => scopes.error,
                Err(_) => self.errors.others,
            };
            at = self.item(item, items.body.clone(), at, Some(scopes), error)?;
        }
        Ok(())
    }

    fn item(
        &mut self,
        fields: &[Field],
        steps: Range<usize>,
        at: usize,
        outer: Option<&Scopes<'_, 'a>>,
        error: i16,
    ) -> Result<usize, Halt> {
        if self.out.len() > self.largest {
            return Err(Halt::TooLarge);
        }
        let (scope, end) = Scope::read(self.plan, steps, self.frame, at)?;
        self.structure(fields, &Scopes { scope: &scope, outer, error, is_item: true })?;
        Ok(end)
    }
}
