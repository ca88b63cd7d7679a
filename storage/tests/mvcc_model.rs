//! The store against a plain list of versions: random transactions, aborts, deletes, freezes, commits, crashes,
//! compactions in slices; after every step reads at all revisions must agree.
//!
//! Always true in the model: `file` is exactly what the tree must hold once everything is committed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use proptest::prelude::*;
use storage::mvcc::{
    Applied, Bucket, CompactError, CompactProgress, Frozen, HashJob, KeyRange, KeyValue,
    MemoryTree, Options, Progress, ReadError, Reader, Revision, Scan, ScanMode, Store,
};

#[derive(Clone, Debug)]
enum TxnOp {
    Put(usize, u8, i64),
    Delete(usize, usize),
}

#[derive(Clone, Debug)]
enum Op {
    Txn(Vec<TxnOp>, bool),
    Freeze,
    Commit,
    /// Loses what is not committed.
    Crash,
    Compact(i64),
    CompactSteps(usize, usize),
    Small(u8, bool),
}

const KEYS: [&[u8]; 9] = [
    b"a",
    b"a\0",
    b"ab",
    b"b/1",
    b"b/2",
    b"b/22",
    b"b/3",
    b"c",
    b"zz-a-longer-key",
];

fn txn_op() -> impl Strategy<Value = TxnOp> {
    prop_oneof![
        3 => (0..KEYS.len(), any::<u8>(), 0..3i64).prop_map(|(k, v, l)| TxnOp::Put(k, v, l)),
        1 => (0..KEYS.len(), 0..KEYS.len() + 2).prop_map(|(a, b)| TxnOp::Delete(a, b)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (prop::collection::vec(txn_op(), 1..4), prop::bool::weighted(0.2))
            .prop_map(|(ops, abort)| Op::Txn(ops, abort)),
        2 => Just(Op::Freeze),
        2 => Just(Op::Commit),
        1 => Just(Op::Crash),
        1 => (0..4i64).prop_map(Op::Compact),
        4 => (1..4usize, 1..6usize).prop_map(|(n, budget)| Op::CompactSteps(n, budget)),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(v, put)| Op::Small(v, put)),
    ]
}

fn range(a: usize, b: usize) -> KeyRange<'static> {
    let end: &[u8] = match b {
        0 => b"",
        b if b > KEYS.len() => b"\0",
        b => KEYS[b - 1],
    };
    KeyRange::new(KEYS[a], end)
}

/// Revisions of a key, oldest first, with the encoded record (`None`: tombstone).
type History = Vec<(Revision, Option<Vec<u8>>)>;

/// Everything a member could lose or keep, cloned at each freeze.
#[derive(Clone)]
struct Model {
    history: BTreeMap<&'static [u8], History>,
    current: i64,
    compact_revision: i64,
    applied: u64,
    small: Option<u8>,
}

impl Model {
    fn at(&self, key: &[u8], at: i64) -> Option<&Vec<u8>> {
        let history = self.history.get(key)?;
        let newest = history.iter().rev().find(|(r, _)| r.main <= at)?;
        newest.1.as_ref()
    }

    fn live(&self, range: KeyRange<'_>, at: i64) -> Vec<(&'static [u8], &Vec<u8>)> {
        self.history
            .keys()
            .filter(|key| range.contains(key))
            .filter_map(|key| Some((*key, self.at(key, at)?)))
            .collect()
    }

    /// What compaction keeps at `compact`, as stored.
    fn file(&self, compact: i64) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut file = BTreeMap::new();
        for (key, history) in &self.history {
            let newest = history.iter().rposition(|(r, _)| r.main <= compact);
            for (position, (revision, record)) in history.iter().enumerate() {
                let is_kept = revision.main > compact
                    || (Some(position) == newest && (record.is_some() || revision.main == compact));
                if is_kept {
                    let tombstone = KeyValue {
                        key,
                        ..KeyValue::default()
                    };
                    let value = record.clone().unwrap_or_else(|| tombstone.encode());
                    let key = revision.key(record.is_none());
                    file.insert(key.as_bytes().to_vec(), value);
                }
            }
        }
        file
    }

    fn hash(&self, at: i64) -> u32 {
        let all = self.file(i64::MIN);
        let has_kept = !self.live(KeyRange::all(), at).is_empty();
        let mut crc = crc32c::crc32c(b"key");
        for (stored, value) in all {
            let (revision, is_tombstone) = Revision::parse(&stored).expect("encoded above");
            if revision.main > at {
                continue;
            }
            if revision.main <= self.compact_revision {
                let key = KeyValue::parse(&value).expect("encoded above").key;
                let is_kept = self.at(key, at).is_some_and(|record| *record == value);
                if (has_kept && !is_kept)
                    || (is_tombstone && revision.main == self.compact_revision)
                {
                    continue;
                }
            }
            crc = crc32c::crc32c_append(crc, &stored);
            crc = crc32c::crc32c_append(crc, &value);
        }
        crc
    }
}

