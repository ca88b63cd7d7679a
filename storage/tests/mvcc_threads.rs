//! Readers on other threads while one thread writes, commits and compacts: a reader at revision R sees exactly
//! the state at R, whatever happens meanwhile.
//!
//! The transactions are a fixed sequence, so the state at every revision is known before the threads start.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use storage::mvcc::{
    Applied, HashJob, KeyRange, KeyValue, MemoryTree, Options, Progress, ReadError, Reader, Scan,
    ScanMode, Store,
};

const KEYS: u64 = 300;
const TXNS: usize = if cfg!(miri) { 60 } else { 6000 };

/// Key to (create, mod, version).
type State = BTreeMap<Vec<u8>, (i64, i64, i64)>;

struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        self.0 >> 33
    }
}

enum Change {
    Put(Vec<u8>),
    Delete(Vec<u8>, Vec<u8>),
}

fn key(number: u64) -> Vec<u8> {
    format!(
        "/registry/{}/{:03}",
        ["pods", "leases"][number as usize % 2],
        number
    )
    .into_bytes()
}

/// Transactions that change something, and the state after each; state 0 and 1 are empty.
fn script() -> (Vec<Vec<Change>>, Vec<State>) {
    let mut random = Numbers(11);
    let mut states = vec![State::new(), State::new()];
    let mut txns = Vec::new();
    for main in 2..2 + TXNS as i64 {
        let mut state = states.last().expect("two at start").clone();
        let mut changes = Vec::new();
        if random.next().is_multiple_of(4) {
            let from = random.next() % KEYS;
            let (from, to) = (key(from), key(from + random.next() % 9));
            state.retain(|k, _| !(from <= *k && *k < to));
            changes.push(Change::Delete(from, to));
        }
        // A hot key has a long history; the others come and go.
        let put = match random.next() % 3 {
            0 => b"/registry/hot".to_vec(),
            _ => key(random.next() % KEYS),
        };
        let (create, _, version) = state.get(&put).copied().unwrap_or((main, 0, 0));
        state.insert(put.clone(), (create, main, version + 1));
        changes.push(Change::Put(put));
        txns.push(changes);
        states.push(state);
    }
    (txns, states)
}

fn write(mut store: Store<MemoryTree>, txns: &[Vec<Change>]) {
    let mut tree = MemoryTree::default();
    let mut frozen = None;
    for (number, changes) in txns.iter().enumerate() {
        let applied = Applied {
            index: number as u64 + 1,
            term: 1,
        };
        if number % 7 == 3 {
            // What is taken back must never show.
            let mut txn = store.begin(applied);
            txn.put(b"/registry/hot", b"aborted", 0);
            txn.put(format!("/registry/aborted/{number}").as_bytes(), b"", 0);
            txn.delete_range(KeyRange::new(b"/registry/l", b"/registry/m"), &mut |_| {});
            txn.abort();
        }
        let mut txn = store.begin(applied);
        for change in changes {
            match change {
                Change::Put(key) => {
                    let value = txn.revision() + 1;
                    txn.put(key, &value.to_be_bytes(), 0);
                }
                Change::Delete(from, to) => {
                    txn.delete_range(KeyRange::new(from, to), &mut |_| {});
                }
            }
        }
        let revision = txn.commit();
        assert_eq!(revision, number as i64 + 2);
        if number % 50 == 20 {
            frozen = store.freeze();
        }
        if number % 50 == 45
            && let Some(frozen) = frozen.take()
        {
            tree = tree.committed(&frozen);
            store.on_committed(tree.clone());
        }
        if number % 400 == 399 || (cfg!(miri) && number % 20 == 19) {
            store
                .compact(revision - 40.min(revision / 2))
                .expect("ascending");
        }
        store.compact_step(20);
    }
}

fn check_scan(reader: &Reader<MemoryTree>, states: &[State], random: &mut Numbers) -> bool {
    let view = reader.view();
    let oldest = view.compact_revision.max(view.revision - 60).max(1);
    let at = oldest + (random.next() as i64) % (view.revision - oldest + 1);
    drop(view);
    let state = &states[at as usize];
    let (from, to) = (key(random.next() % KEYS), key(random.next() % KEYS));
    let range = match random.next() % 3 {
        0 => KeyRange::all(),
        1 => KeyRange::single(&from),
        _ => KeyRange::new(&from, &to),
    };
    let expected: Vec<_> = state.iter().filter(|(k, _)| range.contains(k)).collect();
    let limit = (random.next() % 20) as usize;
    let budget = 1 + (random.next() % 90) as usize;
    let mut scan = match Scan::new(reader, range, at, ScanMode::Items { limit }) {
        Ok(scan) => scan,
        Err(ReadError::Compacted { compact_revision }) => {
            assert!(at < compact_revision);
            return false;
        }
        Err(error) => panic!("{error}"),
    };
    let mut seen = 0;
    loop {
        let progress = scan.step(reader, budget, &mut |item| {
            let (key, &(create, modified, version)) = expected[seen];
            assert_eq!(item.key, key);
            let meta = item.meta;
            assert_eq!(
                (meta.create_revision, meta.mod_revision.main, meta.version),
                (create, modified, version)
            );
            let record = KeyValue::parse(item.record()).expect("stored");
            assert_eq!(record.key, key);
            assert_eq!(record.value, modified.to_be_bytes());
            seen += 1;
            ControlFlow::Continue(())
        });
        if progress.expect("pinned scans are not disturbed") == Progress::Done {
            break;
        }
    }
    assert_eq!(scan.count(), expected.len(), "{range:?} at {at}");
    assert_eq!(
        seen,
        if limit == 0 {
            expected.len()
        } else {
            expected.len().min(limit)
        }
    );
    true
}

#[test]
fn readers_see_exactly_the_state_at_their_revision() {
    let (txns, states) = script();
    let (store, reader, _) =
        Store::open(MemoryTree::default(), Options::default()).expect("an empty tree");
    let is_done = AtomicBool::new(false);
    let scans = AtomicUsize::new(0);
    thread::scope(|scope| {
        for seed in 0..3 {
            let (reader, states, is_done, scans) = (reader.clone(), &states, &is_done, &scans);
            scope.spawn(move || {
                let mut random = Numbers(seed);
                loop {
                    let is_last = is_done.load(Ordering::Acquire);
                    if check_scan(&reader, states, &mut random) {
                        scans.fetch_add(1, Ordering::Relaxed);
                    }
                    if !cfg!(miri) && random.next().is_multiple_of(50) {
                        let mut job = HashJob::new(&reader, 0).expect("the newest");
                        while job.step(&reader, 200) == Ok(Progress::More) {}
                    }
                    if is_last {
                        break;
                    }
                }
            });
        }
        write(store, &txns);
        is_done.store(true, Ordering::Release);
    });
    assert!(scans.load(Ordering::Relaxed) >= 3);
}
