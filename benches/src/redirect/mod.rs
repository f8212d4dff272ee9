//! What kernel programs cost: connections with and without them, side by side in one run.
//!
//! | module | what |
//! | --- | --- |
//! | [`ground`] | a network namespace, a bpffs, cgroups: with programs and without |
//! | [`messages`] | both ends of connections that carry messages of one size |
//! | [`worker`] | the process that connects and sends, in a cgroup |

pub mod ground;
pub mod messages;
pub mod worker;
