//! Kernel programs that feed the proxy, and their loader. The programs are in `programs/`, what they
//! share with the loader in `common/`; `object/` has them compiled.
//!
//! | file | what |
//! | --- | --- |
//! | [`policy`] | a workload's policy as entries of the kernel's trie |
//! | [`node`] | the datapath of a whole node: its own programs, maps and loader |
//! | [`services`] | services, their backends, and the way from one configuration to the next |
//! | `settings.rs` | what is asked for |
//! | `preflight.rs` | what has to be there before anything is touched |
//! | `instance.rs` | names, folders, and one owner at a time |
//! | `programs.rs`, `attach.rs` | into the kernel, and onto the workload |
//! | `maps.rs`, `policy_map.rs`, `service_maps.rs`, `ports.rs` | what programs are told |
//! | `events.rs` | what they tell |
//! | `redirect.rs` | [`prepare`], and what is done with a [`Redirect`] |
//! | `status.rs` | what is set up, seen from outside, and taking it away |
//! | `join/` | whether sockets can be joined, tried before it is done |
//! | `table.rs`, `sys.rs` | maps with types, and the calls beneath |

mod address;
mod attach;
mod error;
mod events;
mod instance;
mod join;
mod maps;
pub mod node;
pub mod policy;
mod policy_map;
mod ports;
mod preflight;
mod programs;
mod redirect;
mod revoke;
mod service_maps;
pub mod services;
mod settings;
mod sock_diag;
mod status;
mod sys;
mod table;

pub use self::error::{MapError, SetupError};
pub use self::events::{Counters, Events};
pub use self::instance::{InstanceName, InstanceNameError};
pub use self::join::{JoinError, self_test};
pub use self::policy::{Answer, PolicyTable, kernel_verdict};
pub use self::preflight::Missing;
pub use self::redirect::{Exemption, OriginalDestination, Prepared, Redirect, prepare};
pub use self::services::{
    BackendConfig, ServiceConfig, ServiceError, ServiceTables, ServiceWrite, Transport,
};
pub use self::settings::{Capacity, Outbound, Settings};
pub use self::status::{
    Condition, Detached, InstanceError, InstanceStatus, MapStatus, PolicyStatus, ProgramState,
    ProgramStatus, detach, instances, status,
};
pub use portreeve_ebpf_common::{Event, EventKind, EventReason, ListenerSlot};
