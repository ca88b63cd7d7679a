//! Defragmentation: content stays, every page is accounted for after every commit, the file shrinks to what is in use, held
//! states stay readable, and power loss in any operation (the cut of the files too) leaves the old or the new state.

mod tree_support;

use storage::device::crash::{Crash, Fault, Operation};
use storage::device::{CrashDisk, MemoryDisk};
use storage::tree::{
    DefragStep, Defragmentation, Scrubber, Snapshot, SumsState, Tree, TreeError, TreeFiles,
    WriteBatch, check,
};
use tree_support::{Changes, Model, Op, Rng, assert_holds, dump, open_in, small_options};

fn step(
    tree: &mut Tree,
    changes: &Changes,
    job: &mut Defragmentation,
) -> Result<Snapshot, TreeError> {
    tree.commit_and_move(&changes.batch(), job, &mut |_| {})
}

/// Steps without changes until the end; the number of commits that wrote something.
fn finish(tree: &mut Tree, job: &mut Defragmentation) -> u64 {
    let before = tree.current().txid().0;
    for _ in 0..100_000 {
        step(tree, &Changes::default(), job).expect("commits");
        match job.step() {
            DefragStep::Working => {}
            DefragStep::Waiting => panic!("nobody holds a state"),
            DefragStep::Done => return tree.current().txid().0 - before,
        }
    }
    panic!("a defragmentation has an end");
}

/// No page is lost, every page in use matches its sum, and the file has what its states need.
fn assert_accounted(tree: &Tree, held: &[(Snapshot, Model)]) {
    let stats = tree.stats();
    let report = check(tree.current());
    assert!(report.is_sound(), "{:?}", report.problems);
    assert_eq!(
        stats.pages_free + stats.pages_pending + report.pages_used,
        stats.pages_high_water
    );
    let mut scrubber = Scrubber::new();
    while !scrubber.step(tree, 100).expect("sums match").round_done {}
    for (snapshot, _) in held {
        assert!(snapshot.page_count() * stats.page_bytes <= stats.file_bytes);
    }
}

fn key(n: u64) -> Vec<u8> {
    let mut key = n.to_be_bytes().to_vec();
    key.extend(b"_suffix");
    key
}

/// A file with `records` of which two in five are gone again, and what it holds: too few for a commit to join leaves.
fn half_empty(tree: &mut Tree, records: u64, value_bytes: impl Fn(u64) -> usize) -> Model {
    let mut model = Model::new();
    for from in (0..records).step_by(500) {
        let range = from..records.min(from + 500);
        let put = |n| Op::Put(b"key".to_vec(), key(n), vec![n as u8; value_bytes(n)]);
        let changes = Changes {
            ops: range.map(put).collect(),
        };
        tree.commit(&changes.batch()).expect("commits");
        changes.apply(&mut model);
    }
    for from in (0..records).step_by(1000) {
        let range = (from..records.min(from + 1000)).filter(|n| n % 5 < 2);
        let changes = Changes {
            ops: range.map(|n| Op::Delete(b"key".to_vec(), key(n))).collect(),
        };
        tree.commit(&changes.batch()).expect("commits");
        changes.apply(&mut model);
    }
    model
}

