//! Damaged and hostile files: opening answers with an error that names the page, or with exactly the right data. Nothing
//! panics, hangs or reads out of bounds.

mod tree_support;

use storage::device::MemoryDisk;
use storage::tree::format::{ELEMENT_BYTES, Meta, PAGE_HEADER_BYTES};
use storage::tree::{PageNumber, Scrubber, SumsState, Tree, TreeError, WriteBatch, check};
use tree_support::{Bucket, Model, Rng, dump, open_in};

/// A file with a branch, several leaves, an overflow page and free pages, and what it and its predecessor hold.
fn small_file() -> (MemoryDisk, Model, Model) {
    let disk = MemoryDisk::new();
    let (mut tree, ..) = open_in(&disk).expect("creates");
    let keys: Vec<_> = (0..20u64)
        .map(|n| format!("key{n:03}").into_bytes())
        .collect();
    let mut batch = WriteBatch::new();
    for key in &keys {
        batch.put(b"key", key, &[3; 90]);
    }
    batch.put(b"meta", b"big", &[9; 1500]);
    tree.commit(&batch).expect("commits");
    let mut batch = WriteBatch::new();
    batch.delete(b"key", &keys[3]);
    let before = dump(&tree.commit(&batch).expect("commits"));
    let mut batch = WriteBatch::new();
    batch.put(b"key", b"key100", b"new");
    let now = dump(&tree.commit(&batch).expect("commits"));
    (disk, before, now)
}

