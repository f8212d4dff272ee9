//! Threads and what they share: one single-threaded event loop a core, nothing shared between
//! them on the way of a request.
//!
//! | file | what |
//! | --- | --- |
//! | `worker.rs` | a worker thread: its listeners, its sweeper, its end |
//! | `registry.rs` | the connections of a worker, so that it can time them out, review and drain them |
//! | `throttle.rs` | messages, at most one a second |
//! | `clock.rs` | instants as milliseconds, for deadlines in an atomic |

mod clock;
mod registry;
mod throttle;
mod worker;

pub(crate) use self::registry::{Registration, Registry, Signals};
pub(crate) use self::throttle::Throttle;
pub(crate) use self::worker::{Stage, Worker, run};
