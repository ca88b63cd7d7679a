//! Files written by bbolt: read whole, carried on by us, and their page sums made anew.
//!
//! The two files in `testdata/tree` were written by bbolt 1.5 with the same contents: one with 1 KiB pages and a stored
//! freelist, one with 4 KiB pages and none. Both have small buckets that bbolt keeps inline, one bucket nested in
//! another, a value with overflow pages, and pages freed by deletions.

mod tree_support;

use storage::device::MemoryDisk;
use storage::tree::{SumsState, Tree, TreeError, TreeFiles, TreeOptions, WriteBatch, check};
use tree_support::{Bucket, Changes, Model, Rng, assert_holds, dump, open_in, small_options};

const WITH_FREELIST: &[u8] = include_bytes!("../testdata/tree/bbolt-freelist.db");
const WITHOUT_FREELIST: &[u8] = include_bytes!("../testdata/tree/bbolt-no-freelist.db");

fn key(n: u64) -> Vec<u8> {
    let mut key = n.to_be_bytes().to_vec();
    key.extend(b"_\0\0\0\0\0\0\0\0");
    key
}

fn value(n: u64, len: u64) -> Vec<u8> {
    (0..len).map(|i| (n + i) as u8).collect()
}

/// What the program that made the files put into them, the nested bucket left out.
fn golden() -> Model {
    let records = (0..40).chain(120..300).chain(1001..1010);
    let mut keys: Bucket = records.map(|n| (key(n), value(n, 20 + n % 90))).collect();
    keys.insert(key(1000), value(3, 9000));
    let mut model = Model::new();
    for empty in ["alarm", "auth", "lease", "members", "nested"] {
        model.insert(empty.into(), Bucket::new());
    }
    model.insert(
        "cluster".into(),
        [("clusterVersion".into(), "3.8.0".into())].into(),
    );
    let meta = [
        ("consistent_index".into(), 1010u64.to_be_bytes().to_vec()),
        ("storageVersion".into(), "3.8.0".into()),
    ];
    model.insert("meta".into(), meta.into());
    model.insert("key".into(), keys);
    model
}

fn disk_with(bytes: &[u8]) -> MemoryDisk {
    let disk = MemoryDisk::new();
    disk.insert("db", bytes.to_vec());
    disk
}

#[test]
fn bbolt_files_read_whole_and_are_carried_on() {
    for (file, page_bytes, pages_freelist) in
        [(WITH_FREELIST, 1024, 1), (WITHOUT_FREELIST, 4096, 0)]
    {
        let disk = disk_with(file);
        let mut rng = Rng(1);
        let mut model = golden();
        let (mut tree, snapshot, report) = open_in(&disk).expect("opens");
        assert_eq!(
            (report.page_bytes, report.sums),
            (page_bytes, SumsState::Rebuilt)
        );
        assert_holds(&snapshot, &model, &mut rng);
        let account = check(&snapshot);
        assert_eq!(account.pages_freelist, pages_freelist);
        assert!(account.counts.inline_buckets >= 4);
        let nested = snapshot.bucket(b"nested").expect("sound").expect("there");
        assert_eq!(nested.sequence(), 42);
        let inner = nested.nested(b"inner").expect("sound").expect("there");
        assert_eq!(inner.get(b"a"), Ok(Some(&b"1"[..])));
        assert_eq!(nested.get(b"inner"), Ok(None));

        for _ in 0..6 {
            let changes = Changes::random(&mut rng, &model, 80);
            let mut batch = changes.batch();
            batch.put(b"nested", b"plain", b"beside");
            batch.put(b"alarm", b"on", b"");
            let snapshot = tree.commit(&batch).expect("commits");
            changes.apply(&mut model);
            model
                .entry(b"nested".to_vec())
                .or_default()
                .insert(b"plain".to_vec(), b"beside".to_vec());
            model
                .entry(b"alarm".to_vec())
                .or_default()
                .insert(b"on".to_vec(), Vec::new());
            assert_holds(&snapshot, &model, &mut rng);
            let nested = snapshot.bucket(b"nested").expect("sound").expect("there");
            assert_eq!(
                nested.sequence(),
                42,
                "a rewritten bucket keeps its sequence"
            );
            let inner = nested.nested(b"inner").expect("sound").expect("there");
            assert_eq!(inner.get(b"a"), Ok(Some(&b"1"[..])));
        }
        drop(tree);
        let (mut tree, _, report) = open_in(&disk).expect("opens");
        assert_eq!(report.sums, SumsState::Verified);

        let mut batch = WriteBatch::new();
        batch.put(b"nested", b"inner", b"must not replace a bucket");
        assert!(matches!(
            tree.commit(&batch),
            Err(TreeError::BadChange { .. })
        ));
        let mut batch = WriteBatch::new();
        batch.delete_all(b"nested");
        let snapshot = tree.commit(&batch).expect("commits");
        model.insert(b"nested".to_vec(), Bucket::new());
        assert_holds(&snapshot, &model, &mut rng);
    }
}

#[test]
fn tree_file_that_another_program_wrote_gets_new_sums() {
    let disk = MemoryDisk::new();
    let (mut tree, ..) = open_in(&disk).expect("creates");
    let mut batch = WriteBatch::new();
    batch.put(b"key", b"a", b"ours");
    tree.commit(&batch).expect("commits");
    drop(tree);
    // The side file stays, the tree file is another's.
    disk.insert("db", WITH_FREELIST.to_vec());
    let (_, snapshot, report) = open_in(&disk).expect("opens");
    assert_eq!(report.sums, SumsState::Rebuilt);
    assert!(dump(&snapshot) == golden());
    // A lost side file of a file of ours is made anew once, and believed from then on.
    let disk = MemoryDisk::new();
    let (mut tree, ..) = open_in(&disk).expect("creates");
    tree.commit(&batch).expect("commits");
    drop(tree);
    disk.insert("db.sum", Vec::new());
    assert_eq!(open_in(&disk).expect("opens").2.sums, SumsState::Rebuilt);
    assert_eq!(open_in(&disk).expect("opens").2.sums, SumsState::Verified);
}

#[test]
fn real_bbolt_file_opens_read_only_without_a_side_file() {
    let dir = tempfile::tempdir().expect("scratch folder");
    std::fs::write(dir.path().join("db"), WITHOUT_FREELIST).expect("writes");
    let files = TreeFiles::open_read_only(dir.path()).expect("opens");
    let options = TreeOptions {
        lock_memory: true,
        ..small_options()
    };
    let (snapshot, report) = match Tree::open_read_only(&files, &options) {
        // The limit on locked memory may be lower than the file.
        Err(TreeError::Io {
            operation: "lock in memory",
            ..
        }) => Tree::open_read_only(&files, &small_options()).expect("loads"),
        result => result.expect("loads"),
    };
    assert_eq!(report.sums, SumsState::Rebuilt);
    assert!(dump(&snapshot) == golden());
    assert!(!dir.path().join("db.sum").exists());
}
