//! What the comparisons share. A program in `bin/` asks one protocol's questions; what asking takes
//! lives here, so that the programs stay as short as their tables.
//!
//! | module | what |
//! | --- | --- |
//! | [`contender`] | the proxies: found, started, tried; which of them are here |
//! | [`http1`] | HTTP/1.1: their configuration, the upstream and the loads |
//! | [`process`] | where programs are, and their CPU time and memory |
//! | [`table`] | rounds in turn, medians, the table |

pub mod contender;
pub mod http1;
pub mod process;
pub mod table;

/// What went wrong, in words. A measurement that meets one does not count.
pub type Failure = Box<dyn std::error::Error>;
