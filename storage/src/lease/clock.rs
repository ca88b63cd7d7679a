//! When leases end: the leader's knowledge, kept beside the table and never in it.
//!
//! Invariants
//! - While this member leads, every lease of the table has exactly one time at which it ends, and one place: in the queue
//!   of leases by their ends, or among those in flight. While it does not lead there is neither, and leases do not end.
//! - A lease that is due is named by [`LeaseClock::take_expired`] and again after `retry_ns`, until it is gone. At most
//!   [`REVOKES_IN_FLIGHT_MAX`] leases are named and not gone.
//! - A lease that is due is not renewed any more: whoever asks waits until it is gone.
//!
//! The rules are those of etcd's lessor: a new leader gives every lease its time again (or what the last checkpoint left
//! of it) and one election timeout more, and spreads the ends of many leases. Different here: how many leases may end in
//! a second (see `take_expired`), and that a lease is looked at when it ends, not at the next half second.
//!
//! Time is nanoseconds of one monotonic clock, passed in. Apply core of the leader. Proposes nothing itself.

use std::collections::{BTreeMap, BTreeSet};

use super::LeaseId;
use super::table::LeaseTable;

/// Leases that may be named as due and not yet be gone. With the caller's pause between two looks this bounds how many
/// end in a second, and how long a client's put waits behind their deletions.
pub const REVOKES_IN_FLIGHT_MAX: usize = 256;
/// Leases in one checkpoint entry; etcd's number.
pub const CHECKPOINTS_MAX: usize = 1000;
/// With fewer leases their ends are not spread at a change of leader. etcd's rate of revocations in a second.
const SPREAD_LEASES_MIN: usize = 1000;
/// Ends in one second after a change of leader: three quarters of that rate, so that other leases find room.
const SPREAD_ENDS_PER_SECOND: u64 = 750;
const SECOND_NS: u64 = 1_000_000_000;

/// What the configuration says.
#[derive(Clone, Copy, Debug)]
pub struct ClockSettings {
    /// After this long a lease that was named as due and is still there is named again.
    pub retry_ns: u64,
    /// How often a lease's remaining time is written to the log; `None`: never.
    pub checkpoint_interval_ns: Option<u64>,
}

/// What became of a keepalive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Renewal {
    /// The lease has its whole time again.
    Renewed { ttl_s: i64 },
    /// There is no such lease.
    Unknown,
    /// Its time is over: the answer is given once it is gone.
    Expired,
    /// Its checkpoint must be taken back by an entry first.
    NeedsCheckpoint,
    /// This member does not lead.
    NotPrimary,
}

/// A lease's remaining time for a checkpoint entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    pub id: LeaseId,
    pub remaining_ttl_s: i64,
}

/// Checkpoints of one entry, at most [`CHECKPOINTS_MAX`].
pub type Checkpoints = Vec<Checkpoint>;

#[derive(Clone, Copy, Debug)]
struct Times {
    ends_ns: u64,
    /// Its place among those in flight, once it was named as due: when to name it again.
    retry_ns: Option<u64>,
    /// Its place among the checkpoints, if it has one.
    checkpoint_ns: Option<u64>,
}

#[derive(Debug)]
pub struct LeaseClock {
    settings: ClockSettings,
    is_primary: bool,
    times: BTreeMap<LeaseId, Times>,
    /// By end, those that were not named as due.
    queue: BTreeSet<(u64, LeaseId)>,
    /// By the time to name them again.
    in_flight: BTreeSet<(u64, LeaseId)>,
    checkpoints: BTreeSet<(u64, LeaseId)>,
}

impl LeaseClock {
    pub fn new(settings: ClockSettings) -> LeaseClock {
        LeaseClock {
            settings,
            is_primary: false,
            times: BTreeMap::new(),
            queue: BTreeSet::new(),
            in_flight: BTreeSet::new(),
            checkpoints: BTreeSet::new(),
        }
    }

    /// Whether this member counts the time.
    pub fn is_primary(&self) -> bool {
        self.is_primary
    }

    /// Leases named as due that are not gone yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// This member leads and has applied all entries of earlier terms: every lease begins anew, with `extend_ns` more.
    pub fn promote(&mut self, table: &LeaseTable, extend_ns: u64, now_ns: u64) {
        self.demote();
        self.is_primary = true;
        let mut leases: Vec<(u64, LeaseId, u64)> = table
            .ids_after(None)
            .map(|id| {
                let whole_ns = seconds(table.remaining_ttl_s(id).expect("listed by the table"));
                (extend_ns.saturating_add(whole_ns), id, whole_ns)
            })
            .collect();
        leases.sort_unstable();
        if leases.len() >= SPREAD_LEASES_MIN {
            spread(&mut leases, extend_ns);
        }
        let set = |&(remaining_ns, id, _): &(u64, LeaseId, u64)| {
            (now_ns.saturating_add(remaining_ns), id)
        };
        self.queue = leases.iter().map(set).collect();
        self.times = leases
            .iter()
            .map(|lease| {
                let (ends_ns, id) = set(lease);
                (id, Times::ending(ends_ns))
            })
            .collect();
        for (_, id, _) in leases {
            self.schedule_checkpoint(table, id, now_ns);
        }
    }

