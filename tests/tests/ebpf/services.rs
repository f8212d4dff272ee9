//! Service addresses: a backend stands for each connection, and the application does not notice.
pub(crate) const CASES: &[(&str, fn())] = &[];
