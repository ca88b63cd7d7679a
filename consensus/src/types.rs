//! The words every part of the core speaks: terms, positions, members, entries.
//!
//! Always true: identities are types of their own, never bare integers; an entry's payload is
//! shared and never copied or looked into. Used by every module and by the driver on the log core.
//! Knows nothing of encoding.

use std::fmt;

use bytes::Bytes;

/// A leader's time of office. Zero is the time before the first election.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term(pub u64);

/// A position in the log. The first entry is 1; zero is the position before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogIndex(pub u64);

/// One server of the cluster. Zero is no member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MemberId(pub u64);

impl Term {
    pub const ZERO: Term = Term(0);

    /// The term a candidate asks votes for.
    pub const fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl LogIndex {
    pub const ZERO: LogIndex = LogIndex(0);

    pub const fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }

    /// The position before this one; the position before the log stays where it is.
    pub const fn prev(self) -> LogIndex {
        LogIndex(self.0.saturating_sub(1))
    }

    /// So many entries on. Stays at the highest index there is, so that a bound may be `u64::MAX`.
    pub const fn plus(self, entries: u64) -> LogIndex {
        LogIndex(self.0.saturating_add(entries))
    }

    /// How many entries lie in `(earlier, self]`; zero when `earlier` is not before `self`.
    pub const fn since(self, earlier: LogIndex) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl MemberId {
    pub const NONE: MemberId = MemberId(0);
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

impl fmt::Debug for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}", self.0)
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m{:x}", self.0)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// An index and the term of the entry there: names one entry for ever (paper section 5.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct LogPosition {
    pub index: LogIndex,
    pub term: Term,
}

impl LogPosition {
    pub const ZERO: LogPosition = LogPosition {
        index: LogIndex::ZERO,
        term: Term::ZERO,
    };

    pub const fn new(index: LogIndex, term: Term) -> LogPosition {
        LogPosition { index, term }
    }

    /// Whether a log that ends here holds at least as much as one that ends at `other` (paper
    /// section 5.4.1).
    pub fn is_up_to_date_with(self, other: LogPosition) -> bool {
        self.term > other.term || (self.term == other.term && self.index >= other.index)
    }
}

/// What kind of meaning an entry's payload has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EntryKind {
    /// A command of the state machine. An empty payload is the leader's own entry at the start of
    /// its term.
    Normal,
    /// A [`crate::ConfChange`] in its encoded form.
    ConfChange,
}

/// One entry of the log. Cloning shares the payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub term: Term,
    pub index: LogIndex,
    pub kind: EntryKind,
    pub payload: Bytes,
}

/// What an entry costs beyond its payload, in every byte limit of the core: an empty entry is not
/// free.
pub const ENTRY_OVERHEAD_BYTES: u64 = 64;

impl Entry {
    pub fn position(&self) -> LogPosition {
        LogPosition::new(self.index, self.term)
    }

    /// What this entry counts for in byte limits.
    pub fn cost_bytes(&self) -> u64 {
        self.payload.len() as u64 + ENTRY_OVERHEAD_BYTES
    }
}

/// What a member must remember across a restart besides its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HardState {
    pub term: Term,
    /// Whom this member voted for in `term`.
    pub vote: Option<MemberId>,
    /// A position known to be committed. May lag behind: it is written along with entries, never
    /// for its own sake.
    pub commit: LogIndex,
}
