//! Numbers that outlive the process: identities of label sets and of prefixes, and ids of endpoints. What the kernel
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

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use portreeve_policy::{Identity, IdentityAllocator, Label, Labels};

pub use self::file::StateError;
use self::numbering::Numbering;

/// Identities of the workloads of a cluster: from 256 (Cilium: user-defined identities), below those
/// that are one node's own.
pub const IDENTITIES: std::ops::RangeInclusive<u32> = 256..=(1 << 24) - 1;

/// Identities of prefixes that policies name: one node's own (Cilium: scope 1).
pub const PREFIXES: std::ops::RangeInclusive<u32> = (1 << 24)..=(1 << 25) - 1;

/// Identities, shared between the engine, which takes them, and who keeps them.
#[derive(Clone, Debug)]
pub struct Identities {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    labels: Kept<Labels>,
    prefixes: Kept<Prefix>,
    now: Instant,
}

/// Numbers and the file they are kept in.
#[derive(Debug)]
struct Kept<N> {
    numbers: Numbering<N>,
    path: PathBuf,
    /// Whether there is something that is not on disk.
    is_dirty: bool,
}

impl<N: Name> Kept<N> {
    fn open(
        path: PathBuf,
        range: std::ops::RangeInclusive<u32>,
        now: Instant,
    ) -> Result<Self, StateError> {
        Ok(Self { numbers: file::read(&path, range, now)?, path, is_dirty: false })
    }

    fn acquire(&mut self, name: &N, now: Instant) -> Option<u32> {
        let (number, is_new) = self.numbers.acquire(name, now)?;
        self.is_dirty |= is_new;
        Some(number)
    }

    fn begin_after(&mut self, in_use: &BTreeSet<u32>) {
        self.is_dirty |= self.numbers.begin_after(in_use);
    }

    fn collect(&mut self, now: Instant, keep: Duration) -> Vec<(N, u32)> {
        let gone = self.numbers.collect(now, keep);
        self.is_dirty |= !gone.is_empty();
        gone
    }

    fn save(&mut self) -> Result<(), StateError> {
        if self.is_dirty {
            file::write(&self.path, &self.numbers)?;
            self.is_dirty = false;
        }
        Ok(())
    }
}

impl Identities {
    /// Identities as the files of a folder have them; none where there is no such file.
    ///
    /// # Errors
    /// When a file can't be read, or is not what was written: no numbers are given out then.
    pub fn open(folder: &Path, now: Instant) -> Result<Self, StateError> {
        Self::with_range(folder, IDENTITIES, now)
    }

    /// Identities of label sets of a range of one's own.
    fn with_range(
        folder: &Path,
        range: std::ops::RangeInclusive<u32>,
        now: Instant,
    ) -> Result<Self, StateError> {
        let labels = Kept::open(folder.join("identities.json"), range, now)?;
        let prefixes = Kept::open(folder.join("prefixes.json"), PREFIXES, now)?;
        Ok(Self { shared: Arc::new(Mutex::new(Shared { labels, prefixes, now })) })
    }

    /// Gives out none of these numbers, nor any below: somebody has them, of whom the files know nothing.
    pub fn begin_after(&mut self, in_use: &BTreeSet<u32>) {
        let mut shared = self.lock();
        shared.labels.begin_after(in_use);
        shared.prefixes.begin_after(in_use);
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
        shared.labels.save()?;
        shared.prefixes.save()
    }

    /// Gives up what nobody has had for `keep`, and returns it. To be called when nothing that was
    /// written for others is older than the engine's view of them.
    pub fn collect(&self, keep: Duration) -> Vec<(Labels, Identity)> {
        let mut shared = self.lock();
        let now = shared.now;
        shared.prefixes.collect(now, keep);
        let gone = shared.labels.collect(now, keep);
        gone.into_iter().map(|(labels, number)| (labels, Identity::new(number))).collect()
    }

    /// Every identity: its number, its labels, and how many have it.
    #[must_use]
    pub fn list(&self) -> Vec<(Identity, Labels, usize)> {
        let shared = self.lock();
        let mut all: Vec<_> = shared
            .labels
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
        shared.labels.acquire(labels, now).map(Identity::new)
    }

    fn release(&mut self, labels: &Labels) {
        let mut shared = self.lock();
        let now = shared.now;
        shared.labels.numbers.release(labels, now);
    }

    fn acquire_prefix(&mut self, prefix: IpNet, names: &[String]) -> Option<Identity> {
        let mut shared = self.lock();
        let now = shared.now;
        shared.prefixes.acquire(&Prefix::of(prefix, names), now).map(Identity::new)
    }

    fn release_prefix(&mut self, prefix: IpNet, names: &[String], _: Identity) {
        let mut shared = self.lock();
        let now = shared.now;
        shared.prefixes.numbers.release(&Prefix::of(prefix, names), now);
    }
}

/// Ids of endpoints, by their names. As identities, so that what is pinned in the kernel for an endpoint
/// is found again.
#[derive(Debug)]
pub struct EndpointIds(Kept<String>);

impl EndpointIds {
    /// Ids as a file of a folder has them; none if there is no such file.
    ///
    /// # Errors
    /// As [`Identities::open`].
    pub fn open(folder: &Path, now: Instant) -> Result<Self, StateError> {
        Ok(Self(Kept::open(folder.join("endpoints.json"), 1..=u32::MAX - 1, now)?))
    }

    /// The id of an endpoint; `None`: there are none left.
    pub fn acquire(&mut self, name: &str, now: Instant) -> Option<u32> {
        self.0.acquire(&name.to_owned(), now)
    }

    /// The id of an endpoint that had one at some time.
    #[must_use]
    pub fn known(&self, name: &str) -> Option<u32> {
        self.0.numbers.number(&name.to_owned())
    }

    /// Every endpoint that has an id, or had one not long ago.
    pub fn names(&self) -> impl Iterator<Item = (u32, &str)> {
        self.0.numbers.entries().map(|(name, entry)| (entry.number, name.as_str()))
    }

    /// As [`Identities::begin_after`].
    pub fn begin_after(&mut self, in_use: &BTreeSet<u32>) {
        self.0.begin_after(in_use);
    }

    /// The endpoint is gone.
    pub fn release(&mut self, name: &str, now: Instant) {
        self.0.numbers.release(&name.to_owned(), now);
    }

    /// As [`Identities::collect`].
    pub fn collect(&mut self, now: Instant, keep: Duration) -> Vec<u32> {
        self.0.collect(now, keep).into_iter().map(|(_, id)| id).collect()
    }

    /// As [`Identities::save`].
    ///
    /// # Errors
    /// When it can't be written.
    pub fn save(&mut self) -> Result<(), StateError> {
        self.0.save()
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

/// A prefix and the DNS names it stands for, joined by spaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Prefix(String);

impl Prefix {
    fn of(prefix: IpNet, names: &[String]) -> Self {
        let names = names.iter().map(String::as_str);
        Self(
            std::iter::once(prefix.to_string().as_str()).chain(names).collect::<Vec<_>>().join(" "),
        )
    }
}

impl Name for Prefix {
    const FORMAT: &'static str = "portreeve-node prefixes";

    fn to_json(&self) -> serde_json::Value {
        self.0.as_str().into()
    }

    fn from_json(value: &serde_json::Value) -> Option<Self> {
        value.as_str().map(|text| Self(text.to_owned()))
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
