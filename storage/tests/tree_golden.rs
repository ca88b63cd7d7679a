//! Pins the bytes of our own files, and every page size that can be read.
//!
//! `UPDATE_GOLDEN=1 cargo test -p storage --test tree_golden` writes the golden files anew; a change of them is a change
//! of format and belongs into `docs/format-tree.md` or `docs/format-sums.md`.

mod tree_support;

use storage::device::MemoryDisk;
use storage::tree::{SumsState, Tree, TreeFiles, TreeOptions, WriteBatch, check};
use tree_support::{dump, open_in};

const GOLDEN_DB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/tree/own.db");
const GOLDEN_SUMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/tree/own.db.sum");

/// Two commits with branches, an overflow page, an empty bucket and freed pages.
fn write_fixed(tree: &mut Tree) {
    let keys: Vec<_> = (0..25u64).map(u64::to_be_bytes).collect();
    let values: Vec<_> = keys.iter().map(|key| key.repeat(11)).collect();
    let mut batch = WriteBatch::new();
    for (key, value) in keys.iter().zip(&values) {
        batch.put(b"key", key, value);
    }
    batch.create_bucket(b"lease");
    batch.put(b"meta", b"consistent_index", &keys[24]);
    batch.put(b"meta", b"large", &[0x5A; 1200]);
    tree.commit(&batch).expect("commits");
    let mut batch = WriteBatch::new();
    batch.delete(b"key", &keys[7]);
    batch.put(b"meta", b"consistent_index", b"12345678");
    tree.commit(&batch).expect("commits");
}

#[test]
fn own_files_have_the_bytes_they_always_had() {
    let disk = MemoryDisk::new();
    let (mut tree, ..) = open_in(&disk).expect("creates");
    write_fixed(&mut tree);
    let mut db = disk.file("db").expect("there").contents();
    db.truncate(tree.stats().high_water_bytes() as usize);
    let sums = disk.file("db.sum").expect("there").contents();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN_DB, &db).expect("writes");
        std::fs::write(GOLDEN_SUMS, &sums).expect("writes");
    }
    assert!(
        db == std::fs::read(GOLDEN_DB).expect("golden file"),
        "the tree file changed"
    );
    assert!(
        sums == std::fs::read(GOLDEN_SUMS).expect("golden file"),
        "the side file changed"
    );
}

#[test]
fn golden_files_open_verified() {
    let disk = MemoryDisk::new();
    disk.insert("db", std::fs::read(GOLDEN_DB).expect("golden file"));
    disk.insert("db.sum", std::fs::read(GOLDEN_SUMS).expect("golden file"));
    let (_, snapshot, report) = open_in(&disk).expect("opens");
    assert_eq!(report.sums, SumsState::Verified);
    assert_eq!(dump(&snapshot)[b"key".as_slice()].len(), 24);
}

#[test]
fn every_page_size_of_the_format_works() {
    let sizes = (10..=16).map(|bits| 1 << bits).chain([1 << 20]);
    let mut contents = Vec::new();
    for page_bytes in sizes {
        let disk = MemoryDisk::new();
        let options = TreeOptions {
            page_bytes,
            grow_bytes: 4096,
            ..TreeOptions::default()
        };
        let open = |options: &TreeOptions| {
            Tree::open(TreeFiles::open_in(&disk).expect("opens"), options.clone()).expect("opens")
        };
        let (mut tree, ..) = open(&options);
        write_fixed(&mut tree);
        drop(tree);
        // The size is the file's, whatever the options say now.
        let (_, snapshot, report) = open(&TreeOptions::default());
        assert_eq!(
            (report.page_bytes, report.sums),
            (page_bytes, SumsState::Verified)
        );
        assert!(check(&snapshot).is_sound());
        contents.push(dump(&snapshot));
        // With the first meta page gone the second is found by trying the sizes.
        let file = disk.file("db").expect("there");
        let mut bytes = file.contents();
        bytes[..512].fill(0xEE);
        file.set_contents(bytes);
        let (_, _, report) = open(&TreeOptions::default());
        assert_eq!((report.page_bytes, report.meta_invalid), (page_bytes, true));
    }
    assert!(contents.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn largest_page_size_works() {
    let disk = MemoryDisk::new();
    let options = TreeOptions {
        page_bytes: 1 << 24,
        ..TreeOptions::default()
    };
    let open = || Tree::open(TreeFiles::open_in(&disk).expect("opens"), options.clone());
    drop(open().expect("creates"));
    let (_, snapshot, report) = open().expect("opens");
    assert_eq!(
        (report.page_bytes, report.sums),
        (1 << 24, SumsState::Verified)
    );
    assert!(dump(&snapshot).is_empty());
}
