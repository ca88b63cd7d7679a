//! Everything a client can see of a store, for comparing a store with what it was before or is elsewhere.
//!
//! Read at every revision from the last compaction on, so history counts as much as the present. Names of members and terms
//! are not part of it.

use crate::pb::*;
use crate::random::Random;
use crate::raw::{self, Client};

/// A store as seen by a client.
#[derive(Debug, PartialEq)]
pub struct Content {
    pub revision: i64,
    /// The first revision that can still be read.
    pub first: i64,
    /// All keys at each readable revision.
    pub history: Vec<(i64, Vec<KeyValue>)>,
    /// What HashKV says of the whole history, at the present revision.
    pub hash: u32,
}

impl Content {
    /// Reads the whole store, from `first` on; everything below must be refused.
    pub async fn read(client: &mut Client, first: i64) -> Content {
        let now = client
            .range(&raw::get_all())
            .await
            .expect("a ready server answers");
        let revision = now.header.expect("a header").revision;
        let mut history = Vec::new();
        for revision in first..=revision {
            let all = client
                .range(&RangeRequest {
                    revision,
                    ..raw::get_all()
                })
                .await;
            history.push((revision, all.expect("a readable revision").kvs));
        }
        if 1 < first {
            let below = RangeRequest {
                revision: first - 1,
                ..raw::get_all()
            };
            let failure = client
                .range(&below)
                .await
                .expect_err("below the compaction");
            assert_eq!(
                failure.text,
                "etcdserver: mvcc: required revision has been compacted"
            );
        }
        let hash = client
            .hash_kv(revision)
            .await
            .expect("the present has a hash")
            .hash;
        Content {
            revision,
            first,
            history,
            hash,
        }
    }

    /// Says in one line what is here.
    pub fn describe(&self) -> String {
        let keys = self.history.last().map_or(0, |(_, kvs)| kvs.len());
        format!(
            "{keys} keys at revision {}, readable from {}",
            self.revision, self.first
        )
    }
}

/// Writes a bit of everything: overwrites, deletions, new lives, txns with several changes, empty and large values, odd keys;
/// compacts half of it away. Returns the first revision that can still be read.
pub async fn write_some(client: &mut Client, seed: u64) -> i64 {
    let mut random = Random::new(seed);
    let mut changes = 0;
    let mut first = 1;
    while changes < 240 {
        changes += 1;
        let key = key(&mut random);
        let revision = match random.below(10) {
            0..6 => {
                let value = value(&mut random);
                client
                    .put(&raw::put(key, value))
                    .await
                    .expect("a put")
                    .header
            }
            6..8 => {
                let end = if random.chance(1, 4) {
                    b"key 5".to_vec()
                } else {
                    Vec::new()
                };
                let delete = DeleteRangeRequest {
                    key,
                    range_end: end,
                    prev_kv: false,
                };
                client.delete_range(&delete).await.expect("a delete").header
            }
            _ => {
                let puts = (0..5).map(|i| raw::put(format!("txn {i}"), value(&mut random)));
                let ops = puts.map(|put| RequestOp {
                    request: Some(Request::Put(put)),
                });
                let txn = TxnRequest {
                    success: ops.collect(),
                    ..Default::default()
                };
                client.txn(&txn).await.expect("a txn").header
            }
        };
        if changes == 120 {
            first = revision.expect("a header").revision;
            let compact = CompactionRequest {
                revision: first,
                physical: true,
            };
            client.compact(&compact).await.expect("a compaction");
        }
    }
    // The present lies above the compaction, where HashKV has one meaning.
    client
        .put(&raw::put("last", "of all"))
        .await
        .expect("a put");
    first
}

fn key(random: &mut Random) -> Vec<u8> {
    match random.below(12) {
        0 => b"\0".to_vec(),
        1 => b"\xff\xff".to_vec(),
        2 => vec![b'k'; 3000],
        _ => format!("key {}", random.below(40)).into_bytes(),
    }
}

fn value(random: &mut Random) -> Vec<u8> {
    let size = match random.below(20) {
        0 => 0,
        // More than a page of the tree, and many pages.
        1 => 5000,
        2 => 90_000,
        _ => 1 + random.below(300) as usize,
    };
    (0..size).map(|_| random.word() as u8).collect()
}