struct World {
    store: Store<MemoryTree>,
    reader: Reader<MemoryTree>,
    tree: MemoryTree,
    frozen: Option<(Frozen, Model)>,
    model: Model,
    committed: Model,
}

fn options() -> Options {
    Options {
        dead_revisions_max: 3,
        ..Options::default()
    }
}

impl World {
    fn new() -> Self {
        let (store, reader, report) =
            Store::open(MemoryTree::default(), options()).expect("an empty tree");
        assert_eq!(
            (store.revision(), store.compact_revision(), report.keys),
            (1, -1, 0)
        );
        let model = Model {
            history: BTreeMap::new(),
            current: 1,
            compact_revision: -1,
            applied: 0,
            small: None,
        };
        Self {
            store,
            reader,
            tree: MemoryTree::default(),
            frozen: None,
            committed: model.clone(),
            model,
        }
    }

    fn applied(&mut self) -> Applied {
        self.model.applied += 1;
        Applied {
            index: self.model.applied,
            term: 1,
        }
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Txn(ops, is_aborted) => self.txn(ops, *is_aborted),
            Op::Freeze => {
                if let Some(frozen) = self.store.freeze() {
                    assert_eq!(frozen.applied().index, self.model.applied);
                    assert!(self.frozen.is_none());
                    self.frozen = Some((frozen, self.model.clone()));
                }
            }
            Op::Commit => {
                if let Some((frozen, model)) = self.frozen.take() {
                    self.tree = self.tree.committed(&frozen);
                    self.store.on_committed(self.tree.clone());
                    self.committed = model;
                }
            }
            Op::Crash => {
                let (store, reader, report) =
                    Store::open(self.tree.clone(), options()).expect("what was committed");
                self.store = store;
                self.reader = reader;
                self.frozen = None;
                self.model = self.committed.clone();
                assert_eq!(report.applied.index, self.model.applied);
                assert_eq!(self.store.compact_revision(), self.model.compact_revision);
                let attached: Vec<_> = self
                    .model
                    .live(KeyRange::all(), self.model.current)
                    .into_iter()
                    .map(|(key, record)| (key, KeyValue::parse(record).expect("stored").lease))
                    .filter(|(_, lease)| *lease != 0)
                    .collect();
                let reported: Vec<_> = report
                    .lease_keys
                    .iter()
                    .map(|(k, l)| (&k[..], *l))
                    .collect();
                assert_eq!(reported, attached);
            }
            Op::Compact(back) => {
                let revision = self.model.current - back;
                let result = self.store.compact(revision);
                if revision <= self.model.compact_revision {
                    let compact_revision = self.model.compact_revision;
                    assert_eq!(result, Err(CompactError::Compacted { compact_revision }));
                } else {
                    assert_eq!(result, Ok(()));
                    assert!(self.store.must_commit());
                    self.model.compact_revision = revision;
                }
            }
            Op::CompactSteps(steps, budget) => {
                for _ in 0..*steps {
                    self.store.compact_step(*budget);
                    self.check_newest();
                }
            }
            Op::Small(value, is_put) => {
                let applied = self.applied();
                let mut txn = self.store.begin(applied);
                if *is_put {
                    txn.put_bucket(Bucket::Lease, b"lease", &[*value]);
                    assert_eq!(txn.get_bucket(Bucket::Lease, b"lease"), Some(&[*value][..]));
                } else {
                    txn.delete_bucket(Bucket::Lease, b"lease");
                }
                txn.commit();
                self.model.small = is_put.then_some(*value);
            }
        }
    }

    fn txn(&mut self, ops: &[TxnOp], is_aborted: bool) {
        let applied = self.applied();
        let mut model = self.model.clone();
        let main = model.current + 1;
        let mut sub = 0;
        let mut txn = self.store.begin(applied);
        let mut touched: Vec<&[u8]> = Vec::new();
        for op in ops {
            match *op {
                TxnOp::Put(key, value, lease) => {
                    let key = KEYS[key];
                    if touched.contains(&key) {
                        continue;
                    }
                    touched.push(key);
                    let before = model.at(key, main).cloned();
                    let life = before.as_ref().map(|r| KeyValue::parse(r).expect("stored"));
                    let value = vec![value; usize::from(value % 40)];
                    let record = KeyValue {
                        key,
                        create_revision: life.map_or(main, |life| life.create_revision),
                        mod_revision: main,
                        version: life.map_or(1, |life| life.version + 1),
                        value: &value,
                        lease,
                    };
                    let (meta, previous) = txn.put(key, &value, lease);
                    assert_eq!(meta.version, record.version);
                    assert_eq!(meta.create_revision, record.create_revision);
                    assert_eq!(meta.mod_revision, Revision::new(main, sub));
                    assert_eq!(previous.map(|p| p.version), life.map(|l| l.version));
                    if let Some(previous) = previous {
                        assert_eq!(Some(txn.record(&previous)), before.as_deref());
                    }
                    let record = record.encode();
                    assert_eq!(txn.get(key).map(|item| item.record()), Some(&record[..]));
                    let history = model.history.entry(key).or_default();
                    history.push((Revision::new(main, sub), Some(record)));
                    sub += 1;
                }
                TxnOp::Delete(a, b) => {
                    let range = range(a, b);
                    if touched.iter().any(|key| range.contains(key)) {
                        continue;
                    }
                    let expected: Vec<_> = model
                        .live(range, main)
                        .into_iter()
                        .map(|(key, record)| (key, record.clone()))
                        .collect();
                    let mut seen = Vec::new();
                    let deleted = txn.delete_range(range, &mut |item| {
                        seen.push((item.key.to_vec(), item.record().to_vec()));
                    });
                    assert_eq!(deleted, expected.len());
                    assert!(
                        seen.iter()
                            .map(|(k, r)| (&k[..], r))
                            .eq(expected.iter().map(|(k, r)| (*k, r)))
                    );
                    for (key, _) in expected {
                        touched.push(key);
                        let history = model.history.get_mut(key).expect("alive");
                        history.push((Revision::new(main, sub), None));
                        sub += 1;
                    }
                }
            }
            assert_eq!(txn.has_changed(), sub > 0);
            let own = txn.revision() + i64::from(sub > 0);
            let mut seen = Vec::new();
            txn.range(KeyRange::all(), own, &mut |item| {
                seen.push((item.key.to_vec(), item.record().to_vec()));
                ControlFlow::Continue(())
            });
            let expected = model.live(KeyRange::all(), own);
            assert!(
                seen.iter()
                    .map(|(k, r)| (&k[..], r))
                    .eq(expected.iter().copied())
            );
            assert_eq!(txn.count(KeyRange::all(), own), expected.len());
        }
        // Readers see nothing of it yet.
        assert_eq!(self.reader.revision(), self.model.current);
        if is_aborted {
            txn.abort();
        } else {
            let revision = txn.commit();
            model.current += i64::from(sub > 0);
            assert_eq!(revision, model.current);
            self.model = model;
        }
    }

    fn check_newest(&self) {
        self.check_at(self.model.current, 3);
    }

    fn check_at(&self, at: i64, budget: usize) {
        for (a, b) in [(0, KEYS.len() + 1), (1, 7), (3, 0), (7, 2)] {
            let range = range(a, b);
            let expected = self.model.live(range, at);
            for limit in [0, 1, 3] {
                let mut scan = Scan::new(&self.reader, range, at, ScanMode::Items { limit })
                    .expect("a readable revision");
                let mut seen = Vec::new();
                loop {
                    let progress = scan.step(&self.reader, budget, &mut |item| {
                        let record = KeyValue::parse(item.record()).expect("stored");
                        assert_eq!(item.meta.create_revision, record.create_revision);
                        assert_eq!(item.meta.mod_revision.main, record.mod_revision);
                        assert_eq!(item.meta.version, record.version);
                        seen.push((item.key.to_vec(), item.record().to_vec()));
                        ControlFlow::Continue(())
                    });
                    if progress.expect("pinned") == Progress::Done {
                        break;
                    }
                }
                let length = if limit == 0 {
                    expected.len()
                } else {
                    expected.len().min(limit)
                };
                assert!(
                    seen.iter()
                        .map(|(k, r)| (&k[..], r))
                        .eq(expected[..length].iter().copied())
                );
                assert_eq!(scan.count(), expected.len());
                assert_eq!(scan.has_more(), length < expected.len());
            }
            let mut scan = Scan::new(&self.reader, range, at, ScanMode::Count).expect("readable");
            while scan
                .step(&self.reader, 1, &mut |_| panic!("counts only"))
                .expect("pinned")
                == Progress::More
            {}
            assert_eq!(scan.count(), expected.len());
        }
    }

    fn check(&self) {
        let (current, compact) = (self.model.current, self.model.compact_revision);
        assert_eq!(self.reader.revision(), current);
        assert_eq!(self.reader.compact_revision(), compact);
        assert_eq!(self.reader.applied_index(), self.model.applied);
        assert_eq!(
            self.store.get_bucket(Bucket::Lease, b"lease"),
            self.model.small.as_ref().map(std::slice::from_ref)
        );
        let view = self.reader.view();
        for at in 1.max(compact)..=current {
            for key in KEYS {
                let item = view.get(key, at).expect("readable");
                let record = item.map(|item| item.record().to_vec());
                assert_eq!(record.as_ref(), self.model.at(key, at), "{key:?} at {at}");
            }
        }
        if 1 < compact {
            let compact_revision = compact;
            assert_eq!(
                view.get(b"a", compact - 1).err(),
                Some(ReadError::Compacted { compact_revision })
            );
        }
        assert_eq!(
            view.get(b"a", current + 1).err(),
            Some(ReadError::Future { revision: current })
        );
        self.check_at(current.max(compact), 2);
        self.check_at(compact.max(1), 5);
        for at in [compact.max(1), current] {
            let mut job = HashJob::new(&self.reader, at).expect("readable");
            while job.step(&self.reader, 2).expect("pinned") == Progress::More {}
            // etcd skips compacted revisions only if some key lives at `at`. Without one its hash depends on how
            // far the deletions are, and so does ours: there is no one value to expect.
            if compact == -1 || !self.model.live(KeyRange::all(), at).is_empty() {
                assert_eq!(job.hash(), self.model.hash(at), "hash at {at}");
            }
        }
    }

    /// Lets everything finish; the file must then hold exactly what the rules keep.
    fn settle(&mut self) {
        for _ in 0..3 {
            loop {
                self.run(&Op::Freeze);
                if self.frozen.is_none() {
                    break;
                }
                self.run(&Op::Commit);
            }
            while !matches!(
                self.store.compact_step(3),
                CompactProgress::Idle | CompactProgress::Waiting
            ) {}
        }
        self.check();
        let file: BTreeMap<_, _> = self
            .tree
            .records(Bucket::Key)
            .map(|(k, v)| (k.to_vec(), v.to_vec()))
            .collect();
        assert_eq!(file, self.model.file(self.model.compact_revision));
        self.run(&Op::Crash);
        self.check();
        assert!(!self.store.is_compacting());
    }
}