#[test]
fn half_empty_file_shrinks_to_what_is_in_use() {
    let disk = CrashDisk::new();
    let (mut tree, ..) = open_in(&disk).expect("opens");
    let model = half_empty(&mut tree, 20_000, |_| 60);
    let before = tree.stats();
    let commits = finish(&mut tree, &mut Defragmentation::new(64, 1000));
    let after = tree.stats();
    assert!(commits > 8, "in bounded steps: {commits}");
    assert_holds(tree.current(), &model, &mut Rng(1));
    assert_accounted(&tree, &[]);
    // What is left, in pages nine tenths full, and the room that moving needed.
    let data: usize = model[b"key".as_slice()]
        .iter()
        .map(|(k, v)| 16 + k.len() + v.len())
        .sum();
    let wanted = (data as f64 / 0.85) as u64 + 100 * 1024;
    assert!(after.file_bytes <= wanted, "{wanted} wanted, {after:?}");
    assert!(after.file_bytes < before.file_bytes * 7 / 10, "{before:?}");
    let disk_bytes = disk.contents("db").expect("there").len() as u64;
    assert_eq!(disk_bytes, after.file_bytes);
    // Once more finds little to do, and harms nothing.
    let again = finish(&mut tree, &mut Defragmentation::new(64, 1000));
    assert!(again < 60, "{again} commits");
    assert!(tree.stats().pages_high_water <= after.pages_high_water + 16);
    drop(tree);
    let (tree, snapshot, report) = open_in(&disk).expect("opens");
    assert_eq!(report.sums, SumsState::Verified);
    assert_holds(&snapshot, &model, &mut Rng(2));
    assert_accounted(&tree, &[]);
}

#[test]
fn large_values_move_too() {
    let disk = MemoryDisk::new();
    let (mut tree, ..) = open_in(&disk).expect("opens");
    let sizes = |n: u64| {
        if n % 7 < 2 {
            900 + n as usize % 3000
        } else {
            40
        }
    };
    let model = half_empty(&mut tree, 4_000, sizes);
    let before = tree.stats();
    finish(&mut tree, &mut Defragmentation::new(64, 1000));
    let after = tree.stats();
    assert_holds(tree.current(), &model, &mut Rng(1));
    assert_accounted(&tree, &[]);
    assert!(
        after.file_bytes * 100 <= after.in_use_bytes() * 120,
        "{before:?} {after:?}"
    );
}

#[test]
fn random_changes_and_readers_beside_it_keep_to_the_model() {
    for seed in 0..24 {
        let mut rng = Rng(seed);
        let disk = MemoryDisk::new();
        let (mut tree, ..) = open_in(&disk).expect("creates");
        let mut model = half_empty(&mut tree, 200 + rng.below(2000), |n| n as usize % 90);
        let mut held: Vec<(Snapshot, Model)> = Vec::new();
        for _ in 0..3 {
            let mut job = Defragmentation::new(8 + rng.below(60), 20 + rng.below(200));
            for _ in 0..20 + rng.below(60) {
                let ops = rng.below(30) as usize;
                let changes = Changes::random(&mut rng, &model, ops);
                let snapshot = step(&mut tree, &changes, &mut job).expect("commits");
                changes.apply(&mut model);
                assert!(dump(&snapshot) == model, "seed {seed}: contents differ");
                assert_accounted(&tree, &held);
                if rng.below(6) == 0 {
                    held.push((snapshot, model.clone()));
                }
                if rng.below(4) == 0 && !held.is_empty() {
                    held.swap_remove(rng.below(held.len() as u64) as usize);
                }
                for (snapshot, model) in &held {
                    assert!(
                        dump(snapshot) == *model,
                        "seed {seed}: a held state changed"
                    );
                }
                if job.step() == DefragStep::Done {
                    break;
                }
            }
            // Given up here, as when the member stops.
        }
        drop(held);
        finish(&mut tree, &mut Defragmentation::new(64, 1000));
        drop(tree);
        let (_, snapshot, report) = open_in(&disk).expect("opens");
        assert_eq!(report.sums, SumsState::Verified);
        assert_holds(&snapshot, &model, &mut rng);
    }
}

