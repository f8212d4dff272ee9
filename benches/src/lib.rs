//! What the comparisons share. A program in `bin/` asks one protocol's questions; what asking takes
//! lives here, so that the programs stay as short as their tables.
//!
//! | module | what |
//! | --- | --- |
//! | [`contender`] | the proxies: found, started, tried; which of them are here |
//! | [`grpc`] | HTTP/2 and gRPC: their configuration, what is said, upstream and loads |
//! | [`http1`] | HTTP/1.1: their configuration, the upstream and the loads |
//! | [`node`] | workloads of a node, with programs on their interfaces and without |
//! | [`peers`] | how each proxy is started, whatever is spoken |
//! | [`process`] | where programs are, and their CPU time and memory |
//! | [`table`] | rounds in turn, medians, the table |

pub mod contender;
pub mod grpc;
pub mod http1;
pub mod node;
pub mod peers;
pub mod process;
pub mod redirect;
pub mod table;

/// What went wrong, in words. A measurement that meets one does not count.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
