//! What one workload may do, compiled: the only form that is on the way of a request.
//!
//! | file | what |
//! | --- | --- |
//! | `endpoint_policy.rs` | [`EndpointPolicy`]: identities, directions, origins of rules |
//! | `port_policy.rs` | (identity, protocol, port) → deny, allow, inspect |
//! | `http.rs` | [`HttpRules`]: which rule allows a request |
//! | `headers.rs` | conditions on header fields, and what happens when they are not met |

mod endpoint_policy;
mod headers;
mod http;
mod port_policy;

pub(crate) use self::endpoint_policy::DirectionPolicy;
pub use self::endpoint_policy::EndpointPolicy;
pub(crate) use self::http::HttpRuleSet;
pub use self::http::{HeaderEdit, HttpRequest, HttpRules};
pub(crate) use self::port_policy::{Class, Grant, PortPolicy, Rules};
