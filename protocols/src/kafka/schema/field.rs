//! The words that schemas are written in: a field, its type, and the versions that have it.

use super::mark::Mark;

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub(in crate::kafka) struct Field {
    pub(in crate::kafka) kind: Kind,
    /// The first version that has it.
    since: i16,
    /// The last version that has it.
    until: i16,
    /// The first version in which it may be null.
    nullable: i16,
    /// Its number, if it stands among the tagged fields (KIP-482); negative if it does not.
    tag: i8,
    /// What the gate knows it as.
    pub(in crate::kafka) mark: Option<Mark>,
    /// What an answer of the gate's own says in it.
    pub(in crate::kafka) default: i32,
}

/// A field's type.
#[derive(Clone, Copy, Debug)]
pub(in crate::kafka) enum Kind {
    /// So many bytes.
    Fixed(u8),
    /// A length of two bytes, or a varint in flexible versions, and text.
    Text,
    /// A length of four bytes, or a varint in flexible versions, and bytes.
    Bytes,
    /// A count of four bytes, or a varint in flexible versions, and structures.
    Array(&'static [Field]),
    /// The same of plain values, which are the one field that is given.
    List(&'static [Field]),
    /// Fields in a row, with tagged fields of their own in flexible versions. Where it may be null, a
    /// byte comes before it.
    Structure(&'static [Field]),
}

impl Field {
    const fn new(kind: Kind) -> Self {
        Self {
            kind,
            since: 0,
            until: i16::MAX,
            nullable: i16::MAX,
            tag: -1,
            mark: None,
            default: 0,
        }
    }

    /// It came with this version.
    pub(super) const fn since(self, version: i16) -> Self {
        Self { since: version, ..self }
    }

    /// It went after this version.
    pub(super) const fn until(self, version: i16) -> Self {
        Self { until: version, ..self }
    }

    /// It may be null from this version on.
    pub(super) const fn nullable(self, version: i16) -> Self {
        Self { nullable: version, ..self }
    }

    /// It is the tagged field of this number.
    pub(super) const fn tag(self, tag: i8) -> Self {
        Self { tag, ..self }
    }

    /// What the gate knows it as.
    pub(super) const fn is(self, mark: Mark) -> Self {
        Self { mark: Some(mark), ..self }
    }

    /// What an answer of the gate's own says in it; 0 if nothing else is said.
    pub(super) const fn or(self, default: i32) -> Self {
        Self { default, ..self }
    }

    /// Whether this version has it.
    pub(in crate::kafka) fn is_in(&self, version: i16) -> bool {
        (self.since..=self.until).contains(&version)
    }

    /// Whether it may be null in this version.
    pub(in crate::kafka) fn is_nullable(&self, version: i16) -> bool {
        version >= self.nullable
    }

    /// Its number among the tagged fields.
    pub(in crate::kafka) fn tagged(&self) -> Option<u32> {
        u32::try_from(self.tag).ok()
    }
}

/// Constructors by the names that Kafka's own definitions use. A field's name is for the reader; no
/// byte on the wire says it, and the binary does not keep it.
macro_rules! fields {
    ($($name:ident = $kind:expr;)+) => {
        $(pub(super) const fn $name(_name: &'static str) -> Field {
            Field::new($kind)
        })+
    };
}

fields! {
    boolean = Kind::Fixed(1);
    int8 = Kind::Fixed(1);
    int16 = Kind::Fixed(2);
    uint16 = Kind::Fixed(2);
    int32 = Kind::Fixed(4);
    int64 = Kind::Fixed(8);
    float64 = Kind::Fixed(8);
    uuid = Kind::Fixed(16);
    string = Kind::Text;
    bytes = Kind::Bytes;
    records = Kind::Bytes;
}

pub(super) const fn array(_name: &'static str, item: &'static [Field]) -> Field {
    Field::new(Kind::Array(item))
}

pub(super) const fn list(_name: &'static str, item: &'static [Field]) -> Field {
    Field::new(Kind::List(item))
}

pub(super) const fn structure(_name: &'static str, fields: &'static [Field]) -> Field {
    Field::new(Kind::Structure(fields))
}