fn run(ops: &[Op]) {
    let mut world = World::new();
    for op in ops {
        world.run(op);
        world.check();
    }
    world.settle();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn the_store_agrees_with_a_list_of_versions(ops in prop::collection::vec(op(), 1..70)) {
        run(&ops);
    }
}

/// A crash after each slice of a compaction: the next start finishes it.
#[test]
fn a_compaction_is_resumed_after_a_crash_at_any_slice() {
    for crash_after in 0..40 {
        let mut world = World::new();
        for round in 0..12u8 {
            let ops: Vec<_> = (0..4)
                .map(|n| TxnOp::Put((usize::from(round) + n * 2) % KEYS.len(), round, 0))
                .collect();
            world.run(&Op::Txn(ops, false));
            if round % 3 == 0 {
                world.run(&Op::Txn(
                    vec![TxnOp::Delete(usize::from(round) % KEYS.len(), 0)],
                    false,
                ));
            }
        }
        world.run(&Op::Compact(2));
        for _ in 0..crash_after {
            world.run(&Op::Freeze);
            world.run(&Op::Commit);
            world.store.compact_step(2);
            world.check();
        }
        world.run(&Op::Crash);
        world.check();
        world.settle();
    }
}

/// The newest state can be rebuilt from the tree after every commit point.
#[test]
fn reopening_after_each_commit_gives_the_same_store() {
    let mut world = World::new();
    for round in 0..30u8 {
        let key = usize::from(round) % KEYS.len();
        world.run(&Op::Txn(
            vec![TxnOp::Put(key, round, i64::from(round % 2))],
            false,
        ));
        if round % 4 == 3 {
            world.run(&Op::Txn(vec![TxnOp::Delete(key, KEYS.len() + 1)], false));
        }
        world.run(&Op::Freeze);
        world.run(&Op::Commit);
        world.run(&Op::Crash);
        world.check();
    }
}

