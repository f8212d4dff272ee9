//! Sans-IO gates: one folder a protocol, one contract ([`gate`]) for all.
//!
//! | module | what |
//! | --- | --- |
//! | [`gate`] | the contract between a gate and the relay that drives it |
//! | [`http1`] | HTTP/1.1 (RFC 9112): strict framing, path normalisation, denials in their turn |
//! | [`http2`] | HTTP/2 (RFC 9113) and gRPC: heads as policy sees them, answers, floods |
//! | [`kafka`] | Kafka: requests judged by topic and group |
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "fuzzing"))]
pub mod drive;
pub mod gate;
pub mod http1;
pub mod http2;
mod in_flight;
pub mod kafka;
