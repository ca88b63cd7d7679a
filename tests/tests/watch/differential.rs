//! The same made-up sequences of writes, compactions and watches on etcd 3.7.1 and the subject: every watcher is told the
//! same events, every request has the same answer.
//!
//! What may differ is left out by construction: how many revisions share a message, and when a watcher that reads history
//! is told. So events are compared by watcher, and before anything whose effect depends on how far watchers are (a
//! compaction, a cancel) both sides come to rest: a progress answer, which a server gives when every watcher of the
//! stream has everything.

use std::collections::BTreeSet;

use pilaster_tests::pb::*;
use pilaster_tests::random::Random;
use pilaster_tests::watch::{Log, Union, WatchCancel, WatchCreate, WatchResponse, WatchStream};
use pilaster_tests::{Client, Kind, Options, Server, kind, raw};

const SEQUENCES: u64 = 60;
const STEPS: usize = 60;
const STREAMS: usize = 3;

#[test]
fn watchers_are_told_what_etcd_tells_them() {
    if kind::peer("3.7.1/etcd").is_none() {
        return;
    }
    let seed = std::env::var("PILASTER_SEED").ok();
    let seed: Option<u64> = seed.map(|seed| seed.parse().expect("PILASTER_SEED is a number"));
    let (first, count) = match seed {
        Some(seed) => (seed, 1),
        None => (u64::from(std::process::id()) << 20, SEQUENCES),
    };
    let mut pair = [
        Server::start(Options::new(Kind::Etcd371)),
        Server::start(Options::new(Kind::subject())),
    ];
    let mut seen = Seen::default();
    for seed in first..first + count {
        println!("replay: PILASTER_SEED={seed} cargo xtask suite watch differential");
        raw::block_on(run(&mut pair, seed, &mut seen));
    }
    println!("{seen:?}");
    assert!(
        count == 1 || (seen.events > 1000 && seen.compacted > 10 && seen.refused > 10),
        "{seen:?}"
    );
}

#[derive(Default, Debug)]
struct Seen {
    events: usize,
    watchers: usize,
    compacted: usize,
    refused: usize,
}

/// One server in a sequence.
struct Side {
    client: Client,
    streams: Vec<WatchStream>,
    logs: Vec<Log>,
}

/// What the sequence knows of the watchers of a stream.
#[derive(Default)]
struct Known {
    /// Watchers by id, with the revision they begin at.
    open: Vec<(i64, i64)>,
    compacted: BTreeSet<i64>,
}

