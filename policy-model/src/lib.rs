//! The policy engine: documents in, verdicts out. No I/O, no async, no clock.
#![forbid(unsafe_code)]
