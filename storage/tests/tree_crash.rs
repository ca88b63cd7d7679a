//! Power loss in every operation of a run of commits, with every kind of survival of unsynced sectors: after a restart the
//! file holds exactly the state before or after the commit that was cut short, all pages are accounted for, and the
//! page sums verify. Also: full disks and failing devices.

mod tree_support;

use storage::device::CrashDisk;
use storage::device::crash::{Crash, Fault, Operation};
use storage::tree::{Scrubber, SumsState, TreeError, WriteBatch, check};
use tree_support::{Changes, Model, Rng, assert_holds, dump, open_in};

/// The batches of one run and the model after each.
fn story(seed: u64, commits: usize) -> Vec<(Changes, Model)> {
    let mut rng = Rng(seed);
    let mut model = Model::new();
    (0..commits)
        .map(|_| {
            let ops = 5 + rng.below(40) as usize;
            let changes = Changes::random(&mut rng, &model, ops);
            changes.apply(&mut model);
            (changes, model.clone())
        })
        .collect()
}

/// Commits until the disk fails; the number of commits that were reported done.
fn run(disk: &CrashDisk, story: &[(Changes, Model)]) -> usize {
    let Ok((mut tree, ..)) = open_in(disk) else {
        return 0;
    };
    for (done, (changes, _)) in story.iter().enumerate() {
        match tree.commit(&changes.batch()) {
            Ok(_) => {}
            Err(_) => {
                // A write or sync that failed stays failed.
                let mut batch = WriteBatch::new();
                batch.put(b"key", b"x", b"y");
                assert!(tree.commit(&batch).is_err());
                return done;
            }
        }
    }
    story.len()
}

fn assert_recovers(disk: &CrashDisk, story: &[(Changes, Model)], done: usize, what: &str) {
    let mut rng = Rng(1);
    let (mut tree, snapshot, report) =
        open_in(disk).unwrap_or_else(|e| panic!("{what}: does not open: {e}"));
    let empty = Model::new();
    let state = |n: usize| if n == 0 { &empty } else { &story[n - 1].1 };
    let found = dump(&snapshot);
    let landed = (done..=(done + 1).min(story.len())).find(|n| *state(*n) == found);
    let Some(landed) = landed else {
        panic!("{what}: neither state {done} nor the next")
    };
    assert_eq!(report.sums, SumsState::Verified, "{what}");
    assert_holds(&snapshot, state(landed), &mut rng);
    // And the file takes further commits.
    if let Some((changes, model)) = story.get(landed) {
        let snapshot = tree.commit(&changes.batch()).expect("commits");
        assert_holds(&snapshot, model, &mut rng);
        let mut scrubber = Scrubber::new();
        while !scrubber.step(&tree, 100).expect("sums match").round_done {}
    }
}

#[test]
fn power_loss_in_any_operation_leaves_the_old_or_the_new_state() {
    for seed in 0..3 {
        let story = story(seed, 7);
        let whole = CrashDisk::new();
        assert_eq!(run(&whole, &story), story.len());
        for at in 0..whole.operations() {
            let disk = CrashDisk::new();
            disk.inject(Fault::PowerLoss { at });
            let done = run(&disk, &story);
            let subsets = (0..4).map(|n| Crash::Subset(at * 4 + n + seed * 1000));
            for crash in [Crash::LoseAll, Crash::KeepAll, Crash::ProcessOnly]
                .into_iter()
                .chain(subsets)
            {
                let what = format!("seed {seed}, power loss in operation {at}, {crash:?}");
                assert_recovers(&disk.restart(crash), &story, done, &what);
            }
        }
    }
}

#[test]
fn power_loss_twice_in_a_row_is_survived() {
    let story = story(11, 6);
    for seed in 0..60 {
        let mut rng = Rng(seed);
        let disk = CrashDisk::new();
        disk.inject(Fault::PowerLoss {
            at: 12 + rng.below(30),
        });
        let done = run(&disk, &story);
        let disk = disk.restart(Crash::Subset(rng.next()));
        let Ok((_, snapshot, _)) = open_in(&disk) else {
            panic!("seed {seed}: does not open")
        };
        let found = dump(&snapshot);
        let landed = (0..story.len())
            .find(|n| story[*n].1 == found)
            .map_or(0, |n| n + 1);
        assert!(landed >= done, "seed {seed}");
        disk.inject(Fault::PowerLoss {
            at: disk.operations() + rng.below(9),
        });
        let more = run(&disk, &story[landed..]);
        let disk = disk.restart(Crash::Subset(rng.next()));
        assert_recovers(&disk, &story, landed + more, &format!("seed {seed}"));
    }
}

/// A process that is killed between writing a meta page and syncing it leaves a root that reads well and is not
/// durable. Whoever opens it gives the log up behind it, and reuses the pages of the root before it.
#[test]
fn what_a_dead_process_left_is_durable_once_the_tree_is_open() {
    let story = story(7, 5);
    let whole = CrashDisk::new();
    run(&whole, &story);
    for at in 0..whole.operations() {
        let disk = CrashDisk::new();
        disk.inject(Fault::PowerLoss { at });
        run(&disk, &story);
        let left = disk.restart(Crash::ProcessOnly);
        let (_, snapshot, _) = open_in(&left).expect("opens");
        let found = dump(&snapshot);
        for crash in [Crash::LoseAll, Crash::Subset(at)] {
            let (_, snapshot, _) = open_in(&left.restart(crash)).expect("opens again");
            assert!(dump(&snapshot) == found, "operation {at}, then {crash:?}");
        }
    }
}

