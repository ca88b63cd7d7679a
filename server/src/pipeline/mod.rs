//! The pipeline: which stage runs on which core, and what the stages say to each other.
//!
//! ```text
//! net ──ToLog──> log ──Entry──> apply ──ToNet──> net
//!      <─ToNet── log
//! ```
//!
//! Always true here: every arrow is a bounded single-producer single-consumer ring; the receiver is
//! woken after the push; a full ring is an answer to the client (`etcdserver: too many requests`) or
//! makes the producer wait with the work it already holds, until the receiver rings that it made room;
//! never a dropped item.

mod defrag;
mod leases;
mod messages;
mod placement;
mod ring;
mod shared;

pub use defrag::{DEFRAG_ASKS, DefragAsk};
pub use leases::{LeaseAnswer, LeaseAsk, LeaseCaller, LeaseFound, LeaseSaid, LeaseWhat};
pub use messages::{NetId, Reply, ReplyBatch, RequestId, ToApply, ToLog, ToNet};
pub use placement::{CorePlan, plan};
pub use ring::{Doorbell, Inbox, Inlet, Outbox, Spill, Watcher, ring};
pub use shared::{Progress, Shared, lease_ids_from};
