//! What a member keeps. Always true here: nothing knows the network or Raft roles.

pub mod device;
pub mod tree;
pub mod wal;
