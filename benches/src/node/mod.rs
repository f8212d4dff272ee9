//! What a node's datapath costs: workloads with programs on their interfaces and without, side by side in
//! one run.
//!
//! | module | what |
//! | --- | --- |
//! | [`ground`] | a network namespace with a bpffs, and those of workloads |
//! | [`daemon`] | `portreeve-node`, its folder of objects, what it tells of, its memory |
//! | [`services`] | services for the daemon, and for nftables |
//! | [`verdict`] | what the programs take for a packet, run by themselves |

pub mod daemon;
pub mod ground;
pub mod services;
pub mod verdict;