async fn run(servers: &mut [Server; 2], seed: u64, seen: &mut Seen) {
    let mut random = Random::new(seed);
    // A key space of its own, so that servers are used again; revisions are compared as they are.
    let space = format!("{seed}/");
    let mut sides = Vec::new();
    for server in servers.iter() {
        let client = Client::connect(server).await;
        sides.push(Side {
            streams: (0..STREAMS).map(|_| WatchStream::open(&client)).collect(),
            logs: (0..STREAMS).map(|_| Log::default()).collect(),
            client,
        });
    }
    let mut known: Vec<Known> = (0..STREAMS).map(|_| Known::default()).collect();
    let (mut revision, mut compacted) = revisions(&mut sides).await;
    let first = revision;
    for _ in 0..STEPS {
        match random.below(20) {
            0..9 => revision = write(&mut sides, &mut random, &space).await,
            9..16 => {
                let stream = random.below(STREAMS as u64) as usize;
                let request = request(&mut random, &space, (first, revision, compacted));
                let answers = create(&mut sides, stream, &request).await;
                seen.watchers += 1;
                if answers.canceled {
                    seen.refused += 1;
                    continue;
                }
                let from = request.start_revision;
                known[stream].open.push((answers.watch_id, from));
                if 0 < from && from < compacted {
                    seen.compacted += 1;
                    known[stream].compacted.insert(answers.watch_id);
                    await_end(&mut sides, stream, answers.watch_id).await;
                }
            }
            16 | 17 => {
                let stream = random.below(STREAMS as u64) as usize;
                rest(&mut sides, &mut known, revision).await;
                if known[stream].open.is_empty() {
                    continue;
                }
                let place = random.below(known[stream].open.len() as u64) as usize;
                let (watch_id, _) = known[stream].open.swap_remove(place);
                known[stream].compacted.remove(&watch_id);
                cancel(&mut sides, stream, watch_id).await;
            }
            18 if first < revision => {
                rest(&mut sides, &mut known, revision).await;
                let at = compacted.max(first)
                    + random.below((revision - compacted.max(first) + 1) as u64) as i64;
                let request = CompactionRequest {
                    revision: at,
                    physical: random.chance(1, 2),
                };
                let mut answers = Vec::new();
                for side in &mut sides {
                    answers.push(side.client.compact(&request).await.is_ok());
                }
                assert_eq!(answers[0], answers[1], "compaction at {at}");
                if answers[0] {
                    compacted = at;
                }
            }
            _ => rest(&mut sides, &mut known, revision).await,
        }
    }
    rest(&mut sides, &mut known, revision).await;
    for stream in 0..STREAMS {
        let told = [0, 1].map(|side: usize| {
            let log = &mut sides[side].logs[stream];
            for watch_id in log.events.keys().copied().collect::<Vec<_>>() {
                log.retire(watch_id);
            }
            let mut told = std::mem::take(&mut log.retired);
            // Who had no events may or may not be listed.
            told.retain(|(_, events)| !events.is_empty());
            (told, std::mem::take(&mut log.ended))
        });
        let [(etcd, etcd_ended), (subject, subject_ended)] = told;
        assert_eq!(etcd_ended, subject_ended, "stream {stream}");
        for ((watch_id, events), (our_id, ours)) in etcd.iter().zip(&subject) {
            assert_eq!(watch_id, our_id, "stream {stream}");
            seen.events += events.len();
            let place = events
                .iter()
                .zip(ours)
                .position(|(etcd, ours)| etcd != ours);
            if place.is_some() || events.len() != ours.len() {
                let place = place.unwrap_or(events.len().min(ours.len()));
                panic!(
                    "stream {stream}, watcher {watch_id}: {} events on etcd, {} here; the first that differs is number {place}: {:?}, {:?}",
                    events.len(),
                    ours.len(),
                    events.get(place),
                    ours.get(place)
                );
            }
        }
        assert_eq!(etcd.len(), subject.len(), "stream {stream}");
    }
}

/// The revision both are at, and the compact revision as far as this test knows; a fresh sequence begins behind it.
async fn revisions(sides: &mut [Side]) -> (i64, i64) {
    let mut found = Vec::new();
    for side in sides.iter_mut() {
        let reply = side.client.range(&raw::get("nothing")).await;
        found.push(reply.expect("a read").header.expect("a header").revision);
    }
    assert_eq!(found[0], found[1], "both have seen the same");
    // Compacting here makes the compact revision known.
    for side in sides.iter_mut() {
        let request = CompactionRequest {
            revision: found[0],
            physical: false,
        };
        // At the first sequence, and after one that ended with a compaction, it is there already.
        let _ = side.client.compact(&request).await;
    }
    (found[0], found[0])
}

async fn write(sides: &mut [Side], random: &mut Random, space: &str) -> i64 {
    let key = |random: &mut Random| format!("{space}{}", random.below(8)).into_bytes();
    let count = if random.chance(1, 4) {
        2 + random.below(4)
    } else {
        1
    };
    let mut keys = BTreeSet::new();
    let mut ops = Vec::new();
    for _ in 0..count {
        let key = key(random);
        if !keys.insert(key.clone()) {
            continue;
        }
        let request = if random.chance(1, 4) {
            Request::DeleteRange(DeleteRangeRequest {
                key,
                ..Default::default()
            })
        } else {
            let value = vec![b'v'; random.below(200) as usize];
            Request::Put(raw::put(key, value))
        };
        ops.push(RequestOp {
            request: Some(request),
        });
    }
    let txn = TxnRequest {
        success: ops,
        ..Default::default()
    };
    let mut revisions = Vec::new();
    for side in sides.iter_mut() {
        let reply = side.client.txn(&txn).await.expect("a txn");
        revisions.push(reply.header.expect("a header").revision);
    }
    assert_eq!(revisions[0], revisions[1]);
    revisions[0]
}