/// A scan that began before a compaction ends as it began; the deletions wait for it.
#[test]
fn a_pinned_scan_outlives_a_compaction() {
    let mut world = World::new();
    for value in 0..3 {
        for key in 0..KEYS.len() {
            world.run(&Op::Txn(vec![TxnOp::Put(key, value, 0)], false));
        }
    }
    let at = world.model.current - 12;
    let expected: Vec<_> = world
        .model
        .live(KeyRange::all(), at)
        .into_iter()
        .map(|(k, r)| (k.to_vec(), r.clone()))
        .collect();
    let all = KeyRange::all();
    let mut scan =
        Scan::new(&world.reader, all, at, ScanMode::Items { limit: 0 }).expect("readable");
    let view = world.reader.view();
    let mut loose = Scan::unpinned(&view, all, at, ScanMode::Count).expect("readable");
    drop(view);
    world.run(&Op::Compact(0));
    world.run(&Op::Freeze);
    world.run(&Op::Commit);
    assert_eq!(world.store.compact_step(100), CompactProgress::Waiting);
    let compact_revision = world.model.current;
    assert_eq!(
        Scan::new(&world.reader, all, at, ScanMode::Count).err(),
        Some(ReadError::Compacted { compact_revision })
    );
    assert_eq!(
        loose.step(&world.reader, 1, &mut |_| ControlFlow::Continue(())),
        Err(ReadError::Compacted { compact_revision })
    );
    let mut seen = Vec::new();
    while scan
        .step(&world.reader, 2, &mut |item| {
            seen.push((item.key.to_vec(), item.record().to_vec()));
            ControlFlow::Continue(())
        })
        .expect("pinned")
        == Progress::More
    {
        assert_eq!(world.store.compact_step(100), CompactProgress::Waiting);
    }
    assert_eq!(seen, expected);
    world.settle();
    assert_eq!(world.tree.records(Bucket::Key).count(), KEYS.len());
}