#[test]
fn failed_write_or_sync_is_never_tried_again() {
    let story = story(5, 3);
    let whole = CrashDisk::new();
    run(&whole, &story[..1]);
    let before = whole.operations();
    run(&whole, &story[..0]);
    let disk = CrashDisk::new();
    run(&disk, &story);
    for (at, operation) in disk.journal().iter().enumerate().skip(before as usize) {
        let is_growth = matches!(operation, Operation::SetLen { .. });
        let disk = CrashDisk::new();
        disk.inject(Fault::Error {
            at: at as u64,
            errno: 5,
        });
        let (mut tree, ..) = open_in(&disk).expect("opens");
        let failed = story
            .iter()
            .find_map(|(c, _)| tree.commit(&c.batch()).err());
        let Some(failed) = failed else {
            assert!(is_growth, "operation {at} failed and nobody noticed");
            continue;
        };
        let operations = disk.operations();
        let mut batch = WriteBatch::new();
        batch.put(b"key", b"x", b"y");
        let again = tree.commit(&batch);
        if is_growth {
            assert!(matches!(
                failed,
                TreeError::Io { .. } | TreeError::NoSpace { .. }
            ));
            again.expect("nothing was written, so the next commit is taken");
        } else {
            assert!(matches!(failed, TreeError::Failed { .. }), "{failed}");
            let again = again.expect_err("the failure is remembered");
            assert_eq!(again.to_string(), failed.to_string());
            assert_eq!(
                disk.operations(),
                operations,
                "and nothing reached the disk"
            );
        }
    }
}

#[test]
fn full_disk_refuses_a_commit_and_the_same_batch_fits_later() {
    let mut rng = Rng(3);
    let disk = CrashDisk::new();
    let (mut tree, ..) = open_in(&disk).expect("opens");
    let mut model = Model::new();
    let first = Changes::random(&mut rng, &model, 30);
    tree.commit(&first.batch()).expect("commits");
    first.apply(&mut model);
    disk.limit_space(Some(tree.stats().file_bytes + (40 << 10)));
    let mut refused = 0;
    for _ in 0..40 {
        let changes = Changes::random(&mut rng, &model, 60);
        let before = (tree.stats(), tree.current().txid());
        match tree.commit(&changes.batch()) {
            Ok(_) => {}
            Err(TreeError::NoSpace { .. }) => {
                refused += 1;
                let after = (tree.stats(), tree.current().txid());
                assert_eq!(before.1, after.1);
                assert_eq!(before.0.pages_high_water, after.0.pages_high_water);
                assert_holds(tree.current(), &model, &mut rng);
                disk.limit_space(None);
                tree.commit(&changes.batch()).expect("there is room now");
                disk.limit_space(Some(tree.stats().file_bytes + (40 << 10)));
            }
            Err(other) => panic!("{other}"),
        }
        changes.apply(&mut model);
        assert_holds(tree.current(), &model, &mut rng);
    }
    assert!(refused > 0, "the disk was full at least once");
    assert!(check(tree.current()).is_sound());
}

#[test]
fn both_roots_stay_whole_so_a_lost_newest_meta_costs_one_commit() {
    let story = story(21, 12);
    let disk = CrashDisk::new();
    let (mut tree, ..) = open_in(&disk).expect("opens");
    for (done, (changes, _)) in story.iter().enumerate() {
        let txid = tree.commit(&changes.batch()).expect("commits").txid();
        let damaged = disk.restart(Crash::KeepAll);
        damaged.damage("db", |bytes| bytes[(txid.0 % 2) as usize * 1024 + 20] ^= 1);
        let (_, snapshot, report) = open_in(&damaged).expect("opens");
        assert!(report.meta_invalid);
        assert_eq!(report.sums, SumsState::Verified);
        assert_eq!(snapshot.txid().0 + 1, txid.0);
        let empty = Model::new();
        let before = done.checked_sub(1).map_or(&empty, |n| &story[n].1);
        assert_holds(&snapshot, before, &mut Rng(2));
    }
}

#[test]
fn lost_newest_meta_in_mid_commit_still_leaves_the_root_before_it() {
    let story = story(31, 14);
    let whole = CrashDisk::new();
    let (mut tree, ..) = open_in(&whole).expect("opens");
    let mut began = Vec::new();
    for (changes, _) in &story {
        began.push(whole.operations());
        tree.commit(&changes.batch()).expect("commits");
    }
    began.push(whole.operations());
    for commit in 3..story.len() {
        // The last two operations write and sync the meta page, over the root this test falls back to.
        for at in began[commit]..began[commit + 1] - 2 {
            let disk = CrashDisk::new();
            disk.inject(Fault::PowerLoss { at });
            assert_eq!(run(&disk, &story), commit);
            for crash in [Crash::LoseAll, Crash::KeepAll, Crash::Subset(at)] {
                let disk = disk.restart(crash);
                let newest = commit as u64 + 1;
                disk.damage("db", |bytes| bytes[(newest % 2) as usize * 1024 + 20] ^= 1);
                let (_, snapshot, report) = open_in(&disk).expect("opens");
                assert_eq!(snapshot.txid().0, newest - 1);
                assert_eq!(
                    (report.meta_invalid, report.sums),
                    (true, SumsState::Verified)
                );
                assert_holds(&snapshot, &story[commit - 2].1, &mut Rng(2));
            }
        }
    }
}
