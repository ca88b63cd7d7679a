//! What the tree's tests share: a model of a file's buckets, random batches, and comparing the two.
//!
//! The model is a map of maps. Everything is driven by seeds, so a failing case repeats.
#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::BTreeMap;

use storage::tree::{Snapshot, Tree, TreeError, TreeFiles, TreeOptions, WriteBatch, check};

pub type Bucket = BTreeMap<Vec<u8>, Vec<u8>>;
pub type Model = BTreeMap<Vec<u8>, Bucket>;

/// Small pages and steps, so that small files have many pages and grow often.
pub fn small_options() -> TreeOptions {
    TreeOptions {
        page_bytes: 1024,
        map_bytes: 1 << 20,
        grow_bytes: 8 << 10,
        ..Default::default()
    }
}

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Owned changes, so that batches can be made, kept and replayed.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    pub ops: Vec<Op>,
}

#[derive(Debug, Clone)]
pub enum Op {
    Create(Vec<u8>),
    Clear(Vec<u8>),
    Put(Vec<u8>, Vec<u8>, Vec<u8>),
    Delete(Vec<u8>, Vec<u8>),
}

impl Changes {
    pub fn batch(&self) -> WriteBatch<'_> {
        let mut batch = WriteBatch::new();
        for op in &self.ops {
            match op {
                Op::Create(bucket) => batch.create_bucket(bucket),
                Op::Clear(bucket) => batch.delete_all(bucket),
                Op::Put(bucket, key, value) => batch.put(bucket, key, value),
                Op::Delete(bucket, key) => batch.delete(bucket, key),
            }
        }
        batch
    }

    pub fn apply(&self, model: &mut Model) {
        for op in &self.ops {
            match op {
                Op::Create(bucket) => drop(model.entry(bucket.clone()).or_default()),
                Op::Clear(bucket) => model.entry(bucket.clone()).or_default().clear(),
                Op::Put(bucket, key, value) => {
                    model
                        .entry(bucket.clone())
                        .or_default()
                        .insert(key.clone(), value.clone());
                }
                Op::Delete(bucket, key) => {
                    model.entry(bucket.clone()).or_default().remove(key);
                }
            }
        }
    }

    /// Mixed work: appends at the right edge, scattered puts and deletes, sometimes large values and emptied buckets.
    pub fn random(rng: &mut Rng, model: &Model, ops: usize) -> Changes {
        let mut out = Changes::default();
        let mut at_edge = model
            .get(b"key".as_slice())
            .and_then(|b| b.last_key_value())
            .map_or(0, |(k, _)| {
                u64::from_be_bytes(k[..8].try_into().expect("8 bytes")) + 1
            });
        for _ in 0..ops {
            let small = format!("b{}", rng.below(4)).into_bytes();
            let value_len = match rng.below(40) {
                0 => rng.below(5000),
                1 => 0,
                _ => rng.below(120),
            } as usize;
            match rng.below(20) {
                0..8 => {
                    let mut key = at_edge.to_be_bytes().to_vec();
                    key.extend(b"_suffix");
                    at_edge += 1 + rng.below(3);
                    out.ops
                        .push(Op::Put(b"key".to_vec(), key, rng.bytes(value_len)));
                }
                8..12 => {
                    let bucket = model.get(b"key".as_slice());
                    let Some(bucket) = bucket.filter(|b| !b.is_empty()) else {
                        continue;
                    };
                    let skip = rng.below(bucket.len() as u64) as usize;
                    for key in bucket.keys().skip(skip).take(1 + rng.below(8) as usize) {
                        out.ops.push(Op::Delete(b"key".to_vec(), key.clone()));
                    }
                }
                12..17 => {
                    let key_len_max = if rng.below(15) == 0 { 600 } else { 12 };
                    let key_len = 1 + rng.below(key_len_max) as usize;
                    let key = rng.bytes(key_len);
                    out.ops.push(Op::Put(small, key, rng.bytes(value_len)));
                }
                17..19 => {
                    let bucket = model.get(&small);
                    let Some(bucket) = bucket.filter(|b| !b.is_empty()) else {
                        continue;
                    };
                    let at = rng.below(bucket.len() as u64) as usize;
                    let key = bucket.keys().nth(at).expect("in range").clone();
                    out.ops.push(Op::Delete(small, key));
                }
                _ if rng.below(6) == 0 => out.ops.push(Op::Clear(small)),
                _ => out.ops.push(Op::Create(small)),
            }
        }
        out
    }
}

/// Everything in the file, read through cursors.
pub fn dump(snapshot: &Snapshot) -> Model {
    let mut model = Model::new();
    let mut names = snapshot.root_bucket().iter().expect("sound file");
    while let Some(element) = names.next_element().expect("sound file") {
        assert!(element.is_bucket());
        let bucket = snapshot
            .bucket(element.key)
            .expect("sound file")
            .expect("listed");
        let mut records = Bucket::new();
        let mut cursor = bucket.iter().expect("sound file");
        while let Some((key, value)) = cursor.next().expect("sound file") {
            records.insert(key.to_vec(), value.to_vec());
        }
        model.insert(element.key.to_vec(), records);
    }
    model
}

/// The snapshot holds the model, every page is accounted for, and point reads and seeks agree with scans.
pub fn assert_holds(snapshot: &Snapshot, model: &Model, rng: &mut Rng) {
    let report = check(snapshot);
    assert!(
        report.is_sound(),
        "txid {}: {:?}",
        snapshot.txid(),
        report.problems
    );
    let found = dump(snapshot);
    assert!(found == *model, "txid {}: contents differ", snapshot.txid());
    for (name, records) in model {
        let bucket = snapshot
            .bucket(name)
            .expect("sound")
            .expect("bucket is there");
        let last = bucket
            .last()
            .expect("sound")
            .map(|(k, v)| (k.to_vec(), v.to_vec()));
        assert_eq!(
            last,
            records
                .last_key_value()
                .map(|(k, v)| (k.clone(), v.clone()))
        );
        for _ in 0..4 {
            let probe = match records.len() {
                0 => rng.bytes(5),
                n if rng.below(2) == 0 => records
                    .keys()
                    .nth(rng.below(n as u64) as usize)
                    .expect("in range")
                    .clone(),
                _ => rng.bytes(5),
            };
            assert_eq!(
                bucket.get(&probe).expect("sound"),
                records.get(&probe).map(Vec::as_slice)
            );
            let mut cursor = bucket.range(&probe).expect("sound");
            let wanted = records.range(probe..).next();
            let next = cursor.next().expect("sound");
            assert_eq!(next, wanted.map(|(k, v)| (k.as_slice(), v.as_slice())));
        }
    }
}

pub fn open_in(
    folder: &dyn storage::device::Directory,
) -> Result<(Tree, Snapshot, storage::tree::OpenReport), TreeError> {
    Tree::open(TreeFiles::open_in(folder)?, small_options())
}