#[test]
fn congestion_is_reported_and_nothing_is_refused() {
    let options = Options {
        waiting_bytes_max: 1000,
        ..Options::default()
    };
    let (mut store, _, _) = Store::open(MemoryTree::default(), options).expect("an empty tree");
    let mut tree = MemoryTree::default();
    let mut index = 0;
    while !store.is_congested() {
        index += 1;
        let mut txn = store.begin(Applied { index, term: 1 });
        txn.put(b"k", &[0; 100], 0);
        txn.commit();
    }
    assert!((5..15).contains(&index));
    let frozen = store.freeze().expect("waiting changes");
    assert!(store.is_congested(), "a slow commit still waits");
    tree = tree.committed(&frozen);
    store.on_committed(tree);
    assert!(!store.is_congested());
    assert!(store.freeze().is_none());
}

#[test]
fn damaged_files_are_refused_with_their_place() {
    use storage::mvcc::{Change, OpenError};
    let put = |bucket, key: &[u8], value: &[u8]| {
        let mut tree = MemoryTree::default();
        tree.apply(Change::Put { bucket, key, value });
        Store::open(tree, Options::default()).err()
    };
    assert!(matches!(
        put(Bucket::Key, b"x", b""),
        Some(OpenError::BadRevisionKey { .. })
    ));
    assert!(matches!(
        put(Bucket::Key, &Revision::new(7, 1).put_key(), b"\x0a\x09k"),
        Some(OpenError::BadRecord { main: 7, sub: 1 })
    ));
    for key in ["consistent_index", "scheduledCompactRev"] {
        assert!(matches!(
            put(Bucket::Meta, key.as_bytes(), b"123"),
            Some(OpenError::BadMeta { length: 3, .. })
        ));
    }
    // What a restore with a revision bump leaves: an empty record, and its revision marked for compaction.
    let mark = Revision::new(50, 0).put_key();
    let mut tree = MemoryTree::default();
    for (bucket, key) in [
        (Bucket::Key, &mark[..]),
        (Bucket::Meta, b"scheduledCompactRev"),
    ] {
        let value: &[u8] = if bucket == Bucket::Key { b"" } else { &mark };
        tree.apply(Change::Put { bucket, key, value });
    }
    let (mut store, reader, report) = Store::open(tree.clone(), Options::default()).expect("sound");
    assert_eq!(report.resumed_compaction, Some(50));
    assert_eq!((store.revision(), store.compact_revision()), (50, 50));
    while store.compact_step(10) != CompactProgress::Idle {}
    let frozen = store.freeze().expect("the mark of the end");
    tree = tree.committed(&frozen);
    store.on_committed(tree.clone());
    assert_eq!(
        tree.records(Bucket::Key).count(),
        1,
        "the empty record stays, as in etcd"
    );
    assert!(reader.view().get(b"a", 0).expect("readable").is_none());
}
