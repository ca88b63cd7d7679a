//! One test a claim of "In Search of an Understandable Consensus Algorithm" (the extended paper)
//! and of Ongaro's thesis, as far as the core rests on it. The section stands in the test's name:
//! `s` of the paper, `t` of the thesis.

#[path = "paper/disk.rs"]
mod disk;
#[path = "paper/elections.rs"]
mod elections;
#[path = "paper/membership.rs"]
mod membership;
#[path = "paper/node.rs"]
mod node;
#[path = "paper/reads.rs"]
mod reads;
#[path = "paper/replication.rs"]
mod replication;
#[path = "paper/snapshots.rs"]
mod snapshots;
