//! Makes steps from a seed: ordinary requests, edges of every field, and requests that must be refused.
//!
//! The choices depend on the seed alone; only revisions are chosen relative to where the servers stand, so a seed means the
//! same on a fresh pair as in the middle of a long run. Keys come from a small set, so steps meet each other's traces.
//!
//! Deliberately not made: a txn that deletes with range end `\0` and then puts with ignore_value or ignore_lease, because a
//! real etcd stops on it. `limits_and_errors` checks the subject's answer to that alone.

use pilaster_tests::lease::*;
use pilaster_tests::pb::*;
use pilaster_tests::random::Random;

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Range(RangeRequest),
    RangeStream(RangeRequest),
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    HashKv(HashKvRequest),
    Grant(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
    TimeToLive(LeaseTimeToLiveRequest),
    Leases,
    KeepAlive(LeaseKeepAliveRequest),
}

/// Where both servers stand before a step.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// Current revision.
    pub revision: i64,
    /// Last compacted revision; -1 before the first compaction.
    pub compacted: i64,
    /// Current revision when the sequence began.
    pub start: i64,
}

const KEYS: &[&[u8]] = &[
    b"k0",
    b"k1",
    b"k2",
    b"k3",
    b"k4",
    b"k5",
    b"k",
    b"k1\0",
    b"k1x",
    b"a",
    b"\xff",
    b"\xff\xff",
    b"\0",
    b"z",
];
const VALUES: &[&[u8]] = &[
    b"",
    b"a",
    b"b",
    b"b",
    b"c",
    b"\0\xff\n",
    b"a longer value, to move things",
];
/// Every lease that a sequence may grant.
pub const LEASES: &[i64] = &[7, 1, 2, -4, i64::MAX];
/// Above the limit for a stored request, below that for a message.
const TOO_LARGE: usize = 1_600_000;
/// Above the limit for a message.
const FAR_TOO_LARGE: usize = 2_200_000;

/// The first step of every sequence: an empty store, whatever came before.
pub fn clear() -> Step {
    Step::DeleteRange(DeleteRangeRequest {
        key: vec![0],
        range_end: vec![0],
        prev_kv: false,
    })
}

pub fn step(random: &mut Random, world: World) -> Step {
    match random.below(100) {
        0..30 => Step::Put(put(random)),
        30..42 => Step::Range(range(random, world)),
        42..58 => lease_step(random),
        58..63 => Step::RangeStream(streamed_range(random, world)),
        63..72 => Step::DeleteRange(delete_range(random)),
        72..95 => Step::Txn(txn(random, world)),
        95..99 => Step::Compact(compact(random, world)),
        _ => Step::HashKv(hash_kv(random, world)),
    }
}

fn key(random: &mut Random) -> Vec<u8> {
    if random.chance(1, 80) {
        return Vec::new();
    }
    // The first few keys are met often.
    let among = if random.chance(3, 4) { 6 } else { KEYS.len() };
    random.pick(&KEYS[..among]).to_vec()
}

fn range_end(random: &mut Random) -> Vec<u8> {
    match random.below(10) {
        0..3 => Vec::new(),
        3..5 => vec![0],
        5..7 => b"l".to_vec(),
        _ => random.pick(KEYS).to_vec(),
    }
}

fn revision(random: &mut Random, world: World) -> i64 {
    match random.below(16) {
        0 => -1,
        1 => -2 - random.below(5) as i64,
        2 => world.compacted - 1,
        3 => world.compacted,
        4 => world.compacted + 1,
        5 => world.revision + 1,
        6 => world.revision + 1 + random.below(100) as i64,
        7 => i64::MAX,
        8 => world.start,
        9 => 0,
        _ => world.revision - random.below(8) as i64,
    }
}

/// A bound for a revision filter: mostly near, sometimes absurd.
fn filter(random: &mut Random, world: World) -> i64 {
    match random.below(20) {
        0 => revision(random, world),
        1..4 => world.revision - random.below(6) as i64,
        _ => 0,
    }
}

