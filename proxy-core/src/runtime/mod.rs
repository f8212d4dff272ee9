//! Threads and what they share: one single-threaded event loop a core, nothing shared between
//! them on the way of a request.
//!
//! | file | what |
//! | --- | --- |
//! | `worker.rs` | a worker thread: its listeners, its sweeper, its end |
//! | `tenants.rs` | whose policy judges a connection: one workload's, or those of a node's endpoints |
//! | `registry.rs` | the connections of an endpoint, so that the worker can time them out, review and drain them |
//! | `pace.rs` | a worker's time, shared between the endpoints of a node |
//! | `throttle.rs` | messages, at most one a second |
//! | `clock.rs` | instants as milliseconds, for deadlines in an atomic |

mod clock;
mod pace;
mod registry;
mod tenants;
mod throttle;
mod worker;

pub(crate) use self::clock::Moment;
pub(crate) use self::pace::{Pace, Paced, Share};
pub(crate) use self::registry::{Crowd, Joined, Registration, Registry, Signals};
pub(crate) use self::tenants::{Judges, Many, Tenant, Tenants};
pub(crate) use self::throttle::Throttle;
pub(crate) use self::worker::{Stage, Worker, run};
