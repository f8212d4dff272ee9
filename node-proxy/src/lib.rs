//! The node proxy: one daemon for all workloads of a node. It follows a source of truth, gives out
//! identities, computes policy, and tells a datapath what has changed.
//!
//! | module | what |
//! | --- | --- |
//! | [`source`] | where objects come from: a folder that is watched |
//! | [`objects`] | what they say: policies, workloads, services, namespaces |
//! | [`identities`] | numbers that outlive the process |
//! | [`state`] | all of it folded together; what is wanted, and what is in force |
//! | [`datapath`] | who carries it out: traits for the kernel's side and for the proxy |
//! | [`health`] | whether backends are well, asked; whether this node has any, answered |
//! | [`events`] | what the kernel tells of, packet by packet |
//! | [`api`] | the status socket |
//! | `cli`, `command`, `render` | the command line |
//! | `config`, `daemon`, `start`, `folders`, `logging` | `portreeve-node run` |
//! | `detach`, `trouble` | what it has set up, taken away; what can go wrong with it, and what to do |
#![forbid(unsafe_code)]

pub mod api;
mod cli;
mod command;
mod config;
mod daemon;
pub mod datapath;
mod detach;
pub mod events;
mod folders;
pub mod health;
pub mod identities;
mod logging;
pub mod objects;
mod render;
pub mod source;
mod start;
pub mod state;
mod trouble;

pub use self::command::main;
