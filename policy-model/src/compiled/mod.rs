//! What one workload may do, compiled: the only form that is on the way of a request.
//!
//! | file | what |
//! | --- | --- |
//! | `endpoint_policy.rs` | [`EndpointPolicy`]: identities, directions, origins of rules |
//! | `port_policy.rs` | (identity, protocol, port) → deny, allow, inspect |
//! | `l4.rs` | all of that as tables, for one who can't ask: a kernel |
//! | `rules.rs` | [`Rules`]: what is enforced on a connection, and what policies in audit mode would say |
//! | `http.rs`, `index.rs` | which HTTP rule allows a request, of however many |
//! | `describe.rs` | [`RequestRule`]: those rules as text |
//! | `values.rs` | conditions on header fields and query parameters |
//! | `kafka.rs`, `dns.rs`, `tls.rs`, `generic.rs` | the same for other protocols |

mod describe;
mod dns;
mod endpoint_policy;
mod generic;
mod http;
mod index;
mod kafka;
mod l4;
mod port_policy;
mod rules;
mod tls;
mod values;

pub use self::describe::RequestRule;
pub(crate) use self::dns::DnsRuleSet;
pub use self::endpoint_policy::EndpointPolicy;
pub(crate) use self::endpoint_policy::{Decisions, DirectionPolicy};
pub(crate) use self::generic::GenericRuleSet;
pub(crate) use self::http::HttpRuleSet;
pub use self::http::{HeaderEdit, HttpRequest};
pub use self::kafka::KafkaRequest;
pub(crate) use self::kafka::KafkaRuleSet;
pub use self::l4::{IdentityClass, IdentityClasses, PortSpan};
pub use self::port_policy::Authentication;
pub(crate) use self::port_policy::{Class, Classes, PortAction, PortPolicy, Span};
pub(crate) use self::rules::Alternatives;
pub use self::rules::{DnsRules, GenericRules, HttpRules, KafkaRules, ServerNameRules};
pub(crate) use self::tls::ServerNames;
pub use self::tls::TlsInspection;