fn with_bytes(disk: &MemoryDisk, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> MemoryDisk {
    let copy = disk.fork();
    let file = copy.file(name).expect("there");
    let mut bytes = file.contents();
    change(&mut bytes);
    file.set_contents(bytes);
    copy
}

#[test]
fn each_flipped_byte_of_the_tree_file_is_seen_or_harmless() {
    let (disk, before, now) = small_file();
    let len = disk.file("db").expect("there").contents().len();
    let (mut refused, mut fell_back) = (0, 0);
    for at in 0..len {
        let damaged = with_bytes(&disk, "db", |bytes| bytes[at] ^= 1 << (at % 8));
        match open_in(&damaged) {
            Ok((_, snapshot, report)) => {
                let wanted = if report.meta_invalid && snapshot.txid().0 == 3 {
                    fell_back += 1;
                    &before
                } else {
                    &now
                };
                assert!(dump(&snapshot) == *wanted, "byte {at}: wrong answer");
                assert!(check(&snapshot).is_sound(), "byte {at}");
            }
            Err(TreeError::Damaged { offset, .. }) => {
                refused += 1;
                assert_eq!(
                    offset,
                    at as u64 / 1024 * 1024,
                    "byte {at}: names another page"
                );
            }
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    // Every byte of every page in use but the metas is covered; a meta's own bytes lead to the root before.
    let in_use = check(&open_in(&disk).expect("opens").1).pages_used - 2;
    assert_eq!(refused, in_use * 1024);
    assert_eq!(fell_back, 64);
}

#[test]
fn each_flipped_byte_of_the_sums_is_repaired() {
    let (disk, _, now) = small_file();
    let len = disk.file("db.sum").expect("there").contents().len();
    assert_eq!(len, 3 * 512, "two headers and one sector of sums");
    for at in 0..len {
        let damaged = with_bytes(&disk, "db.sum", |bytes| bytes[at] ^= 1 << (at % 8));
        let (_, snapshot, report) = open_in(&damaged).expect("opens");
        assert!(dump(&snapshot) == now, "byte {at}");
        // The header of the newest transaction is in sector 0; the other is not needed.
        let wanted = match at / 512 {
            0 => SumsState::Rebuilt,
            2 => SumsState::SectorsRebuilt(1),
            _ => SumsState::Verified,
        };
        assert_eq!(report.sums, wanted, "byte {at}");
        assert_eq!(
            open_in(&damaged).expect("opens").2.sums,
            SumsState::Verified,
            "byte {at}"
        );
    }
}

#[test]
fn every_truncation_is_an_error_or_the_right_data() {
    let (disk, _, now) = small_file();
    let len = disk.file("db").expect("there").contents().len();
    for keep in (0..len).step_by(97).chain([1023, 1024, 2048, 3072]) {
        let cut = with_bytes(&disk, "db", |bytes| bytes.truncate(keep));
        match open_in(&cut) {
            Ok((_, snapshot, _)) if keep == 0 => assert!(dump(&snapshot).is_empty()),
            Ok((_, snapshot, _)) => assert!(dump(&snapshot) == now, "{keep} bytes"),
            Err(TreeError::Truncated { .. } | TreeError::NoMeta { .. }) => {}
            Err(other) => panic!("{keep} bytes: {other}"),
        }
    }
}

#[test]
fn wiped_roots_are_not_taken_for_a_new_file() {
    let (disk, ..) = small_file();
    let wiped = with_bytes(&disk, "db", |bytes| bytes[..2048].fill(0));
    assert!(matches!(open_in(&wiped), Err(TreeError::NoMeta { .. })));
    // Not even when all that follows them is short.
    let wiped = with_bytes(&wiped, "db", |bytes| bytes.truncate(3072));
    assert!(matches!(open_in(&wiped), Err(TreeError::NoMeta { .. })));
}

#[test]
fn scrub_finds_a_page_that_went_bad_in_service() {
    let dir = tempfile::tempdir().expect("scratch folder");
    let files = storage::tree::TreeFiles::open(dir.path()).expect("opens");
    let (mut tree, ..) = Tree::open(files, tree_support::small_options()).expect("creates");
    let keys: Vec<_> = (0..100u64).map(u64::to_be_bytes).collect();
    let mut batch = WriteBatch::new();
    for key in &keys {
        batch.put(b"key", key, &[1; 50]);
    }
    let snapshot = tree.commit(&batch).expect("commits");
    let leaf = snapshot
        .bucket(b"key")
        .expect("sound")
        .expect("there")
        .iter()
        .expect("sound");
    let page = leaf.page_number();
    // A shared map shows what anyone writes to the file, as it shows what a failing disk returned.
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join("db"))
        .expect("opens");
    file.write_all_at(&[0xFF], page.0 * 1024 + 900)
        .expect("writes");
    let mut scrubber = Scrubber::new();
    let mut found = Vec::new();
    loop {
        match scrubber.step(&tree, 3) {
            Ok(step) if step.round_done => break,
            Ok(_) => {}
            Err(TreeError::Damaged { damage, .. }) => found.push(damage.page),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(found, [page]);
}

/// Rewrites a page of a file without sums, so that structure alone has to be judged.
fn hostile(change: impl FnOnce(&mut Vec<u8>, Meta)) -> MemoryDisk {
    let (disk, ..) = small_file();
    let copy = with_bytes(&disk, "db", |bytes| {
        let meta = Meta::decode(&bytes[16..]).expect("newest meta is in page 0");
        assert_eq!(meta.txid.0, 4);
        change(bytes, meta);
    });
    copy.insert("db.sum", Vec::new());
    copy
}

#[track_caller]
fn refused(disk: &MemoryDisk) -> String {
    match open_in(disk) {
        Ok(_) => panic!("opened"),
        Err(error) => error.to_string(),
    }
}

/// The root page of bucket `key`, a branch.
fn branch_of(disk: &MemoryDisk) -> usize {
    let (_, snapshot, _) = open_in(disk).expect("opens");
    let root = snapshot
        .bucket(b"key")
        .expect("sound")
        .expect("there")
        .root()
        .expect("not inline");
    assert!(!snapshot.page(root).expect("sound").is_leaf());
    root.0 as usize * 1024
}

#[test]
fn hostile_pointers_are_refused() {
    let (disk, ..) = small_file();
    let branch = branch_of(&disk);
    let child_of = |slot: usize| branch + PAGE_HEADER_BYTES + slot * ELEMENT_BYTES + 8;
    let point = |slot: usize, to: u64| {
        hostile(|b, _| b[child_of(slot)..child_of(slot) + 8].copy_from_slice(&to.to_le_bytes()))
    };
    assert!(
        refused(&point(1, branch as u64 / 1024)).contains("reached twice"),
        "itself"
    );
    assert!(refused(&point(1, 0)).contains("outside"), "a meta page");
    assert!(refused(&point(1, u64::MAX)).contains("outside"), "far away");
    assert!(
        refused(&point(1, u64::MAX / 1024 + 1)).contains("outside"),
        "an offset that wraps"
    );
    let set = |at: usize, bytes: &'static [u8]| {
        hostile(move |b, _| b[branch + at..branch + at + bytes.len()].copy_from_slice(bytes))
    };
    assert!(
        refused(&set(10, &[0xFF, 0xFF])).contains("more elements"),
        "count"
    );
    assert!(
        refused(&set(10, &[0, 0])).contains("without children"),
        "no children"
    );
    assert!(
        refused(&set(12, &[0xFF, 0xFF, 0xFF, 0xFF])).contains("overflows"),
        "overflow"
    );
    assert!(
        refused(&set(8, &[4])).contains("neither a leaf nor a branch"),
        "kind"
    );
    assert!(
        refused(&set(16, &[0xFF, 0xFF, 0xFF, 0xFF])).contains("outside its bytes"),
        "key position"
    );
    assert!(
        refused(&set(20, &[0xFF, 0xFF, 0xFF, 0xFF])).contains("outside its bytes"),
        "key length"
    );
    // Metas whose checksums are right and whose contents are not.
    let with_meta = |change: fn(&mut Meta)| {
        hostile(|bytes, mut meta| {
            change(&mut meta);
            bytes[16..80].copy_from_slice(&meta.encode());
        })
    };
    for change in [
        (|m| m.root = PageNumber(1)) as fn(&mut Meta),
        |m| m.root = m.high_water,
        |m| m.high_water = PageNumber(u64::MAX),
        |m| m.high_water = PageNumber(1),
        |m| m.page_bytes = 1000,
        |m| m.page_bytes = 0,
        |m| m.freelist = u64::MAX - 1,
        |m| m.freelist = 1,
    ] {
        refused(&with_meta(change));
    }
}

#[test]
fn random_garbage_in_a_file_without_sums_never_panics() {
    let (disk, _, now) = small_file();
    let keys: Vec<Vec<u8>> = now.values().flat_map(Bucket::keys).cloned().collect();
    let mut opened = 0;
    for seed in 0..4000 {
        let mut rng = Rng(seed);
        let damaged = with_bytes(&disk, "db", |bytes| {
            for _ in 0..1 + rng.below(4) {
                let at = 2048 + rng.below(bytes.len() as u64 - 2048) as usize;
                // Small numbers and extremes reach deeper than noise.
                bytes[at] = [0, 1, 2, 3, 0x10, 0x7F, 0xFF, rng.next() as u8][rng.below(8) as usize];
            }
        });
        damaged.insert("db.sum", Vec::new());
        let Ok((mut tree, snapshot, _)) = open_in(&damaged) else {
            continue;
        };
        opened += 1;
        let _ = check(&snapshot);
        for name in now.keys() {
            let Ok(Some(bucket)) = snapshot.bucket(name) else {
                continue;
            };
            let mut records = 0;
            let mut cursor = bucket.iter().expect("checked at open");
            while let Ok(Some(_)) = cursor.next() {
                records += 1;
                assert!(records < 10_000);
            }
            for key in &keys {
                let _ = bucket.get(key);
            }
        }
        let mut batch = WriteBatch::new();
        batch.put(b"key", b"key050x", b"v");
        batch.delete(b"key", b"key001");
        if let Ok(snapshot) = tree.commit(&batch) {
            assert!(
                check(&snapshot).is_sound(),
                "seed {seed}: {:?}",
                check(&snapshot).problems
            );
        }
    }
    assert!(opened > 100, "some damage is only seen by sums");
}
