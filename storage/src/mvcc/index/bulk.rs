//! Builds the index at open from all stored revisions at once.
//!
//! Always true: revisions are pushed in revision order; those of one key then stay in that order.
//! Called once, before the store is shared. Does not read the file.

use std::thread;

use super::node::{self, NodePtr, NodeRef, Slot, discriminator};
use super::record::{self, Found, RecordPtr, RecordRef};
use super::writer::{IndexWriter, slot_of};
use crate::mvcc::key_value::KeyMeta;
use crate::mvcc::revision::Revision;

/// Fill of the built nodes: room for a few new keys before the first split.
const BUILT_RECORDS: usize = 60;
const PART_REVISIONS: usize = 1 << 14;
/// Bounds recursion; keys in use need a handful.
const REFINE_LEVELS_MAX: usize = 32;
/// Fewer revisions are not worth a thread.
const REVISIONS_PER_THREAD_MIN: usize = 50_000;

#[derive(Clone, Copy)]
pub(in crate::mvcc) struct LoadedRevision<'a> {
    pub(in crate::mvcc) key: &'a [u8],
    pub(in crate::mvcc) revision: Revision,
    pub(in crate::mvcc) is_tombstone: bool,
    pub(in crate::mvcc) create_revision: i64,
    pub(in crate::mvcc) version: i64,
    pub(in crate::mvcc) lease: i64,
}

/// What the loader knows at the end, beside the index.
pub(in crate::mvcc) struct Loaded {
    pub(in crate::mvcc) index: IndexWriter,
    pub(in crate::mvcc) keys: usize,
    /// Attachments of living keys, in key order.
    pub(in crate::mvcc) lease_keys: Vec<(Box<[u8]>, i64)>,
}

pub(in crate::mvcc) struct Loader<'a> {
    /// Parts of `PART_REVISIONS`, all full but the last: a list that grows without being copied.
    parts: Vec<Vec<LoadedRevision<'a>>>,
    /// Bytes that all keys begin with.
    shared_bytes: usize,
}

/// A revision's place in key order: 8 bytes of the key behind what all keys share, then its place in the list.
type Place = (u64, usize);

impl<'a> Loader<'a> {
    pub(in crate::mvcc) fn new() -> Self {
        Self {
            parts: Vec::new(),
            shared_bytes: usize::MAX,
        }
    }

    pub(in crate::mvcc) fn push(&mut self, revision: LoadedRevision<'a>) {
        let first = self.parts.first().map_or(revision.key, |part| part[0].key);
        let limit = self.shared_bytes.min(revision.key.len()).min(first.len());
        if first[..limit] == revision.key[..limit] {
            self.shared_bytes = limit;
        } else {
            self.shared_bytes = first
                .iter()
                .zip(revision.key)
                .take_while(|(a, b)| a == b)
                .count();
        }
        match self.parts.last_mut() {
            Some(part) if part.len() < PART_REVISIONS => part.push(revision),
            _ => {
                let mut part = Vec::with_capacity(PART_REVISIONS);
                part.push(revision);
                self.parts.push(part);
            }
        }
    }

