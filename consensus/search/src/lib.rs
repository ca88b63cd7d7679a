//! A search of every state that a cluster of three can reach within bounds: not a model of Raft, but the real machine of the
//! crate `consensus`, cloned at every branch.
//!
//! The simulator runs few long histories under every fault; this runs all short ones. What branches: which message arrives
//! next (any of those on the way, so every order, delay and loss is among them), which disk finishes its oldest write, who
//! campaigns, who is asked for a write or a read, who crashes. [`Bounds`] says how often each may happen, so the space is
//! finite and is searched whole. Time stands still; a campaign stands for a timeout.
//!
//! - [`member`]: one machine with its disk, driven by the order contract of `consensus::ready`.
//! - [`oracle`]: what the outside has seen, and what must never be seen.
//! - [`model`]: the state, what may come next, and the properties.
//! - [`encoding`]: when two machines count as the same.
//!
//! A crate and a lock file of its own, so that whoever builds the server does not build the search.

#![forbid(unsafe_code)]

pub mod encoding;
pub mod member;
pub mod model;
pub mod oracle;

pub use member::Fault;
pub use model::{Bounds, Cluster, Step};
pub use oracle::Breach;
