//! The history in order: every stored change between two revisions, and a hold on what is not read yet.
//!
//! The batch buffers and the bucket `key` of the tree file are one log of changes, ordered by revision, that any core
//! may read while the writer appends to it; whoever follows the store (watchers) needs nothing else.
//!
//! Invariants
//! - Changes come in the order of their revisions, each once, a revision whole unless the visitor breaks.
//! - Of a revision that is not below the compact revision every change is there. Below it some may be gone: the
//!   caller checks, or holds.
//!
//! Any core. Does not know who asks, and filters nothing.

use std::ops::ControlFlow;

use super::pins::Pin;
use super::read::{ReadView, Reader};
use super::revision::Revision;
use super::state::damaged;
use super::tree_seam::{Bucket, TreeSnapshot};

/// One change as it is stored.
#[derive(Clone, Copy, Debug)]
pub struct StoredChange<'v> {
    pub revision: Revision,
    pub is_tombstone: bool,
    /// An encoded `mvccpb.KeyValue`; a tombstone's has the key alone.
    pub record: &'v [u8],
}

/// Keeps every change above its revision from being deleted by compactions, until dropped.
pub struct Hold {
    pin: Pin,
    revision: i64,
}

impl Hold {
    /// The revision up to which the holder has read.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// What lies up to `revision` is not needed any more. Never goes back.
    pub fn advance(&mut self, revision: i64) {
        assert!(
            self.revision <= revision,
            "hold at {} moved back to {revision}",
            self.revision
        );
        self.revision = revision;
        self.pin.move_to(revision);
    }
}

impl<T: TreeSnapshot> Reader<T> {
    /// Holds what lies above `revision`. `None` if a compaction has passed it already, or if no pin is free (see
    /// [`super::Scan`]).
    pub fn hold(&self, revision: i64) -> Option<Hold> {
        let pin = self.pin(revision)?;
        // Asked after the claim: one of the two sides sees the other.
        (self.compact_revision() <= revision).then_some(Hold { pin, revision })
    }
}

impl<T: TreeSnapshot> ReadView<T> {
    /// Visits the stored changes of the main revisions `from..=through` in order until `visit` breaks. `through` is
    /// not above the view's revision.
    pub fn changes(
        &self,
        from: i64,
        through: i64,
        visit: &mut dyn FnMut(StoredChange<'_>) -> ControlFlow<()>,
    ) {
        assert!(
            through <= self.revision,
            "changes up to {through} asked of a view at {}",
            self.revision
        );
        if from > through {
            return;
        }
        let state = self.state();
        let buffers = || state.frozen.iter().chain([&state.live]);
        let floor = buffers().map(|buffer| buffer.floor()).min().unwrap_or(0);
        if from <= floor {
            let mut is_over = false;
            let start = Revision::new(from, 0).put_key();
            let scanned = state.tree.scan(Bucket::Key, &start, &mut |key, record| {
                let Some((revision, is_tombstone)) = Revision::parse(key) else {
                    return ControlFlow::Continue(());
                };
                let flow = if revision.main > through {
                    ControlFlow::Break(())
                } else {
                    visit(StoredChange {
                        revision,
                        is_tombstone,
                        record,
                    })
                };
                is_over = flow.is_break();
                flow
            });
            scanned.unwrap_or_else(|damage| damaged(&damage));
            if is_over {
                return;
            }
        }
        let before = Revision::new(from - 1, i64::MAX);
        for buffer in buffers() {
            for record in buffer.records(Some(before)) {
                if record.revision.main > through {
                    return;
                }
                let change = StoredChange {
                    revision: record.revision,
                    is_tombstone: record.is_tombstone,
                    record: record.bytes,
                };
                if visit(change).is_break() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::{Applied, KeyValue, MemoryTree, Options, Store};

    type Seen = Vec<(i64, i64, bool, Vec<u8>)>;

    fn changes(view: &ReadView<MemoryTree>, from: i64, through: i64) -> Seen {
        let mut seen = Vec::new();
        view.changes(from, through, &mut |change| {
            let key = KeyValue::parse(change.record).expect("a record").key;
            let Revision { main, sub } = change.revision;
            seen.push((main, sub, change.is_tombstone, key.to_vec()));
            ControlFlow::Continue(())
        });
        seen
    }

    fn commit(store: &mut Store<MemoryTree>) {
        if let Some(frozen) = store.freeze() {
            let tree = store.tree().committed(&frozen);
            store.on_committed(tree);
        }
    }

    /// The same changes, wherever group commits have put them.
    #[test]
    fn changes_come_in_order_from_buffers_and_tree() {
        for commits in 0..8u32 {
            let (mut store, reader, _) =
                Store::open(MemoryTree::default(), Options::default()).expect("empty");
            let mut expected = Seen::new();
            for index in 0..12u64 {
                let mut txn = store.begin(Applied {
                    index: index + 1,
                    term: 1,
                });
                let main = txn.revision() + 1;
                let key = [b'a' + (index % 3) as u8];
                txn.put(&key, b"v", 0);
                expected.push((main, 0, false, key.to_vec()));
                if index % 4 == 3 {
                    txn.delete_range(crate::mvcc::KeyRange::single(&key), &mut |_| {});
                    expected.push((main, 1, true, key.to_vec()));
                }
                txn.commit();
                if index == 3 && commits & 1 != 0 || index == 6 && commits & 2 != 0 {
                    commit(&mut store);
                }
                if index == 9 && commits & 4 != 0 {
                    // Stays frozen: a commit under way.
                    store.freeze();
                }
            }
            let view = reader.view();
            for from in 0..=view.revision + 1 {
                for through in from..=view.revision {
                    let wanted: Seen = expected
                        .iter()
                        .filter(|change| from <= change.0 && change.0 <= through)
                        .cloned()
                        .collect();
                    assert_eq!(changes(&view, from, through), wanted, "{from} to {through}");
                }
            }
        }
    }

    #[test]
    fn a_hold_keeps_what_is_above_it() {
        let (mut store, reader, _) =
            Store::open(MemoryTree::default(), Options::default()).expect("empty");
        for index in 1..=6 {
            let mut txn = store.begin(Applied { index, term: 1 });
            txn.put(b"k", b"v", 0);
            txn.commit();
        }
        let mut hold = reader.hold(4).expect("nothing is compacted");
        store.compact(6).expect("not compacted yet");
        assert!(reader.hold(4).is_none(), "too late for another one");
        let finish = |store: &mut Store<MemoryTree>| {
            for _ in 0..20 {
                store.compact_step(100);
                commit(store);
            }
        };
        finish(&mut store);
        let mains = |reader: &Reader<MemoryTree>| -> Vec<i64> {
            let seen = changes(&reader.view(), 2, 7);
            seen.into_iter().map(|change| change.0).collect()
        };
        assert_eq!(mains(&reader), [2, 3, 4, 5, 6, 7]);
        hold.advance(6);
        finish(&mut store);
        assert_eq!(mains(&reader), [6, 7], "the newest at 6, and what is above");
    }
}
