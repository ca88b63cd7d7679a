//! The apply core: the single writer of the state machine.
//!
//! Committed entries come in order through one ring. Each is interpreted against the store, its
//! reply is encoded into the batch of the net core that proposed it, and at the end of a pass the
//! new revision, the applied index and the replies are published together. Beside that run, in
//! slices and on timers: group commits, compaction, defragmentation, the member's own proposals.
//!
//! Always true here: entries are applied once, in order, without gap; the outcome depends on the
//! entry and the store alone (no clock, no randomness); the disk is never waited for.

mod alarms;
mod auth_entries;
pub mod cluster;
mod commits;
mod committer;
mod compaction;
mod defrag;
mod describe;
mod lease_entries;
mod leases;
mod membership;
mod schedule;
mod stage;
mod states;

pub use auth_entries::AuthRoom;
pub use committer::{Committer, yield_to_cores};
pub use defrag::Defrag;
pub use leases::{LeaseSettings, Leases};
pub use stage::{ApplyParts, ApplySettings, ApplyStage};
pub use states::States;
