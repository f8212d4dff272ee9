//! Kernel programs that feed the proxy, and their loader. The programs are in `programs/`, what they
//! share with the loader in `common/`.
//!
//! | module | what |
//! | --- | --- |
//! | [`policy`] | a workload's policy as entries of the kernel's trie |
//! | [`services`] | services, their backends, and the way from one configuration to the next |

mod address;
pub mod policy;
pub mod services;

pub use self::policy::{Answer, PolicyTable, kernel_verdict};
pub use self::services::{BackendConfig, ServiceConfig, ServiceError, ServiceTables, ServiceWrite};