    /// This member leads no more: leases do not end here.
    pub fn demote(&mut self) {
        self.is_primary = false;
        self.times.clear();
        self.queue.clear();
        self.in_flight.clear();
        self.checkpoints.clear();
    }

    /// The table has a new lease.
    pub fn on_granted(&mut self, table: &LeaseTable, id: LeaseId, now_ns: u64) {
        if self.is_primary {
            self.refresh(table, id, now_ns);
            self.schedule_checkpoint(table, id, now_ns);
        }
    }

    /// A lease is gone from the table.
    pub fn on_revoked(&mut self, id: LeaseId) {
        let Some(times) = self.times.remove(&id) else {
            return;
        };
        self.leave_place(id, times);
        if let Some(at_ns) = times.checkpoint_ns {
            self.checkpoints.remove(&(at_ns, id));
        }
    }

    /// A checkpoint of this lease was applied. When it ends does not change; the next one is planned.
    pub fn on_checkpointed(&mut self, table: &LeaseTable, id: LeaseId, now_ns: u64) {
        if self.is_primary {
            self.schedule_checkpoint(table, id, now_ns);
        }
    }

    /// A keepalive.
    pub fn renew(&mut self, table: &LeaseTable, id: LeaseId, now_ns: u64) -> Renewal {
        if !self.is_primary {
            return Renewal::NotPrimary;
        }
        let has_checkpoint = table.checkpoint_s(id).is_some_and(|left_s| left_s > 0);
        let is_due = self.ends_ns(id).is_some_and(|ends_ns| ends_ns <= now_ns);
        if has_checkpoint && !is_due && self.settings.checkpoint_interval_ns.is_some() {
            return Renewal::NeedsCheckpoint;
        }
        self.renew_as_it_is(table, id, now_ns)
    }

    /// The same without asking for a checkpoint to be taken back, because it was, or could not be.
    pub fn renew_as_it_is(&mut self, table: &LeaseTable, id: LeaseId, now_ns: u64) -> Renewal {
        if !self.is_primary {
            return Renewal::NotPrimary;
        }
        let (Some(times), Some(ttl_s)) = (self.times.get(&id), table.ttl_s(id)) else {
            return Renewal::Unknown;
        };
        if times.ends_ns <= now_ns {
            return Renewal::Expired;
        }
        self.refresh(table, id, now_ns);
        Renewal::Renewed { ttl_s }
    }

    /// When the lease ends; `None` if it does not, because it does not exist or this member does not lead.
    pub fn ends_ns(&self, id: LeaseId) -> Option<u64> {
        Some(self.times.get(&id)?.ends_ns)
    }

    /// Whole seconds until the lease ends, cut towards zero as etcd does: negative for one that should be gone.
    pub fn remaining_s(&self, id: LeaseId, now_ns: u64) -> Option<i64> {
        let ends_ns = self.ends_ns(id)?;
        Some(match ends_ns.checked_sub(now_ns) {
            Some(left_ns) => (left_ns / SECOND_NS) as i64,
            None => -(((now_ns - ends_ns) / SECOND_NS) as i64),
        })
    }

    /// Names the leases that are due, those that waited longest first, as far as [`REVOKES_IN_FLIGHT_MAX`] allows.
    ///
    /// etcd looks every half second and takes at most 500. There, as here, the bound keeps the log usable while very
    /// many leases end at once; here it is on those in flight, so the rate follows what the log and the disk take.
    pub fn take_expired(&mut self, now_ns: u64, expired: &mut Vec<LeaseId>) {
        let from = expired.len();
        while let Some(&(retry_ns, id)) = self.in_flight.first()
            && retry_ns <= now_ns
        {
            self.in_flight.pop_first();
            expired.push(id);
        }
        while self.in_flight.len() + (expired.len() - from) < REVOKES_IN_FLIGHT_MAX
            && let Some(&(ends_ns, id)) = self.queue.first()
            && ends_ns <= now_ns
        {
            self.queue.pop_first();
            expired.push(id);
        }
        let retry_ns = now_ns.saturating_add(self.settings.retry_ns);
        for &id in &expired[from..] {
            let times = self.times.get_mut(&id).expect("what has a place has times");
            times.retry_ns = Some(retry_ns);
            self.in_flight.insert((retry_ns, id));
        }
    }

    /// Whether leases are due that were not named, because too many are in flight.
    pub fn has_backlog(&self, now_ns: u64) -> bool {
        self.queue
            .first()
            .is_some_and(|&(ends_ns, _)| ends_ns <= now_ns)
    }