/// Through a real map: a byte beyond the end of the file would end the process.
#[test]
fn held_states_stay_readable_and_are_waited_for() {
    let dir = tempfile::tempdir().expect("scratch folder");
    let files = TreeFiles::open(dir.path()).expect("opens");
    let (mut tree, ..) = Tree::open(files, small_options()).expect("creates");
    let model = half_empty(&mut tree, 10_000, |_| 50);
    let length = || {
        std::fs::metadata(dir.path().join("db"))
            .expect("there")
            .len()
    };
    let before = length();
    let reader = tree.current().clone();
    // The other root and the state that is held are one: make them two.
    let mut job = Defragmentation::new(64, 500);
    let mut waited = 0;
    while waited < 3 {
        step(&mut tree, &Changes::default(), &mut job).expect("commits");
        assert_ne!(job.step(), DefragStep::Done);
        waited += u32::from(job.step() == DefragStep::Waiting);
    }
    assert!(length() >= reader.page_count() * 1024);
    assert!(dump(&reader) == model);
    drop(reader);
    finish(&mut tree, &mut job);
    assert_eq!(length(), tree.stats().file_bytes);
    assert!(length() < before * 7 / 10, "{before} to {}", length());
    assert_holds(tree.current(), &model, &mut Rng(3));
    // It grows again over the same places.
    let model = half_empty(&mut tree, 12_000, |_| 70);
    assert_holds(tree.current(), &model, &mut Rng(4));
    assert_accounted(&tree, &[]);
}

/// The commits of one run: what changes, and the model afterwards. Some have no changes.
fn story(seed: u64) -> Vec<(Changes, Model)> {
    let mut rng = Rng(seed);
    let mut model = Model::new();
    let mut out: Vec<(Changes, Model)> = Vec::new();
    for turn in 0..40 {
        let ops = match turn {
            0..3 => 60,
            // Most goes.
            3 => {
                let keys = model.iter().flat_map(|(b, records)| {
                    let gone = records.keys().enumerate().filter(|(at, _)| at % 4 != 0);
                    gone.map(|(_, k)| Op::Delete(b.clone(), k.clone()))
                });
                let ops = keys.collect();
                let changes = Changes { ops };
                changes.apply(&mut model);
                out.push((changes, model.clone()));
                continue;
            }
            _ if rng.below(3) == 0 => 6,
            _ => 0,
        };
        let changes = Changes::random(&mut rng, &model, ops);
        changes.apply(&mut model);
        out.push((changes, model.clone()));
    }
    out
}

/// The first commits are plain, the others move. How many were reported done.
fn run(disk: &CrashDisk, story: &[(Changes, Model)]) -> usize {
    let Ok((mut tree, ..)) = open_in(disk) else {
        return 0;
    };
    let mut job = Defragmentation::new(16, 40);
    for (done, (changes, _)) in story.iter().enumerate() {
        let result = match done {
            0..4 => tree.commit(&changes.batch()),
            _ => step(&mut tree, changes, &mut job),
        };
        if result.is_err() {
            let mut batch = WriteBatch::new();
            batch.put(b"key", b"x", b"y");
            assert!(tree.commit(&batch).is_err(), "the failure is remembered");
            return done;
        }
        if job.step() == DefragStep::Done {
            job = Defragmentation::new(16, 40);
        }
    }
    story.len()
}

#[test]
fn power_loss_in_any_operation_leaves_the_old_or_the_new_state() {
    for seed in 0..2 {
        let story = story(seed);
        let whole = CrashDisk::new();
        assert_eq!(run(&whole, &story), story.len());
        let mut lengths = whole
            .journal()
            .into_iter()
            .filter_map(|operation| match operation {
                Operation::SetLen { name, bytes } if name == "db" => Some(bytes),
                _ => None,
            });
        let mut longest = 0;
        let was_cut = lengths.any(|bytes| bytes < std::mem::replace(&mut longest, bytes));
        assert!(was_cut, "the story cuts the file");
        let empty = Model::new();
        for at in 0..whole.operations() {
            let disk = CrashDisk::new();
            disk.inject(Fault::PowerLoss { at });
            let done = run(&disk, &story);
            let subsets = (0..3).map(|n| Crash::Subset(at * 4 + n + seed * 1000));
            for crash in [Crash::LoseAll, Crash::KeepAll, Crash::ProcessOnly]
                .into_iter()
                .chain(subsets)
            {
                let what = format!("seed {seed}, power loss in operation {at}, {crash:?}");
                let disk = disk.restart(crash);
                let (mut tree, snapshot, report) =
                    open_in(&disk).unwrap_or_else(|e| panic!("{what}: does not open: {e}"));
                assert_eq!(report.sums, SumsState::Verified, "{what}");
                let found = dump(&snapshot);
                let state = |n: usize| if n == 0 { &empty } else { &story[n - 1].1 };
                let landed = (done..=(done + 1).min(story.len())).find(|n| *state(*n) == found);
                let Some(landed) = landed else {
                    panic!("{what}: neither state {done} nor the next")
                };
                if let Some((changes, model)) = story.get(landed) {
                    let mut job = Defragmentation::new(16, 40);
                    let snapshot = step(&mut tree, changes, &mut job).expect("commits");
                    assert_holds(&snapshot, model, &mut Rng(1));
                    assert_accounted(&tree, &[]);
                }
            }
        }
    }
}

