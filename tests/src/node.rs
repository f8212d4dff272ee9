//! A miniature node: network namespaces with cables between them, and `portreeve-node` in one of them.
//!
//! | module | what |
//! | --- | --- |
//! | [`net`] | the namespaces, what runs in them, and how they ask each other |
//! | [`daemon`] | the daemon, its folder of objects, and what it says |

pub mod daemon;
pub mod net;

use crate::Need;

/// What tests with a miniature node need.
pub const NEEDS: [Need; 5] = [
    Need::Root,
    Need::Namespaces,
    Need::KernelPrograms,
    Need::Program("ip"),
    Need::Program("nsenter"),
];