    /// The checkpoints that are due, at most [`CHECKPOINTS_MAX`]. What is named is planned again when its entry is
    /// applied.
    pub fn take_checkpoints(&mut self, table: &LeaseTable, now_ns: u64) -> Checkpoints {
        let mut due = Checkpoints::new();
        let mut renewed = Vec::new();
        while due.len() < CHECKPOINTS_MAX
            && let Some(&(at_ns, id)) = self.checkpoints.first()
            && at_ns <= now_ns
        {
            self.checkpoints.pop_first();
            let times = self.times.get_mut(&id).expect("what is planned has times");
            times.checkpoint_ns = None;
            let ttl_s = table.ttl_s(id).expect("what has times is in the table");
            if times.ends_ns <= now_ns {
                continue;
            }
            let remaining_ttl_s = (times.ends_ns - now_ns).div_ceil(SECOND_NS) as i64;
            if remaining_ttl_s < ttl_s {
                due.push(Checkpoint {
                    id,
                    remaining_ttl_s,
                });
            } else {
                // Renewed this very second: there is nothing to note, but there will be.
                renewed.push(id);
            }
        }
        for id in renewed {
            self.schedule_checkpoint(table, id, now_ns);
        }
        due
    }

    fn refresh(&mut self, table: &LeaseTable, id: LeaseId, now_ns: u64) {
        let Some(whole_s) = table.remaining_ttl_s(id) else {
            return;
        };
        let ends_ns = now_ns.saturating_add(seconds(whole_s));
        let times = self
            .times
            .entry(id)
            .or_insert_with(|| Times::ending(ends_ns));
        let before = *times;
        *times = Times {
            ends_ns,
            retry_ns: None,
            ..before
        };
        self.leave_place(id, before);
        self.queue.insert((ends_ns, id));
    }

    fn leave_place(&mut self, id: LeaseId, times: Times) {
        match times.retry_ns {
            Some(retry_ns) => self.in_flight.remove(&(retry_ns, id)),
            None => self.queue.remove(&(times.ends_ns, id)),
        };
    }

    /// Plans a checkpoint for a lease that has longer to live than the interval between two.
    fn schedule_checkpoint(&mut self, table: &LeaseTable, id: LeaseId, now_ns: u64) {
        let Some(interval_ns) = self.settings.checkpoint_interval_ns else {
            return;
        };
        let (Some(times), Some(whole_s)) = (self.times.get_mut(&id), table.remaining_ttl_s(id))
        else {
            return;
        };
        if times.checkpoint_ns.is_none() && seconds(whole_s) > interval_ns {
            let at_ns = now_ns.saturating_add(interval_ns);
            times.checkpoint_ns = Some(at_ns);
            self.checkpoints.insert((at_ns, id));
        }
    }
}

impl Times {
    fn ending(ends_ns: u64) -> Times {
        Times {
            ends_ns,
            retry_ns: None,
            checkpoint_ns: None,
        }
    }
}

fn seconds(ttl_s: i64) -> u64 {
    u64::try_from(ttl_s).unwrap_or(0).saturating_mul(SECOND_NS)
}

/// Moves the ends of leases that would end in the same second apart, as etcd's lessor does when it is promoted.
///
/// `leases` are remaining time, id and whole time, ascending; remaining times are changed in place. A window of one
/// second begins at the first lease's end. What comes beyond the number that may end in it is pushed back by a second
/// for every such number, counted from the window's beginning, and the window grows to hold it.
fn spread(leases: &mut [(u64, LeaseId, u64)], extend_ns: u64) {
    let mut window_ns = leases[0].0;
    let mut window_ends_ns = window_ns.saturating_add(SECOND_NS);
    let mut ends = 0u64;
    for (remaining_ns, _, whole_ns) in leases {
        if *remaining_ns > window_ends_ns {
            window_ns = *remaining_ns;
            window_ends_ns = window_ns.saturating_add(SECOND_NS);
            ends = 1;
            continue;
        }
        ends += 1;
        if ends <= SPREAD_ENDS_PER_SECOND {
            continue;
        }
        // In whole numbers, so that every leader comes to the same: a second for each SPREAD_ENDS_PER_SECOND.
        let rate_delay_ns =
            u128::from(ends) * u128::from(SECOND_NS) / u128::from(SPREAD_ENDS_PER_SECOND);
        let rate_delay_ns = u64::try_from(rate_delay_ns).unwrap_or(u64::MAX);
        let delay_ns = rate_delay_ns.saturating_sub(*remaining_ns - window_ns);
        window_ends_ns = window_ns.saturating_add(delay_ns);
        *remaining_ns = whole_ns.saturating_add(delay_ns).saturating_add(extend_ns);
    }
}

#[cfg(test)]
mod tests;
