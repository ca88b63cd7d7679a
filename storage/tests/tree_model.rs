//! Random batches against a map of maps, on a memory disk and through a real map, reopening along the way.

mod tree_support;

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use storage::device::MemoryDisk;
use storage::tree::{
    CommitPhase, Scrubber, SumsState, Tree, TreeError, TreeFiles, TreeOptions, WriteBatch, check,
};
use tree_support::{Changes, Model, Rng, assert_holds, dump, open_in, small_options};

fn scrub_round(tree: &Tree) {
    let mut scrubber = Scrubber::new();
    while !scrubber.step(tree, 7).expect("sums match").round_done {}
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn random_batches_keep_to_the_model(seed: u64) {
        let mut rng = Rng(seed);
        let disk = MemoryDisk::new();
        let mut model = Model::new();
        let (mut tree, ..) = open_in(&disk).expect("creates");
        let mut held = Vec::new();
        for turn in 0..24 {
            let ops = rng.below(60) as usize;
            let changes = Changes::random(&mut rng, &model, ops);
            let snapshot = tree.commit(&changes.batch()).expect("commits");
            changes.apply(&mut model);
            assert_holds(&snapshot, &model, &mut rng);
            if rng.below(4) == 0 {
                held.push((snapshot.clone(), model.clone()));
            }
            if rng.below(5) == 0 && !held.is_empty() {
                held.swap_remove(rng.below(held.len() as u64) as usize);
            }
            for (snapshot, model) in &held {
                prop_assert!(dump(snapshot) == *model, "a held snapshot changed");
            }
            let stats = tree.stats();
            let used = check(&snapshot).pages_used;
            prop_assert_eq!(stats.pages_free + stats.pages_pending + used, stats.pages_high_water);
            scrub_round(&tree);
            if turn % 5 == 4 {
                drop(tree);
                let (again, snapshot, report) = open_in(&disk).expect("opens");
                prop_assert_eq!(report.sums, SumsState::Verified);
                prop_assert!(!report.meta_invalid);
                assert_holds(&snapshot, &model, &mut rng);
                tree = again;
                let stats = tree.stats();
                prop_assert_eq!(stats.in_use_bytes(), report.pages_in_use * stats.page_bytes);
            }
        }
    }
}

#[test]
fn real_files_are_mapped_grown_and_locked() {
    let dir = tempfile::tempdir().expect("scratch folder");
    let options = TreeOptions {
        map_bytes: 64 << 10,
        ..small_options()
    };
    let mut rng = Rng(7);
    let mut model = Model::new();
    let files = TreeFiles::open(dir.path()).expect("opens");
    let (mut tree, first, _) = Tree::open(files, options.clone()).expect("creates");
    assert!(matches!(
        TreeFiles::open(dir.path()),
        Err(TreeError::Locked { .. })
    ));
    assert!(matches!(
        TreeFiles::open_read_only(dir.path()),
        Err(TreeError::Locked { .. })
    ));
    for _ in 0..40 {
        let changes = Changes::random(&mut rng, &model, 120);
        let snapshot = tree.commit(&changes.batch()).expect("commits");
        changes.apply(&mut model);
        assert_holds(&snapshot, &model, &mut rng);
        assert!(
            snapshot
                .is_resident(storage::tree::PageNumber(0), 1)
                .expect("mincore")
        );
    }
    assert!(tree.stats().file_bytes > 256 << 10, "the map was outgrown");
    assert!(
        dump(&first).is_empty(),
        "the first snapshot still reads through the first map"
    );
    scrub_round(&tree);
    drop(tree);
    // The map of a held snapshot keeps the lock: nobody may write what a reader still sees.
    assert!(matches!(
        TreeFiles::open(dir.path()),
        Err(TreeError::Locked { .. })
    ));
    drop(first);
    let files = TreeFiles::open_read_only(dir.path()).expect("opens");
    let (snapshot, report) = Tree::open_read_only(&files, &options).expect("loads");
    assert_eq!(report.sums, SumsState::Verified);
    assert_holds(&snapshot, &model, &mut rng);
}

#[test]
fn space_of_deleted_records_is_used_again() {
    let disk = MemoryDisk::new();
    let (mut tree, ..) = open_in(&disk).expect("creates");
    let mut high_water = Vec::new();
    let mut next = 0u64;
    for round in 0..60u64 {
        let keys: Vec<_> = (next..next + 50).map(u64::to_be_bytes).collect();
        let gone: Vec<_> = (next.saturating_sub(200)..next.saturating_sub(150))
            .map(u64::to_be_bytes)
            .collect();
        let mut batch = WriteBatch::new();
        for key in &gone {
            batch.delete(b"key", key);
        }
        for key in &keys {
            batch.put(b"key", key, &[7; 100]);
        }
        tree.commit(&batch).expect("commits");
        next += 50;
        if round >= 20 {
            high_water.push(tree.stats().pages_high_water);
        }
    }
    assert_eq!(
        high_water.first(),
        high_water.last(),
        "the file stopped growing"
    );
}

