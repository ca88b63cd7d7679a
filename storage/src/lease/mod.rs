//! Leases: which exist, what is attached to them, and when they end.
//!
//! Two state machines with nothing in common but ids. [`LeaseTable`] is part of the replicated state: it changes by
//! log entries alone, so every member holds the same one, and what it says is in the bucket `lease` of the tree file
//! in etcd's encoding ([`record`]). [`LeaseClock`] belongs to the member that leads: it knows when each lease ends,
//! says which are due, and is thrown away with the leadership; time comes in as nanoseconds of any monotonic clock.
//!
//! Always true here: nothing reads a clock; a keepalive changes the clock and never the table, so it needs no entry.
//! Owned by the apply core. Deliberately absent: requests, proposals, waiting.

mod clock;
mod record;
mod table;

pub use clock::{
    CHECKPOINTS_MAX, Checkpoint, Checkpoints, ClockSettings, LeaseClock, REVOKES_IN_FLIGHT_MAX,
    Renewal,
};
pub use record::{LeaseRecord, bucket_key};
pub use table::{Granted, LEASE_TTL_MAX, LeaseError, LeaseLoadError, LeaseTable, LoadReport};

/// A lease's id, chosen by a client or by the member that took the request. Never 0 in a table; may be negative.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LeaseId(pub i64);

impl LeaseId {
    /// What a key without a lease has.
    pub const NONE: LeaseId = LeaseId(0);

    pub fn is_none(self) -> bool {
        self == LeaseId::NONE
    }
}
