//! The disk as a peer: which writes are under way, and what each will have made durable.
//!
//! Invariants
//! - Numbers ascend without gap; a write reported durable makes all before it durable.
//! - `Pending::last` never exceeds what the write still stands for: truncating the log lowers it.
//!   So the late completion of an overwritten entry cannot count for the entry that replaced it.
//!
//! Called by the machine's other modules. Knows nothing of roles.

use std::collections::VecDeque;

use crate::ready::WriteNumber;
use crate::types::LogIndex;

#[derive(Clone, Debug, Default)]
pub(crate) struct Writes {
    emitted: WriteNumber,
    synced: WriteNumber,
    /// As long as the driver lets writes pile up; one element for each `Ready` with a write.
    pending: VecDeque<Pending>,
    /// Term or vote changed since the last write was handed out.
    is_state_dirty: bool,
    /// The write that carries the present term and vote.
    state_write: WriteNumber,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    number: WriteNumber,
    /// The log through here is durable when this write is.
    last: LogIndex,
    /// When it was handed out.
    tick: u64,
    /// The write installs a snapshot that ends here.
    install: Option<LogIndex>,
}

/// What became durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Synced {
    pub(crate) last: LogIndex,
    pub(crate) installed: Option<LogIndex>,
}

impl Writes {
    /// The number the next write will have.
    fn next(&self) -> WriteNumber {
        WriteNumber(self.emitted.0 + 1)
    }

    /// Term or vote changed.
    pub(crate) fn mark_state(&mut self) {
        self.is_state_dirty = true;
    }

    pub(crate) fn is_state_dirty(&self) -> bool {
        self.is_state_dirty
    }

    pub(crate) fn is_state_durable(&self) -> bool {
        !self.is_state_dirty && self.state_write <= self.synced
    }

    /// The write after which the present term and vote may be spoken of.
    pub(crate) fn after_state(&self) -> WriteNumber {
        if self.is_state_dirty {
            self.next()
        } else if self.state_write > self.synced {
            self.state_write
        } else {
            WriteNumber::NONE
        }
    }

    /// The write after which the entries through `index` are durable (and the state is, too).
    /// `truncates`: the next write replaces entries, so it holds one entry and the rest follows in
    /// the one after (`Raft::hand_out_write`).
    pub(crate) fn after_entries(
        &self,
        index: LogIndex,
        handed: LogIndex,
        durable: LogIndex,
        truncates: bool,
    ) -> WriteNumber {
        let entries = if index <= durable {
            WriteNumber::NONE
        } else if index > handed.next() && truncates {
            WriteNumber(self.next().0 + 1)
        } else if index > handed {
            self.next()
        } else {
            // Handed out, not durable: some write under way holds it. An install counts for its
            // whole prefix.
            let holder = self.pending.iter().find(|write| write.last >= index);
            holder.map_or(self.next(), |write| write.number)
        };
        entries.max(self.after_state())
    }

    /// A write is handed out: `last` is where the log ends in it.
    pub(crate) fn emit(
        &mut self,
        last: LogIndex,
        tick: u64,
        install: Option<LogIndex>,
    ) -> WriteNumber {
        self.emitted = self.next();
        if self.is_state_dirty {
            self.is_state_dirty = false;
            self.state_write = self.emitted;
        }
        self.pending.push_back(Pending {
            number: self.emitted,
            last,
            tick,
            install,
        });
        self.emitted
    }

    /// The log was cut: nothing above `last` is covered by the writes under way.
    pub(crate) fn cut(&mut self, last: LogIndex) {
        for write in &mut self.pending {
            write.last = write.last.min(last);
        }
    }

    /// All through `through` is durable.
    pub(crate) fn complete(&mut self, through: WriteNumber) -> Synced {
        assert!(
            through <= self.emitted,
            "{through:?} was never handed out, the last is {:?}",
            self.emitted
        );
        assert!(
            through > self.synced,
            "{through:?} was reported durable before, the last was {:?}",
            self.synced
        );
        self.synced = through;
        let mut synced = Synced {
            last: LogIndex::ZERO,
            installed: None,
        };
        while let Some(write) = self.pending.front().filter(|write| write.number <= through) {
            synced.last = synced.last.max(write.last);
            synced.installed = write.install.or(synced.installed);
            self.pending.pop_front();
        }
        synced
    }

    /// For how many ticks the oldest write has been under way.
    pub(crate) fn oldest_age(&self, now: u64) -> u64 {
        self.pending.front().map_or(0, |write| now - write.tick)
    }

    /// Whether an install is under way.
    pub(crate) fn is_installing(&self) -> bool {
        self.pending.iter().any(|write| write.install.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_completion_does_not_count_for_what_replaced_it() {
        let mut writes = Writes::default();
        let first = writes.emit(LogIndex(10), 0, None);
        // 8.. is truncated and written anew while the first write is still under way.
        writes.cut(LogIndex(7));
        assert_eq!(
            writes.after_entries(LogIndex(8), LogIndex(7), LogIndex::ZERO, true),
            WriteNumber(2)
        );
        assert_eq!(
            writes.after_entries(LogIndex(9), LogIndex(7), LogIndex::ZERO, true),
            WriteNumber(3)
        );
        let second = writes.emit(LogIndex(9), 0, None);
        assert_eq!(
            writes.after_entries(LogIndex(9), LogIndex(9), LogIndex::ZERO, false),
            second
        );
        assert_eq!(writes.complete(first).last, LogIndex(7));
        assert_eq!(writes.complete(second).last, LogIndex(9));
    }

    #[test]
    fn state_is_spoken_of_after_its_write() {
        let mut writes = Writes::default();
        assert_eq!(writes.after_state(), WriteNumber::NONE);
        writes.mark_state();
        assert_eq!(writes.after_state(), WriteNumber(1));
        let number = writes.emit(LogIndex::ZERO, 0, None);
        assert!(!writes.is_state_durable());
        assert_eq!(writes.after_state(), number);
        writes.emit(LogIndex(1), 3, None);
        assert_eq!(
            writes.after_entries(LogIndex(1), LogIndex(1), LogIndex::ZERO, false),
            WriteNumber(2)
        );
        assert_eq!(writes.oldest_age(4), 4);
        writes.complete(number);
        assert!(writes.is_state_durable());
        assert_eq!(writes.oldest_age(4), 1);
    }
}