#[test]
fn batch_without_effect_writes_nothing() {
    let disk = MemoryDisk::new();
    let (mut tree, first, _) = open_in(&disk).expect("creates");
    let mut batch = WriteBatch::new();
    batch.put(b"key", b"a", b"1");
    let one = tree.commit(&batch).expect("commits");
    assert_eq!(one.txid().0, first.txid().0 + 1);
    let mut batch = WriteBatch::new();
    batch.delete(b"key", b"absent");
    batch.create_bucket(b"key");
    let same = tree
        .commit_observed(&batch, &mut |p| panic!("reached {p:?}"))
        .expect("commits");
    assert_eq!(same.txid(), one.txid());
    let mut phases = Vec::new();
    let mut batch = WriteBatch::new();
    batch.put(b"key", b"a", b"2");
    tree.commit_observed(&batch, &mut |p| phases.push(p))
        .expect("commits");
    use CommitPhase::{Built, Published, Synced, Written};
    assert_eq!(phases, [Built, Written, Synced, Published]);
}

#[test]
fn changes_the_format_cannot_hold_are_refused_and_harm_nothing() {
    let disk = MemoryDisk::new();
    let (mut tree, ..) = open_in(&disk).expect("creates");
    let long = vec![1; 32_769];
    for (bucket, key) in [
        (&b""[..], &b"k"[..]),
        (b"b", b""),
        (b"b", &long),
        (&long, b"k"),
    ] {
        let mut batch = WriteBatch::new();
        batch.put(b"fine", b"k", b"v");
        batch.put(bucket, key, b"v");
        assert!(matches!(
            tree.commit(&batch),
            Err(TreeError::BadChange { .. })
        ));
    }
    let mut batch = WriteBatch::new();
    batch.put(b"fine", &long[1..], b"v");
    let snapshot = tree.commit(&batch).expect("commits");
    assert_eq!(dump(&snapshot).len(), 1);
    assert!(check(&snapshot).is_sound());
}

#[test]
fn readers_on_other_threads_see_whole_states_while_commits_go_on() {
    let dir = tempfile::tempdir().expect("scratch folder");
    let files = TreeFiles::open(dir.path()).expect("opens");
    let (mut tree, first, _) = Tree::open(files, small_options()).expect("creates");
    let latest = std::sync::Mutex::new(first);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    let snapshot = latest.lock().expect("unpoisoned").clone();
                    let Some(bucket) = snapshot.bucket(b"key").expect("sound") else {
                        continue;
                    };
                    // Every record of a state carries that state's stamp.
                    let mut cursor = bucket.iter().expect("sound");
                    let mut stamp = None;
                    while let Some((_, value)) = cursor.next().expect("sound") {
                        assert_eq!(*stamp.get_or_insert(value), value);
                    }
                    assert_eq!(stamp, Some(&snapshot.txid().0.to_be_bytes().repeat(9)[..]));
                }
            });
        }
        let keys: Vec<_> = (0..300u64).map(u64::to_be_bytes).collect();
        for _ in 0..150 {
            let stamp = (tree.current().txid().0 + 1).to_be_bytes().repeat(9);
            let mut batch = WriteBatch::new();
            for key in &keys {
                batch.put(b"key", key, &stamp);
            }
            let snapshot = tree.commit(&batch).expect("commits");
            *latest.lock().expect("unpoisoned") = snapshot;
        }
        stop.store(true, Ordering::Release);
    });
    drop(latest);
    let stats = tree.stats();
    assert!(
        stats.pages_high_water < 3000,
        "pages were used again: {stats:?}"
    );
}

#[test]
fn backup_of_a_held_snapshot_opens_as_that_state() {
    let mut rng = Rng(17);
    let disk = MemoryDisk::new();
    let mut model = Model::new();
    let (mut tree, ..) = open_in(&disk).expect("creates");
    for _ in 0..10 {
        let changes = Changes::random(&mut rng, &model, 60);
        tree.commit(&changes.batch()).expect("commits");
        changes.apply(&mut model);
    }
    let held = tree.current().clone();
    for _ in 0..10 {
        let later = Changes::random(&mut rng, &model, 60);
        tree.commit(&later.batch()).expect("commits");
        let mut copy = disk.file("db").expect("there").contents();
        copy.truncate(held.page_count() as usize * held.page_bytes());
        let head = held.backup_head();
        copy[..head.len()].copy_from_slice(&head);
        let other = MemoryDisk::new();
        other.insert("db", copy);
        let (_, snapshot, report) = open_in(&other).expect("opens");
        assert_eq!(report.sums, SumsState::Rebuilt);
        assert_eq!(snapshot.txid(), held.txid());
        assert_holds(&snapshot, &model, &mut rng);
    }
}
