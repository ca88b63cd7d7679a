//! What a member keeps: write-ahead log, B+tree file and MVCC store.
//!
//! In reading order: [`device`] (files, real and simulated), [`wal`] (what was acknowledged),
//! [`tree`] (the database file in bbolt's format), [`mvcc`] (etcd's revisions over it), [`command`]
//! (the payload of a log entry, read in place), [`lease`] (the lease table and its clock), [`auth`] (users, roles and
//! what they may do).
//!
//! Always true here: nothing knows the network, Raft roles or the client API's messages.

pub mod auth;
pub mod command;
pub mod device;
pub mod lease;
pub mod mvcc;
mod protobuf;
pub mod tree;
pub mod wal;