fn range(random: &mut Random, world: World) -> RangeRequest {
    let is_sorted = random.chance(1, 2);
    let mut sorting = |bound: u64| {
        let number = random.below(bound) as i32;
        let odd = random.chance(1, 60);
        if odd {
            *random.pick(&[-1, 9, i32::MAX])
        } else {
            number
        }
    };
    let (sort_order, sort_target) = if is_sorted {
        (sorting(3), sorting(5))
    } else {
        (0, 0)
    };
    RangeRequest {
        key: key(random),
        range_end: range_end(random),
        limit: match random.below(10) {
            0..6 => 0,
            6 => *random.pick(&[-1, i64::MIN, i64::MAX]),
            _ => 1 + random.below(5) as i64,
        },
        revision: if random.chance(1, 3) {
            revision(random, world)
        } else {
            0
        },
        sort_order,
        sort_target,
        serializable: random.chance(1, 3),
        keys_only: random.chance(1, 6),
        count_only: random.chance(1, 8),
        min_mod_revision: filter(random, world),
        max_mod_revision: filter(random, world),
        min_create_revision: filter(random, world),
        max_create_revision: filter(random, world),
    }
}

/// A stream refuses sorts and filters, so most are made without.
fn streamed_range(random: &mut Random, world: World) -> RangeRequest {
    let mut range = range(random, world);
    if random.chance(9, 10) {
        (range.sort_order, range.sort_target) = (random.below(2) as i32, 0);
        (range.min_mod_revision, range.max_mod_revision) = (0, 0);
        (range.min_create_revision, range.max_create_revision) = (0, 0);
    }
    // A target without an order makes etcd repeat or lose keys between chunks; that answer is not copied.
    if range.sort_order == 0 && (1..=4).contains(&range.sort_target) {
        range.sort_target = 0;
    }
    range
}

fn put(random: &mut Random) -> PutRequest {
    let ignore_value = random.chance(1, 10);
    let keeps_value = ignore_value && random.chance(1, 8);
    let value = match random.below(600) {
        0 => vec![b'v'; TOO_LARGE],
        1 => vec![b'v'; FAR_TOO_LARGE],
        _ => random.pick(VALUES).to_vec(),
    };
    PutRequest {
        key: key(random),
        value: if ignore_value && !keeps_value {
            Vec::new()
        } else {
            value
        },
        lease: if random.chance(1, 3) {
            lease(random)
        } else {
            0
        },
        prev_kv: random.chance(1, 3),
        ignore_value,
        ignore_lease: random.chance(1, 10),
    }
}

/// A lease that may exist, now and then one that never does.
fn lease(random: &mut Random) -> i64 {
    match random.below(12) {
        0 => *random.pick(&[12345, i64::MIN, -1]),
        1..6 => LEASES[0],
        _ => *random.pick(LEASES),
    }
}

/// Each lease has a time to live of its own and none ends during the run, so lists have one order.
fn lease_step(random: &mut Random) -> Step {
    let id = lease(random);
    let place = LEASES.iter().position(|lease| *lease == id);
    let ttl = match random.below(30) {
        0 => 9_000_000_001,
        1 => i64::MAX,
        _ => 100_000 * (1 + place.unwrap_or(0) as i64),
    };
    match random.below(20) {
        0..8 if place.is_some() => Step::Grant(LeaseGrantRequest { ttl, id }),
        0..12 => Step::Revoke(LeaseRevokeRequest { id }),
        12..17 => Step::TimeToLive(LeaseTimeToLiveRequest {
            id,
            keys: random.chance(3, 4),
        }),
        17..19 => Step::KeepAlive(LeaseKeepAliveRequest { id }),
        _ => Step::Leases,
    }
}

fn delete_range(random: &mut Random) -> DeleteRangeRequest {
    let single = random.chance(1, 2);
    DeleteRangeRequest {
        key: key(random),
        range_end: if single {
            Vec::new()
        } else {
            range_end(random)
        },
        prev_kv: random.chance(1, 2),
    }
}

fn compact(random: &mut Random, world: World) -> CompactionRequest {
    CompactionRequest {
        revision: revision(random, world),
        physical: random.chance(1, 4),
    }
}

/// Only above the compacted revision: at it the answer depends on how far a background job has come.
fn hash_kv(random: &mut Random, world: World) -> HashKvRequest {
    let back = random.below(4) as i64;
    let revision = if back == 3 {
        world.revision + 5
    } else {
        world.revision - back
    };
    HashKvRequest {
        revision: if revision <= world.compacted {
            world.revision + 1
        } else {
            revision
        },
    }
}

