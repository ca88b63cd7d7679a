//! A trivial model of the log, and a log driven beside it.
//!
//! What is always true here
//! - The model keeps what the log should say after each record; a recovered log must equal one of
//!   those states, no older than the newest acknowledged one.
//! - No thread, clock or chance: chores run when the test says.
//!
//! Shared by the log's tests. Does not check timing or placement.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use storage::device::Directory;
use storage::wal::{
    self, Evidence, HardState, Helper, Log, LogError, LogIndex, MarkKind, OpenError, Options,
    Recovered, SnapshotMark, Term, Vote,
};

pub const LOG_ID: u64 = 0x0123_4567_89ab_cdef;
pub const METADATA: &[u8] = b"member 7 of cluster 9";

pub fn options() -> Options {
    Options {
        segment_bytes: 160 << 10,
        group_bytes: 8 << 10,
        buffers: 2,
        entry_bytes_max: 20 << 10,
        pending_bytes_max: 256 << 10,
        spares_max: 2,
        helper: Helper::Caller,
    }
}

/// One thing to append.
#[derive(Clone, Debug)]
pub enum Append {
    /// `back` entries before the end are replaced, as far as commit and mark allow.
    Entry {
        back: u64,
        bytes: usize,
    },
    HardState,
    Compact {
        keep: u64,
    },
    Install {
        ahead: u64,
    },
}

/// What the log should say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub entries: BTreeMap<u64, (u64, Bytes)>,
    pub last: u64,
    pub last_term: u64,
    pub hard_state: HardState,
    pub mark: Option<(u64, u64)>,
    /// Makes every payload different.
    counter: u64,
}

impl Model {
    fn covered(&self) -> u64 {
        self.mark.map_or(0, |(index, _)| index)
    }

    /// Whether what was recovered is this state.
    pub fn matches(&self, recovered: &Recovered) -> Result<(), String> {
        let got = (recovered.last_index.0, recovered.last_term.0);
        if got != (self.last, self.last_term) {
            return Err(format!(
                "ends at {got:?}, not {:?}",
                (self.last, self.last_term)
            ));
        }
        if recovered.hard_state != self.hard_state {
            return Err(format!(
                "{:?}, not {:?}",
                recovered.hard_state, self.hard_state
            ));
        }
        let mark = recovered
            .mark
            .as_ref()
            .map(|mark| (mark.index.0, mark.term.0));
        if mark != self.mark {
            return Err(format!("mark {mark:?}, not {:?}", self.mark));
        }
        let mut next = recovered
            .entries
            .first()
            .map_or(self.last + 1, |entry| entry.index.0);
        if self.covered() + 1 < next {
            return Err(format!("begins with {next}, covered is {}", self.covered()));
        }
        for entry in &recovered.entries {
            if entry.index.0 != next {
                return Err(format!("entry {} where {next} belongs", entry.index));
            }
            if !entry.payload.as_ptr().addr().is_multiple_of(16) {
                return Err(format!("entry {next} is not aligned"));
            }
            let wanted = self.entries.get(&next);
            if wanted != Some(&(entry.term.0, entry.payload.clone())) {
                return Err(format!("entry {next} has other content"));
            }
            next += 1;
        }
        if next != self.last + 1 {
            return Err(format!("stops before {next}, the end is {}", self.last));
        }
        Ok(())
    }
}

/// A log and its model.
pub struct Pair {
    pub log: Log,
    /// States by position; the first is what was recovered.
    pub states: Vec<Model>,
    pub synced: usize,
    now: u64,
}

pub fn create(directory: &dyn Directory) -> Result<(), OpenError> {
    wal::create(directory, &options(), METADATA, LOG_ID)
}

impl Pair {
    pub fn open(
        directory: Arc<dyn Directory>,
        candidates: &[Model],
    ) -> Result<(Pair, Recovered), OpenError> {
        Pair::open_with(directory, candidates, &options())
    }