#[test]
fn lost_newest_meta_finds_the_root_before_it_in_a_file_that_was_cut() {
    let story = story(5);
    let disk = CrashDisk::new();
    let (mut tree, ..) = open_in(&disk).expect("opens");
    let mut job = Defragmentation::new(16, 40);
    let mut cuts = 0;
    let mut before = Model::new();
    for (done, (changes, model)) in story.iter().enumerate() {
        let bytes = tree.stats().file_bytes;
        let txid = tree.current().txid();
        let snapshot = match done {
            0..4 => tree.commit(&changes.batch()),
            _ => step(&mut tree, changes, &mut job),
        };
        let snapshot = snapshot.expect("commits");
        cuts += u32::from(tree.stats().file_bytes < bytes);
        if snapshot.txid() != txid {
            let damaged = disk.restart(Crash::KeepAll);
            let newest = snapshot.txid().0;
            damaged.damage("db", |bytes| bytes[(newest % 2) as usize * 1024 + 20] ^= 1);
            let (_, snapshot, report) = open_in(&damaged).expect("opens");
            assert_eq!(
                (report.meta_invalid, report.sums),
                (true, SumsState::Verified)
            );
            assert_eq!(snapshot.txid().0, newest - 1);
            assert_holds(&snapshot, &before, &mut Rng(2));
        }
        before.clone_from(model);
        if job.step() == DefragStep::Done {
            job = Defragmentation::new(16, 40);
        }
    }
    assert!(cuts > 0, "the story cuts the file");
}

#[test]
fn full_disk_is_no_hindrance_and_a_refused_step_harms_nothing() {
    let disk = CrashDisk::new();
    let (mut tree, ..) = open_in(&disk).expect("opens");
    let mut model = half_empty(&mut tree, 5_000, |_| 60);
    disk.limit_space(Some(disk.used_bytes()));
    let before = tree.stats().file_bytes;
    let mut job = Defragmentation::new(64, 1000);
    finish(&mut tree, &mut job);
    assert!(tree.stats().file_bytes < before * 8 / 10);
    disk.limit_space(Some(disk.used_bytes()));
    let mut rng = Rng(9);
    let mut refused = 0;
    let mut job = Defragmentation::new(64, 1000);
    for _ in 0..60 {
        let changes = Changes::random(&mut rng, &model, 80);
        match step(&mut tree, &changes, &mut job) {
            Ok(_) => {}
            Err(TreeError::NoSpace { .. }) => {
                refused += 1;
                assert_holds(tree.current(), &model, &mut rng);
                disk.limit_space(None);
                tree.commit(&changes.batch()).expect("there is room now");
                disk.limit_space(Some(disk.used_bytes()));
                job = Defragmentation::new(64, 1000);
            }
            Err(other) => panic!("{other}"),
        }
        changes.apply(&mut model);
        assert_holds(tree.current(), &model, &mut rng);
    }
    assert!(refused > 0, "the disk was full at least once");
}