    fn get(&self, position: usize) -> &LoadedRevision<'a> {
        &self.parts[position / PART_REVISIONS][position % PART_REVISIONS]
    }

    pub(in crate::mvcc) fn len(&self) -> usize {
        let full = self.parts.len().saturating_sub(1) * PART_REVISIONS;
        full + self.parts.last().map_or(0, Vec::len)
    }

    pub(in crate::mvcc) fn finish(self, threads_max: usize) -> Loaded {
        let parts = (self.len() / REVISIONS_PER_THREAD_MIN).clamp(1, threads_max.max(1));
        let mut places = self.roughly_sorted_places(parts);
        let mut built = Built::default();
        thread::scope(|scope| {
            let this = &self;
            let mut handles = Vec::new();
            let mut rest = &mut places[..];
            for part in (1..parts).rev() {
                let cut = cut_between_runs(rest, rest.len() * part / (part + 1));
                let (head, tail) = rest.split_at_mut(cut);
                handles.push(scope.spawn(move || this.leaves(tail)));
                rest = head;
            }
            built = this.leaves(rest);
            for handle in handles.into_iter().rev() {
                let part = handle.join().expect("a panic stops the process");
                built.keys += part.keys;
                built.leaves.extend(part.leaves);
                built.lease_keys.extend(part.lease_keys);
            }
        });
        Loaded {
            index: IndexWriter::new(root_over(built.leaves)),
            keys: built.keys,
            lease_keys: built.lease_keys,
        }
    }

    /// All places, sorted by the first 8 bytes behind what all keys share.
    fn roughly_sorted_places(&self, parts: usize) -> Vec<Place> {
        let mut places: Vec<Place> = (0..self.len())
            .map(|at| (discriminator(self.get(at).key, self.shared_bytes), at))
            .collect();
        // One thread per part; the sort that follows finds the sorted runs and only merges them.
        if parts > 1 {
            let part_len = places.len().div_ceil(parts);
            thread::scope(|scope| {
                for part in places.chunks_mut(part_len) {
                    scope.spawn(move || part.sort_unstable());
                }
            });
        }
        places.sort();
        places
    }

    /// Finishes the order where discriminators are equal, by discriminators further behind: a comparison that
    /// has to look at both keys costs two cache misses, so each level looks at each key once.
    fn refine(&self, places: &mut [Place], behind: usize, levels_left: usize) {
        for run in places.chunk_by_mut(|a, b| a.0 == b.0) {
            let first = self.get(run[0].1).key;
            let shared = run[1..].iter().fold(usize::MAX, |shared, place| {
                let key = self.get(place.1).key;
                if key == first {
                    return shared;
                }
                let differ = first.iter().zip(key).position(|(a, b)| a != b);
                shared.min(differ.unwrap_or(first.len().min(key.len())))
            });
            if shared == usize::MAX {
                // One key; its revisions are in order.
                continue;
            }
            if shared < behind + 8 || levels_left == 0 {
                // Keys that differ in trailing zeros only, or in a way that was made to cost recursion.
                run.sort_unstable_by(|a, b| {
                    let keys = self.get(a.1).key.cmp(self.get(b.1).key);
                    keys.then(a.1.cmp(&b.1))
                });
                continue;
            }
            for place in &mut *run {
                place.0 = discriminator(self.get(place.1).key, shared);
            }
            run.sort_unstable();
            self.refine(run, shared, levels_left - 1);
        }
    }

    fn is_same_key(&self, a: Place, b: Place) -> bool {
        a.0 == b.0 && self.get(a.1).key == self.get(b.1).key
    }

    fn leaves(&self, places: &mut [Place]) -> Built {
        self.refine(places, self.shared_bytes, REFINE_LEVELS_MAX);
        let mut built = Built::default();
        let mut slots = Vec::with_capacity(BUILT_RECORDS);
        let (mut live, mut changed) = (0, -1);
        for group in places.chunk_by(|&a, &b| self.is_same_key(a, b)) {
            let (record, newest) = self.record(group);
            let meta = newest.meta;
            if newest.is_tombstone {
                changed = changed.max(meta.mod_revision.main);
            } else {
                live += 1;
                changed = changed.max(meta.create_revision);
                let last = self.get(group[group.len() - 1].1);
                if last.lease != 0 {
                    built.lease_keys.push((last.key.into(), last.lease));
                }
            }
            built.keys += 1;
            slots.push(Slot {
                record,
                child: None,
            });
            if slots.len() == BUILT_RECORDS {
                built.push_leaf(&slots, live, changed);
                slots.clear();
                (live, changed) = (0, -1);
            }
        }
        if !slots.is_empty() {
            built.push_leaf(&slots, live, changed);
        }
        built
    }

    fn record(&self, group: &[Place]) -> (RecordPtr, Found) {
        let first = self.get(group[0].1);
        let found = Found {
            meta: KeyMeta {
                create_revision: first.create_revision,
                mod_revision: first.revision,
                version: first.version,
            },
            is_tombstone: first.is_tombstone,
        };
        let ptr = record::allocate(first.key, found);
        // SAFETY: owned here until the leaf holds it.
        let record = unsafe { RecordRef::new(ptr) };
        for place in &group[1..] {
            let next = self.get(place.1);
            // SAFETY: nobody else knows the record; revisions were pushed in order.
            unsafe { record.append(next.revision, next.is_tombstone, -1) };
        }
        (ptr, record.newest())
    }
}

/// The first position at or behind `wanted` that does not divide a run of equal discriminators.
fn cut_between_runs(places: &[Place], wanted: usize) -> usize {
    let mut cut = wanted;
    while 0 < cut && cut < places.len() && places[cut - 1].0 == places[cut].0 {
        cut += 1;
    }
    cut
}

#[derive(Default)]
struct Built {
    leaves: Vec<Slot>,
    keys: usize,
    lease_keys: Vec<(Box<[u8]>, i64)>,
}

// SAFETY: the slots lead to memory that moves to the receiving thread with them.
unsafe impl Send for Built {}

impl Built {
    fn push_leaf(&mut self, slots: &[Slot], live: u64, changed: i64) {
        // SAFETY: records just allocated.
        let leaf = unsafe { node::build(0, slots, live, changed) };
        self.leaves.push(slot_of(leaf));
    }
}

fn root_over(mut slots: Vec<Slot>) -> NodePtr {
    let mut level = 0;
    while slots.len() > 1 {
        level += 1;
        slots = slots
            .chunks(BUILT_RECORDS)
            .map(|slots| {
                let (mut live, mut changed) = (0, -1);
                for slot in slots {
                    let child = slot.child.expect("built levels have children");
                    // SAFETY: just built.
                    let child = unsafe { NodeRef::new(child) };
                    live += child.live();
                    changed = changed.max(child.changed());
                }
                // SAFETY: children just built.
                slot_of(unsafe { node::build(level, slots, live, changed) })
            })
            .collect();
    }
    match slots.first() {
        Some(slot) => slot.child.expect("built levels have children"),
        // SAFETY: no slots.
        None => unsafe { node::build(0, &[], 0, -1) },
    }
}
