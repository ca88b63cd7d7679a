//! The store over the real tree file: what is committed is there after a reopen, record for record.

use std::ops::ControlFlow;

use storage::mvcc::{
    Applied, Bucket, CompactProgress, HashJob, KeyRange, Options, Progress, Scan, ScanMode, Store,
};
use storage::tree::{Snapshot, Tree, TreeFiles, TreeOptions, WriteBatch};

fn commit(store: &mut Store<Snapshot>, tree: &mut Tree) {
    if let Some(frozen) = store.freeze() {
        let changes = frozen.changes();
        let mut batch = WriteBatch::new();
        changes.fill(&mut batch);
        store.on_committed(tree.commit(&batch).expect("a sound disk"));
    }
}

/// Every live record, and the hash of the history.
fn contents(reader: &storage::mvcc::Reader<Snapshot>) -> (Vec<Vec<u8>>, u32) {
    let mode = ScanMode::Items { limit: 0 };
    let mut scan = Scan::new(reader, KeyRange::all(), 0, mode).expect("the newest");
    let mut records = Vec::new();
    while scan
        .step(reader, 64, &mut |item| {
            records.push(item.record().to_vec());
            ControlFlow::Continue(())
        })
        .expect("pinned")
        == Progress::More
    {}
    let mut job = HashJob::new(reader, 0).expect("the newest");
    while job.step(reader, 100).expect("pinned") == Progress::More {}
    (records, job.hash())
}

#[test]
fn a_reopened_file_gives_the_same_store() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let mut index = 0;
    let mut before = None;
    for round in 0..4u64 {
        let files = TreeFiles::open(folder.path()).expect("a file that is ours");
        let (mut tree, snapshot, _) = Tree::open(files, TreeOptions::default()).expect("sound");
        let (mut store, reader, report) =
            Store::open(snapshot, Options::default()).expect("a sound file");
        assert_eq!(report.applied.index, index);
        if let Some((revision, contents_before)) = before {
            assert_eq!(store.revision(), revision);
            assert_eq!(contents(&reader), contents_before);
            assert_eq!(
                store.get_bucket(Bucket::Alarm, b"a"),
                Some(&[round as u8 - 1][..])
            );
            assert_eq!(report.conf_state.as_deref(), Some("{\"voters\":[1]}"));
        }
        for number in 0..600u64 {
            index += 1;
            let mut txn = store.begin(Applied { index, term: 2 });
            txn.put(
                format!("key/{:04}", number % 150).as_bytes(),
                &[round as u8; 300],
                7,
            );
            if number % 40 == 39 {
                let from = format!("key/{:04}", number % 150);
                txn.delete_range(KeyRange::new(from.as_bytes(), b"key/0145"), &mut |_| {});
            }
            txn.commit();
            if number % 90 == 0 {
                commit(&mut store, &mut tree);
            }
        }
        store.compact(store.revision() - 100).expect("ascending");
        loop {
            match store.compact_step(50) {
                CompactProgress::Idle => break,
                CompactProgress::Waiting => commit(&mut store, &mut tree),
                _ => {}
            }
        }
        index += 1;
        let mut txn = store.begin(Applied { index, term: 2 });
        txn.put_bucket(Bucket::Alarm, b"a", &[round as u8]);
        txn.commit();
        store.set_conf_state("{\"voters\":[1]}");
        commit(&mut store, &mut tree);
        before = Some((store.revision(), contents(&reader)));
    }
}
