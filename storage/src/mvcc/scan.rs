//! Ranges in bounded slices at one fixed revision.
//!
//! Invariants
//! - Between slices nothing is held but the place to go on and a pin on the revision, so a slow scan holds back
//!   compaction's deletions below its revision and nothing else.
//! - Items come in key order, each once; `count` is the interval's whole count however it is sliced.
//!
//! Any core. Sorting, filters and limits on sorted results are the caller's.

use std::ops::ControlFlow;

use super::pins::Pin;
use super::range::KeyRange;
use super::read::{Item, ReadError, ReadView, Reader};
use super::tree_seam::TreeSnapshot;

/// What a scan does with the live keys of its interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanMode {
    /// Yields up to `limit` items (0 = all) and counts the rest of the interval.
    Items { limit: usize },
    /// Counts only.
    Count,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    More,
    Done,
}

pub struct Scan {
    key: Vec<u8>,
    end: Vec<u8>,
    /// Keys below are done.
    position: Vec<u8>,
    at: i64,
    revision: i64,
    /// Items still to be yielded; `None` counts.
    items_left: Option<usize>,
    yielded: usize,
    count: usize,
    is_done: bool,
    pin: Option<Pin>,
}

impl Scan {
    /// `at` <= 0 fixes the newest revision now. The scan is pinned if a pin slot is free: a compaction accepted
    /// later does not disturb it. Without a pin a later slice can answer `Compacted`.
    pub fn new<T: TreeSnapshot>(
        reader: &Reader<T>,
        range: KeyRange<'_>,
        at: i64,
        mode: ScanMode,
    ) -> Result<Self, ReadError> {
        loop {
            let view = reader.view();
            let mut scan = Self::unpinned(&view, range, at, mode)?;
            scan.pin = reader.pin(scan.at);
            // The claim may have come too late to hold a compaction back; ask again now that it stands.
            let compact_revision = reader.compact_revision();
            if compact_revision <= scan.at {
                return Ok(scan);
            }
            if at > 0 {
                return Err(ReadError::Compacted { compact_revision });
            }
            // Who asks for the newest gets what is the newest by now.
        }
    }

    /// Without a pin: for scans that a compaction may end (a range stream's chunks).
    pub fn unpinned<T: TreeSnapshot>(
        view: &ReadView<T>,
        range: KeyRange<'_>,
        at: i64,
        mode: ScanMode,
    ) -> Result<Self, ReadError> {
        Ok(Self {
            key: range.key.to_vec(),
            end: range.end.to_vec(),
            position: range.key.to_vec(),
            at: view.resolve(at)?,
            revision: view.revision,
            items_left: match mode {
                ScanMode::Items { limit: 0 } => Some(usize::MAX),
                ScanMode::Items { limit } => Some(limit),
                ScanMode::Count => None,
            },
            yielded: 0,
            count: 0,
            is_done: false,
            pin: None,
        })
    }

    /// The fixed revision.
    pub fn at(&self) -> i64 {
        self.at
    }

    /// Store revision when the scan started (for the answer's header).
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Works off about `budget` keys. `visit` may break to end the slice early; that item counts as taken.
    pub fn step<T: TreeSnapshot>(
        &mut self,
        reader: &Reader<T>,
        budget: usize,
        visit: &mut dyn FnMut(&Item<'_>) -> ControlFlow<()>,
    ) -> Result<Progress, ReadError> {
        if self.is_done {
            return Ok(Progress::Done);
        }
        let view = reader.view();
        if self.pin.is_none() {
            view.check_not_compacted(self.at)?;
        }
        let budget = budget.max(1);
        let slice = match self.items_left {
            Some(left) => self.yield_items(&view, left, budget, visit),
            None => self.count_keys(&view, budget),
        };
        if slice == Progress::Done {
            self.is_done = true;
            self.pin = None;
        }
        Ok(slice)
    }

    /// Live keys of the whole interval; final after `Progress::Done`.
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn yielded(&self) -> usize {
        self.yielded
    }

    /// Whether the limit left live keys out; final after `Progress::Done`.
    pub fn has_more(&self) -> bool {
        self.items_left.is_none() && 0 < self.yielded && self.yielded < self.count
    }

    fn yield_items<T: TreeSnapshot>(
        &mut self,
        view: &ReadView<T>,
        left: usize,
        budget: usize,
        visit: &mut dyn FnMut(&Item<'_>) -> ControlFlow<()>,
    ) -> Progress {
        let range = KeyRange::new(&self.key, &self.end);
        let mut taken = 0;
        let mut last = None;
        let mut is_end = true;
        for (visited, record) in view.index().cursor(&self.position).enumerate() {
            if !range.is_below_end(record.key()) {
                break;
            }
            if visited == budget {
                is_end = false;
                break;
            }
            last = Some(record);
            let Some(meta) = record.newest_at(self.at).and_then(|found| found.live()) else {
                continue;
            };
            taken += 1;
            let flow = visit(&view.item(record.key(), meta));
            if taken == left || flow.is_break() {
                is_end = range.is_single();
                break;
            }
        }
        self.yielded += taken;
        self.count += taken;
        if is_end {
            return Progress::Done;
        }
        if let Some(last) = last {
            // The successor of the last key.
            self.position.clear();
            self.position.extend_from_slice(last.key());
            self.position.push(0);
        }
        self.items_left = (taken < left).then(|| left - taken);
        Progress::More
    }

    fn count_keys<T: TreeSnapshot>(&mut self, view: &ReadView<T>, budget: usize) -> Progress {
        let range = KeyRange::new(&self.key, &self.end);
        let slice = view.index().count(range, &self.position, self.at, budget);
        self.count += slice.count;
        match slice.resume {
            Some(record) => {
                self.position.clear();
                self.position.extend_from_slice(record.key());
                Progress::More
            }
            None => Progress::Done,
        }
    }
}
