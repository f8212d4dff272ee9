//! Services: their configuration, what the kernel's maps hold of it, and the way from one state of the
//! maps to the next on which no program ever finds half a service.
//!
//! | file | what |
//! | --- | --- |
//! | `config.rs` | [`ServiceConfig`], and what is wrong with one |
//! | `alias.rs`, `maglev.rs` | weights as slots: for those inside, and for those outside |
//! | `contents.rs` | what is in the maps, and who has which number |
//! | `found.rs` | what is in the maps, as configuration |
//! | `tables.rs` | [`ServiceTables`]: from what is there to what is to be |
//! | `plan.rs` | [`ServicePlan`]: the writes between, in their order |

mod alias;
mod config;
mod contents;
mod found;
mod maglev;
mod plan;
mod tables;
#[cfg(test)]
mod tests;

pub use self::config::{
    BackendConfig, MAX_BACKENDS, MAX_WEIGHT, ServiceConfig, ServiceError, Transport,
};
pub use self::plan::{ServicePlan, ServiceWrite};
pub use self::tables::{ServiceRoom, ServiceTables};
