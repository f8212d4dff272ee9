//! Numbers that outlive the process: identities of label sets, and ids of endpoints. What the kernel
//! was told before a restart must mean the same after it.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`Identities`]: the engine's allocator |
//! | `numbering.rs` | names to numbers: held, released, collected |
//! | `file.rs` | the same on disk |
//!
//! A number is on disk before anybody is told of it ([`Identities::save`]). When the last who has some
//! labels is gone, their number is kept for a while: packets on the way, and tables that are not
//! written yet, still mean them by it. Only [`Identities::collect`] gives it up, and a number that was
//! given up waits until all others have had their turn.

mod file;
mod numbering;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use portreeve_policy::{Identity, IdentityAllocator, Label, Labels};

pub use self::file::StateError;
use self::numbering::Numbering;

/// Identities of the workloads of a cluster: from 256 (Cilium: user-defined identities), below those
/// that are one node's own.
pub const IDENTITIES: std::ops::RangeInclusive<u32> = 256..=(1 << 24) - 1;

/// Identities, shared between the engine, which takes them, and who keeps them.
#[derive(Clone, Debug)]
pub struct Identities {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    numbers: Numbering<Labels>,
    path: PathBuf,
    now: Instant,
    /// Whether there is something that is not on disk.
    is_dirty: bool,
}

impl Identities {
    /// Identities as a file has them; none if there is no such file.
    ///
    /// # Errors
    /// When the file can't be read, or is not what was written: no numbers are given out then.
    pub fn open(path: impl Into<PathBuf>, now: Instant) -> Result<Self, StateError> {
        let path = path.into();
        let numbers = file::read(&path, IDENTITIES, now)?;
        Ok(Self::of(numbers, path, now))
    }

    /// Identities of a range of one's own.
    #[cfg(test)]
    fn with_range(
        path: impl Into<PathBuf>,
        range: std::ops::RangeInclusive<u32>,
        now: Instant,
    ) -> Result<Self, StateError> {
        let path = path.into();
        let numbers = file::read(&path, range, now)?;
        Ok(Self::of(numbers, path, now))
    }

    fn of(numbers: Numbering<Labels>, path: PathBuf, now: Instant) -> Self {
        let shared = Shared { numbers, path, now, is_dirty: false };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Another moment has come.
    pub fn at(&self, now: Instant) {
        self.lock().now = now;
    }

    /// Writes down what is not on disk yet.
    ///
    /// # Errors
    /// When it can't be written. The numbers that are new must not be told to anybody then.
    pub fn save(&self) -> Result<(), StateError> {
        let mut shared = self.lock();
        if shared.is_dirty {
            file::write(&shared.path, &shared.numbers)?;
            shared.is_dirty = false;
        }
        Ok(())
    }

    /// Gives up what nobody has had for `keep`, and returns it. To be called when nothing that was
    /// written for others is older than the engine's view of them.
    pub fn collect(&self, keep: std::time::Duration) -> Vec<(Labels, Identity)> {
        let mut shared = self.lock();
        let now = shared.now;
        let gone = shared.numbers.collect(now, keep);
        shared.is_dirty |= !gone.is_empty();
        gone.into_iter().map(|(labels, number)| (labels, Identity::new(number))).collect()
    }

    /// Every identity: its number, its labels, and how many have it.
    #[must_use]
    pub fn list(&self) -> Vec<(Identity, Labels, usize)> {
        let shared = self.lock();
        let mut all: Vec<_> = shared
            .numbers
            .entries()
            .map(|(labels, entry)| (Identity::new(entry.number), labels.clone(), entry.held))
            .collect();
        all.sort_by_key(|(identity, ..)| *identity);
        all
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IdentityAllocator for Identities {
    fn acquire(&mut self, labels: &Labels) -> Option<Identity> {
        let mut shared = self.lock();
        let now = shared.now;
        let (number, is_new) = shared.numbers.acquire(labels, now)?;
        shared.is_dirty |= is_new;
        Some(Identity::new(number))
    }

    fn release(&mut self, labels: &Labels) {
        let mut shared = self.lock();
        let now = shared.now;
        shared.numbers.release(labels, now);
    }
}

/// Ids of endpoints, by their names. As identities, so that what is pinned in the kernel for an endpoint
/// is found again.
#[derive(Debug)]
pub struct EndpointIds {
    numbers: Numbering<String>,
    path: PathBuf,
    is_dirty: bool,
}

impl EndpointIds {
    /// Ids as a file has them; none if there is no such file.
    ///
    /// # Errors
    /// As [`Identities::open`].
    pub fn open(path: impl Into<PathBuf>, now: Instant) -> Result<Self, StateError> {
        let path = path.into();
        Ok(Self { numbers: file::read(&path, 1..=u32::MAX - 1, now)?, path, is_dirty: false })
    }

    /// The id of an endpoint; `None`: there are none left.
    pub fn acquire(&mut self, name: &str, now: Instant) -> Option<u32> {
        let (number, is_new) = self.numbers.acquire(&name.to_owned(), now)?;
        self.is_dirty |= is_new;
        Some(number)
    }

    /// The endpoint is gone.
    pub fn release(&mut self, name: &str, now: Instant) {
        self.numbers.release(&name.to_owned(), now);
    }

    /// As [`Identities::collect`].
    pub fn collect(&mut self, now: Instant, keep: std::time::Duration) {
        self.is_dirty |= !self.numbers.collect(now, keep).is_empty();
    }

    /// As [`Identities::save`].
    ///
    /// # Errors
    /// When it can't be written.
    pub fn save(&mut self) -> Result<(), StateError> {
        if self.is_dirty {
            file::write(&self.path, &self.numbers)?;
            self.is_dirty = false;
        }
        Ok(())
    }
}

/// A name that has a number, as it is written down.
pub(crate) trait Name: Clone + Eq + std::hash::Hash + Ord {
    /// What the file is about.
    const FORMAT: &'static str;

    fn to_json(&self) -> serde_json::Value;

    fn from_json(value: &serde_json::Value) -> Option<Self>;
}

impl Name for String {
    const FORMAT: &'static str = "portreeve-node endpoint ids";

    fn to_json(&self) -> serde_json::Value {
        self.as_str().into()
    }

    fn from_json(value: &serde_json::Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl Name for Labels {
    const FORMAT: &'static str = "portreeve-node identities";

    /// Parts of their own: labels that somebody has need not follow any syntax.
    fn to_json(&self) -> serde_json::Value {
        self.iter().map(|label| serde_json::json!([label.source, label.key, label.value])).collect()
    }

    fn from_json(value: &serde_json::Value) -> Option<Self> {
        let label = |part: &serde_json::Value| match &part.as_array()?[..] {
            [source, key, value] => {
                Some(Label::new(source.as_str()?, key.as_str()?, value.as_str()?))
            }
            _ => None,
        };
        value.as_array()?.iter().map(label).collect()
    }
}
