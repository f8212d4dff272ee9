//! Counters by names that clients bring (topics, gRPC methods): as many as there is room for, since
//! clients can make up names.

use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;

use super::record::Verdict;

/// Names that get series of their own on each worker, as long as something of them was allowed.
const ALLOWED: usize = 1000;

/// The same for names of which nothing was.
const DENIED: usize = 100;

/// Longest name that gets a series.
pub(super) const LONGEST_NAME: usize = 255;

/// What the names without series of their own are called.
const OTHER: &str = "(other)";

/// The counters of one worker, by name.
#[derive(Debug, Default)]
pub(super) struct Series<T> {
    named: Mutex<Named<T>>,
    other: Arc<T>,
}

#[derive(Debug, Default)]
struct Named<T> {
    by_name: FxHashMap<Box<[u8]>, Arc<T>>,
    allowed: usize,
    denied: usize,
}

impl<T: Default> Series<T> {
    /// The counters of a name. Takes a lock: to be kept for as long as the connection lives.
    pub(super) fn get(&self, name: &[u8], verdict: Verdict) -> Arc<T> {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = named.by_name.get(name) {
            return known.clone();
        }
        let (count, most) = match verdict {
            Verdict::Deny => (&mut named.denied, DENIED),
            Verdict::Allow | Verdict::Audit => (&mut named.allowed, ALLOWED),
        };
        if *count >= most || name.len() > LONGEST_NAME {
            return self.other.clone();
        }
        *count += 1;
        let counters = Arc::<T>::default();
        named.by_name.insert(name.into(), counters.clone());
        counters
    }

    /// Those of all workers by name, in order.
    pub(super) fn joined<'s>(workers: impl Iterator<Item = &'s Self>) -> Vec<(String, Vec<Arc<T>>)>
    where
        T: 's,
    {
        let mut joined: FxHashMap<String, Vec<Arc<T>>> = FxHashMap::default();
        for worker in workers {
            let named = worker.named.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, counters) in &named.by_name {
                let name = String::from_utf8_lossy(name).into_owned();
                joined.entry(name).or_default().push(counters.clone());
            }
            joined.entry(OTHER.to_owned()).or_default().push(worker.other.clone());
        }
        let mut joined: Vec<_> = joined.into_iter().collect();
        joined.sort_by(|(a, _), (b, _)| a.cmp(b));
        joined
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_do_not_make_up_series() {
        let series = Series::<u8>::default();
        let mut others = 0;
        for n in 0..5000 {
            let counters = series.get(format!("made-up-{n}").as_bytes(), Verdict::Deny);
            others += usize::from(Arc::ptr_eq(&counters, &series.other));
        }
        assert_eq!(others, 5000 - DENIED);
        let real = series.get(b"orders", Verdict::Allow);
        assert!(!Arc::ptr_eq(&real, &series.other), "denials leave room for what is allowed");
    }
}
