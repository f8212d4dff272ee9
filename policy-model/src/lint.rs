//! Warnings: what is legal and surely not meant.

use crate::diagnostic::Diagnostic;
use crate::rule::Policy;

/// Looks for it in all policies.
pub(crate) fn warn(_policies: &[Policy], _found: &mut Vec<Diagnostic>) {}