fn txn(random: &mut Random, world: World) -> TxnRequest {
    let mut txn = match random.below(60) {
        0 => long_txn(random),
        _ => branchy_txn(random, world, 0),
    };
    if deletes_to_the_end(&txn) {
        forget_ignores(&mut txn);
    }
    txn
}

fn branchy_txn(random: &mut Random, world: World, depth: u32) -> TxnRequest {
    let compares = random.below(3);
    let mut ops = |most: u64| {
        let count = random.below(most);
        (0..count)
            .map(|_| op(random, world, depth))
            .collect::<Vec<_>>()
    };
    let (success, failure) = (ops(5), ops(4));
    TxnRequest {
        compare: (0..compares).map(|_| compare(random, world)).collect(),
        success,
        failure,
    }
}

fn op(random: &mut Random, world: World, depth: u32) -> RequestOp {
    let request = match random.below(300) {
        0 => None,
        1..120 => Some(Request::Put(put_in_txn(random))),
        120..195 => Some(Request::Range(range(random, world))),
        195..246 => Some(Request::DeleteRange(delete_range(random))),
        _ if depth < 3 => Some(Request::Txn(branchy_txn(random, world, depth + 1))),
        _ => Some(Request::Put(put_in_txn(random))),
    };
    RequestOp { request }
}

/// Without the huge values: one of them per step is enough.
fn put_in_txn(random: &mut Random) -> PutRequest {
    let mut put = put(random);
    put.value.truncate(40);
    // A refused operation refuses its whole txn; in most of them nothing is refused.
    if random.chance(4, 5) {
        (put.ignore_value, put.ignore_lease) = (false, false);
        put.lease = if random.chance(1, 3) { LEASES[0] } else { 0 };
    }
    put
}

fn compare(random: &mut Random, world: World) -> Compare {
    let target = random.below(5) as i32;
    let number = match random.below(4) {
        0 => 0,
        1 => random.below(4) as i64,
        _ => world.revision - random.below(6) as i64,
    };
    let kind = if random.chance(1, 12) {
        random.below(6) as i32
    } else {
        target
    };
    let wanted = match kind {
        0 => Some(Wanted::Version(random.below(4) as i64)),
        1 => Some(Wanted::CreateRevision(number)),
        2 => Some(Wanted::ModRevision(number)),
        3 => Some(Wanted::Value(random.pick(VALUES).to_vec())),
        4 => Some(Wanted::Lease(if random.chance(1, 2) {
            0
        } else {
            lease(random)
        })),
        _ => None,
    };
    let is_range = random.chance(1, 3);
    let odd = random.chance(1, 40);
    Compare {
        result: if odd { 9 } else { random.below(4) as i32 },
        target: if odd && random.chance(1, 2) {
            7
        } else {
            target
        },
        key: key(random),
        wanted,
        range_end: if is_range {
            range_end(random)
        } else {
            Vec::new()
        },
    }
}

/// Around the limit of 128 operations, flat or with part of them one level down.
fn long_txn(random: &mut Random) -> TxnRequest {
    let puts = |from: u64, to: u64| -> Vec<RequestOp> {
        let put = |i| PutRequest {
            key: format!("k{i}").into_bytes(),
            ..Default::default()
        };
        (from..to)
            .map(|i| RequestOp {
                request: Some(Request::Put(put(i))),
            })
            .collect()
    };
    let total = 126 + random.below(5);
    let inner = if random.chance(1, 2) {
        random.below(60)
    } else {
        0
    };
    let mut success = puts(inner, total);
    if 0 < inner {
        let nested = TxnRequest {
            success: puts(0, inner),
            ..Default::default()
        };
        success.truncate(success.len() - 1);
        success.push(RequestOp {
            request: Some(Request::Txn(nested)),
        });
    }
    TxnRequest {
        success,
        ..Default::default()
    }
}

fn deletes_to_the_end(txn: &TxnRequest) -> bool {
    txn.success
        .iter()
        .chain(&txn.failure)
        .any(|op| match &op.request {
            Some(Request::DeleteRange(delete)) => delete.range_end == [0],
            Some(Request::Txn(inner)) => deletes_to_the_end(inner),
            _ => false,
        })
}

fn forget_ignores(txn: &mut TxnRequest) {
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(Request::Put(put)) => (put.ignore_value, put.ignore_lease) = (false, false),
            Some(Request::Txn(inner)) => forget_ignores(inner),
            _ => {}
        }
    }
}
