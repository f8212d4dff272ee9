//! HTTP/2 (RFC 9113) and gRPC: what is decided without a socket. The connections themselves are the
//! `h2` crate's; pairing them is the proxy's affair.
//!
//! | file | what |
//! | --- | --- |
//! | `request.rs` | [`prepare`]: a request's head brought into the form that policy judges; [`Request`] |
//! | `reply.rs` | [`Reply`]: answers of the proxy's own, for HTTP and for gRPC |
//! | `grpc.rs` | names, statuses, and the counting of messages |
//! | `meter.rs` | [`Meter`]: frames that cost more than they are worth |
//! | `refusal.rs` | [`Refusal`]: why a connection is ended |
//! | `limits.rs` | [`Limits`] |
//!
//! All of it works on the types of the `http` crate, so that a `tower` service can use it for requests
//! of any version.

pub mod grpc;
mod limits;
mod meter;
mod refusal;
mod reply;
mod request;

pub use self::limits::Limits;
pub use self::meter::Meter;
pub use self::refusal::Refusal;
pub use self::reply::Reply;
pub use self::request::{Prepared, Request, are_trailers, keep_trailers, prepare};

/// What a client of HTTP/2 sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