fn request(
    random: &mut Random,
    space: &str,
    (first, now, compacted): (i64, i64, i64),
) -> WatchCreate {
    let key = format!("{space}{}", random.below(8)).into_bytes();
    let range_end = match random.below(8) {
        0..3 => Vec::new(),
        3 => vec![0],
        4..7 => format!("{space}{}", random.below(10)).into_bytes(),
        _ => format!("{space}~").into_bytes(),
    };
    let start_revision = match random.below(10) {
        0..3 => 0,
        3 => -(random.below(3) as i64) - 1,
        4 => now + 1 + random.below(4) as i64,
        5 => (compacted - random.below(5) as i64).max(1),
        _ => first + random.below((now - first + 1) as u64) as i64,
    };
    let filters = match random.below(8) {
        0 => vec![0],
        1 => vec![1],
        2 => vec![0, 1],
        3 => vec![7],
        _ => Vec::new(),
    };
    WatchCreate {
        key,
        range_end,
        start_revision,
        progress_notify: random.chance(1, 4),
        filters,
        prev_kv: random.chance(1, 2),
        watch_id: if random.chance(1, 3) {
            random.below(6) as i64 - 1
        } else {
            0
        },
        fragment: random.chance(1, 4),
    }
}

/// Sends the request to both and gives the answer, which must be the same.
async fn create(sides: &mut [Side], stream: usize, request: &WatchCreate) -> WatchResponse {
    let mut answers = Vec::new();
    for side in sides.iter_mut() {
        side.streams[stream].send(Union::Create(request.clone()));
        answers.push(answer(side, stream, |message| message.created).await);
    }
    assert_eq!(answers[0], answers[1], "{request:?}");
    answers.remove(0)
}

async fn cancel(sides: &mut [Side], stream: usize, watch_id: i64) {
    let mut answers = Vec::new();
    for side in sides.iter_mut() {
        side.streams[stream].send(Union::Cancel(WatchCancel { watch_id }));
        answers.push(answer(side, stream, |message| message.canceled).await);
        side.logs[stream].retire(watch_id);
    }
    assert_eq!(answers[0], answers[1]);
}

/// The next control message; events before it go to the log. Ids, terms and cluster are not compared.
async fn answer(
    side: &mut Side,
    stream: usize,
    wanted: impl Fn(&WatchResponse) -> bool,
) -> WatchResponse {
    loop {
        let mut message = side.streams[stream].next().await.expect("an answer");
        if wanted(&message) && message.compact_revision == 0 {
            let header = message.header.as_mut().expect("a header");
            (header.cluster_id, header.member_id, header.raft_term) = (0, 0, 0);
            return message;
        }
        side.logs[stream].add(message);
    }
}

/// Waits until both sides have said that the watcher's history is gone.
async fn await_end(sides: &mut [Side], stream: usize, watch_id: i64) {
    for side in sides.iter_mut() {
        while !side.logs[stream].ended.contains_key(&watch_id) {
            let message = side.streams[stream].next().await.expect("an end");
            side.logs[stream].add(message);
        }
        // The id may be used again, and end again.
        let end = side.logs[stream].ended.remove(&watch_id);
        side.logs[stream]
            .ended
            .insert(-1000 - watch_id, end.expect("it is there"));
    }
}

/// Both sides come to rest: watchers that never will are cancelled first.
async fn rest(sides: &mut [Side], known: &mut [Known], revision: i64) {
    for (stream, known) in known.iter_mut().enumerate() {
        let compacted = std::mem::take(&mut known.compacted);
        let (keep, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut known.open)
            .into_iter()
            .partition(|(watch_id, from)| *from <= revision && !compacted.contains(watch_id));
        known.open = keep;
        for (watch_id, _) in gone {
            cancel(sides, stream, watch_id).await;
        }
        if known.open.is_empty() {
            continue;
        }
        for side in sides.iter_mut() {
            side.streams[stream]
                .sync(&mut side.logs[stream], revision)
                .await;
        }
    }
}