    /// Opens and checks that one of `candidates` is what was recovered; the newest that fits wins.
    pub fn open_with(
        directory: Arc<dyn Directory>,
        candidates: &[Model],
        options: &Options,
    ) -> Result<(Pair, Recovered), OpenError> {
        let (log, recovered) = wal::open(directory, options, Evidence::default())?;
        assert_eq!(recovered.metadata, METADATA);
        let fits = candidates
            .iter()
            .rev()
            .find(|model| model.matches(&recovered).is_ok());
        let Some(model) = fits else {
            let why: Vec<_> = candidates
                .iter()
                .map(|model| model.matches(&recovered))
                .collect();
            panic!("recovered none of {} states: {why:#?}", candidates.len());
        };
        let pair = Pair {
            log,
            states: vec![model.clone()],
            synced: 0,
            now: 0,
        };
        Ok((pair, recovered))
    }

    pub fn last(&self) -> &Model {
        self.states.last().unwrap()
    }

    /// States a crash may leave behind.
    pub fn candidates(&self) -> &[Model] {
        &self.states[self.synced..]
    }

    pub fn append(&mut self, what: &Append) {
        let mut next = self.last().clone();
        next.counter += 1;
        let appended = match *what {
            Append::Entry { back, bytes } => {
                let floor = next.covered().max(next.hard_state.commit.0);
                let index = (next.last + 1).saturating_sub(back).max(floor + 1);
                let term = next.last_term.max(1) + u64::from(back != 0);
                let mut payload = format!("{index}/{term}/{}", next.counter).into_bytes();
                payload.resize(payload.len().max(bytes), next.counter as u8);
                next.entries.split_off(&index);
                next.entries
                    .insert(index, (term, Bytes::from(payload.clone())));
                next.last = index;
                next.last_term = term;
                self.log
                    .append_entry(Term(term), LogIndex(index), 3, &payload)
            }
            Append::HardState => {
                let commit = next.hard_state.commit.0.max(next.last.saturating_sub(2));
                next.hard_state = HardState {
                    term: Term(next.last_term),
                    vote: Vote(next.counter),
                    commit: LogIndex(commit),
                };
                self.log.append_hard_state(next.hard_state)
            }
            Append::Compact { keep } => {
                let index = next.covered().max(next.last.saturating_sub(keep));
                let term = next
                    .entries
                    .get(&index)
                    .map_or(next.last_term, |(term, _)| *term);
                next.mark = Some((index, term));
                self.log
                    .append_snapshot_mark(mark(index, term, MarkKind::Compaction))
            }
            Append::Install { ahead } => {
                let (index, term) = (next.last + ahead, next.last_term + 1);
                next.entries.clear();
                next.mark = Some((index, term));
                (next.last, next.last_term) = (index, term);
                self.log
                    .append_snapshot_mark(mark(index, term, MarkKind::Install))
            }
        };
        match appended {
            Ok(position) => {
                self.states.push(next);
                assert_eq!(position.0 as usize, self.states.len() - 1);
            }
            Err(wal::AppendError::Full { .. } | wal::AppendError::Stopped) => {}
            Err(error) => panic!("{error}"),
        }
    }

    pub fn submit(&mut self) -> Result<bool, LogError> {
        self.now += 1;
        self.log.submit(self.now)
    }

    pub fn poll(&mut self) -> Result<(), LogError> {
        self.now += 1;
        if let Some(synced) = self.log.poll(self.now)? {
            let position = synced.position.0 as usize;
            assert!(
                self.synced < position,
                "acknowledged {position} after {}",
                self.synced
            );
            let model = &self.states[position];
            assert_eq!(synced.through_index.0, model.last);
            assert_eq!(synced.through_term.0, model.last_term);
            assert_eq!(synced.hard_state, model.hard_state);
            self.synced = position;
        }
        Ok(())
    }

    /// Until nothing waits.
    pub fn sync(&mut self) -> Result<(), LogError> {
        while self.log.has_pending() || self.log.has_write_in_flight() {
            self.log.run_chores();
            self.submit()?;
            self.poll()?;
        }
        assert_eq!(
            self.synced,
            self.states.len() - 1,
            "everything is acknowledged"
        );
        Ok(())
    }

    pub fn trim(&mut self) {
        let covered = self.last().covered();
        self.log.trim(LogIndex(covered + 1));
    }
}

pub fn mark(index: u64, term: u64, kind: MarkKind) -> SnapshotMark {
    let data = Bytes::from_static(b"members 1 2 3");
    SnapshotMark {
        index: LogIndex(index),
        term: Term(term),
        kind,
        data,
    }
}
