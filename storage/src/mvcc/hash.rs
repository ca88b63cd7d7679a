//! HashKV: one number that members compare to see whether they hold the same history.
//!
//! CRC-32C over the bucket name and every stored revision that counts, in revision order (semantics sheet, 13).
//! What counts depends on the compact revision at the start, so a member that has already deleted what
//! another has only scheduled for deletion gets the same number. One exception comes from etcd and is kept: if no
//! key lives at the hashed revision nothing is skipped, so that hash depends on how far deletions have come.
//!
//! Always true: the job is pinned, or it ends with `Compacted` when a compaction passes it.
//! Any core, in slices. Remembers no earlier hashes.

use std::ops::ControlFlow;

use super::index::IndexView;
use super::key_value::KeyValue;
use super::pins::Pin;
use super::read::{ReadError, ReadView, Reader};
use super::revision::Revision;
use super::scan::Progress;
use super::state::damaged;
use super::tree_seam::{Bucket, TreeSnapshot};

pub struct HashJob {
    at: i64,
    compact_revision: i64,
    /// Whether any key lives at `at`; without one nothing is skipped as compacted.
    has_kept: bool,
    /// Revisions up to this one are done.
    after: Option<Revision>,
    crc: u32,
    is_done: bool,
    pin: Option<Pin>,
}

impl HashJob {
    /// `at` <= 0 hashes up to the newest revision.
    pub fn new<T: TreeSnapshot>(reader: &Reader<T>, at: i64) -> Result<Self, ReadError> {
        let view = reader.view();
        let at = view.resolve(at)?;
        let pin = reader.pin(view.compact_revision);
        // If the claim came too late, what is deleted now may belong into this hash.
        let compact_revision = reader.compact_revision();
        let pin = pin.filter(|_| compact_revision == view.compact_revision);
        let has_kept = view.index().cursor(b"").any(|record| {
            let newest = record.newest_at(at);
            newest.is_some_and(|found| !found.is_tombstone)
        });
        Ok(Self {
            at,
            compact_revision: view.compact_revision,
            has_kept,
            after: None,
            crc: crc32c::crc32c(Bucket::Key.name().as_bytes()),
            is_done: false,
            pin,
        })
    }

    /// The revision that was really hashed to.
    pub fn at(&self) -> i64 {
        self.at
    }

    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// Final after `Progress::Done`.
    pub fn hash(&self) -> u32 {
        self.crc
    }

    /// Hashes about `budget` stored revisions.
    pub fn step<T: TreeSnapshot>(
        &mut self,
        reader: &Reader<T>,
        budget: usize,
    ) -> Result<Progress, ReadError> {
        if self.is_done {
            return Ok(Progress::Done);
        }
        let view = reader.view();
        if self.pin.is_none() && view.compact_revision != self.compact_revision {
            return Err(ReadError::Compacted {
                compact_revision: view.compact_revision,
            });
        }
        if self.hash_slice(&view, budget.max(1)).is_break() {
            return Ok(Progress::More);
        }
        self.is_done = true;
        self.pin = None;
        Ok(Progress::Done)
    }

    /// Breaks when the budget is used up.
    fn hash_slice<T: TreeSnapshot>(
        &mut self,
        view: &ReadView<T>,
        mut budget: usize,
    ) -> ControlFlow<()> {
        let index = view.index();
        let state = view.state();
        let mut flow = ControlFlow::Continue(());
        let from = self.after.map(|after| after.put_key());
        let from = from.as_ref().map_or(&b""[..], |key| key);
        let scanned = state.tree.scan(Bucket::Key, from, &mut |key, value| {
            let Some((revision, is_tombstone)) = Revision::parse(key) else {
                return ControlFlow::Continue(());
            };
            if Some(revision) <= self.after {
                return ControlFlow::Continue(());
            }
            if revision.main > self.at {
                return ControlFlow::Break(());
            }
            flow = self.take(index, &mut budget, revision, is_tombstone, value);
            flow
        });
        scanned.unwrap_or_else(|damage| damaged(&damage));
        flow?;
        for buffer in state.frozen.iter().chain([&state.live]) {
            for record in buffer.records(self.after) {
                if record.revision.main > self.at {
                    return ControlFlow::Continue(());
                }
                self.take(
                    index,
                    &mut budget,
                    record.revision,
                    record.is_tombstone,
                    record.bytes,
                )?;
            }
        }
        ControlFlow::Continue(())
    }

    fn take(
        &mut self,
        index: IndexView<'_>,
        budget: &mut usize,
        revision: Revision,
        is_tombstone: bool,
        value: &[u8],
    ) -> ControlFlow<()> {
        if *budget == 0 {
            return ControlFlow::Break(());
        }
        *budget -= 1;
        self.after = Some(revision);
        if self.counts(index, revision, is_tombstone, value) {
            self.crc = crc32c::crc32c_append(self.crc, revision.key(is_tombstone).as_bytes());
            self.crc = crc32c::crc32c_append(self.crc, value);
        }
        ControlFlow::Continue(())
    }

    fn counts(
        &self,
        index: IndexView<'_>,
        revision: Revision,
        is_tombstone: bool,
        value: &[u8],
    ) -> bool {
        if revision.main > self.compact_revision {
            return true;
        }
        if is_tombstone && revision.main == self.compact_revision {
            return false;
        }
        if !self.has_kept {
            return true;
        }
        let kept = KeyValue::parse(value)
            .and_then(|record| index.record(record.key))
            .and_then(|record| record.newest_at(self.at)?.live());
        kept.is_some_and(|meta| meta.mod_revision == revision)
    }
}
