//! HTTP/1.1: one policy for all proxies, nginx as upstream, wrk and a small client as load.

pub mod contender;
pub mod load;
