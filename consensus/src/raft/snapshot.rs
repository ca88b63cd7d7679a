//! Snapshots between members, and trimming the log behind them.
//!
//! The state machine's data travels outside the core. A leader asks its driver to send it; the
//! receiver's core hears of it when the data has arrived, and decides. Installing is a write like
//! any other: the acknowledgement leaves after it.
//!
//! Always true: what is trimmed is applied, and in a durable checkpoint of the state machine.

use super::Raft;
use super::replication::INDEX_MAX;
use crate::ignored::Ignored;
use crate::message::SnapshotMeta;
use crate::ready::SnapshotRequest;
use crate::status::{ProgressState, Role};
use crate::types::{LogIndex, LogPosition, MemberId};

impl Raft {
    /// The log no longer holds what the follower needs.
    pub(super) fn want_snapshot(&mut self, slot: usize) {
        let at_least = self.log.base().index;
        let p = &mut self.progress[slot];
        // Not for a member that is not there: the data would be old before it comes back.
        if !p.is_active {
            return;
        }
        p.become_snapshot();
        let to = p.id;
        self.snapshots.push(SnapshotRequest { to, at_least });
        self.snapshots_open.push(to);
    }

    /// The answer to a [`SnapshotRequest`]: all data through `index` reached `to` and was taken
    /// there (`Some`), or it failed. Asserts that there was such a request, not yet answered.
    pub fn on_snapshot_sent(&mut self, to: MemberId, index: Option<LogIndex>) {
        let open = self.snapshots_open.iter().position(|open| *open == to);
        let open = open.unwrap_or_else(|| panic!("no snapshot for {to:?} is open"));
        self.snapshots_open.swap_remove(open);
        let Some(p) = self.progress_mut(to) else {
            return;
        };
        if p.state != ProgressState::Snapshot {
            // Its acknowledgement was faster than the report.
            return;
        }
        p.become_probe(p.matched.max(index.unwrap_or_default()).next());
        // Not before the follower speaks: it is busy installing, or something is wrong.
        p.is_paused = true;
    }

    /// What describes a snapshot of the state machine at `index`, where it must stand or have
    /// stood; `None` when the membership of that point is not known any more, or the log no longer
    /// reaches there.
    pub fn snapshot_meta(&self, index: LogIndex) -> Option<SnapshotMeta> {
        if index < self.membership_index || index > self.log.applied() {
            return None;
        }
        let last = LogPosition::new(index, self.log.term_at(index)?);
        Some(SnapshotMeta {
            last,
            membership: self.membership.clone(),
        })
    }

    /// Whether a snapshot offered by a leader is worth receiving; `step` of
    /// [`crate::Body::Snapshot`] decides.
    pub fn wants_snapshot(&self, snapshot: &SnapshotMeta) -> bool {
        (snapshot.last.index > self.log.commit() || is_sabotaged!(self.config, OldSnapshotTaken))
            && snapshot.membership.contains(self.config.id)
            && (!self.log.matches(snapshot.last) || is_sabotaged!(self.config, OldSnapshotTaken))
    }

    pub(super) fn on_snapshot(&mut self, from: MemberId, snapshot: SnapshotMeta) {
        let last = snapshot.last;
        let is_possible = last.term <= self.term && last.index < INDEX_MAX;
        if !is_possible || !snapshot.membership.is_well_formed() {
            return self.ignored.count(Ignored::MalformedEntries);
        }
        if !self.accept_leader(from) {
            return;
        }
        if last.index > self.log.commit() && self.log.matches(last) {
            // Everything is here already, only not known to be committed.
            self.log.commit_to(last.index);
        } else if self.wants_snapshot(&snapshot) {
            self.log.restore(last);
            self.writes.cut(LogIndex::ZERO);
            self.truncates = false;
            self.membership_index = last.index;
            self.checkpoint = self.checkpoint.max(last.index);
            self.membership = snapshot.membership.clone();
            self.install = Some(snapshot);
        } else {
            self.ignored.count(Ignored::OldSnapshot);
        }
        self.acknowledge(from, self.log.commit());
    }

    /// A snapshot was taken and is not durable yet.
    pub(super) fn is_installing(&self) -> bool {
        self.install.is_some() || self.writes.is_installing()
    }

    /// The state machine's state through `index` is durable: the log before it is not needed after
    /// a crash.
    pub fn on_checkpoint(&mut self, index: LogIndex) {
        // A checkpoint from before an installed snapshot may be reported late.
        assert!(
            index <= self.log.applied().max(self.checkpoint),
            "checkpoint {index:?} is past applied {:?}",
            self.log.applied()
        );
        self.checkpoint = self.checkpoint.max(index);
    }

    /// Trims the log when enough of it lies behind the checkpoint: all but a tail for followers
    /// that are a little late, and more of it when an active follower needs it, within a bound.
    pub(super) fn maybe_trim(&mut self) -> Option<LogPosition> {
        let config = &self.config;
        let checkpoint = self
            .checkpoint
            .min(self.log.durable())
            .min(self.log.applied());
        let base = self.log.base().index;
        if checkpoint.since(base) < config.trim_every_entries.max(1) {
            return None;
        }
        let mut through = checkpoint.0 - config.trim_keep_entries.min(checkpoint.0);
        if self.role == Role::Leader {
            let needed = self
                .progress
                .iter()
                .filter(|p| p.is_active)
                .map(|p| p.matched.0)
                .min();
            let hold = checkpoint.0.saturating_sub(config.trim_hold_entries_max);
            through = through.min(needed.unwrap_or(through).max(hold));
        }
        // Held back: wait until it is worth the while again.
        let step = (config.trim_every_entries - config.trim_keep_entries)
            .div_ceil(8)
            .max(1);
        (through >= base.0 + step).then(|| self.log.trim_through(LogIndex(through)))
    }
}
