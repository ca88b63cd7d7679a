//! Writers, watchers and kill -9: what any watcher was told is exactly what happened, from where it began.
//!
//! Writers put, delete and write transactions of several keys. Watchers begin anywhere in the history, filter, are
//! disconnected, stop reading for a while, and go on from the revision after the last one they were told. The server is
//! killed under them again and again. At the end the known history is read: every acknowledged write is in it, at its
//! revision; every watcher was told those of its events that it asked for, in order, once, whole revisions at a time; and a
//! progress message never named a revision whose events had not been told.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use pilaster_tests::pb::*;
use pilaster_tests::random::Random;
use pilaster_tests::watch::{Event, Union, WatchCreate, WatchProgress, WatchStream, watch_all};
use pilaster_tests::{Client, Kind, Options, Server, raw};
use tokio::task::LocalSet;

const ROUNDS: u32 = 12;
const WRITERS: u64 = 4;
const WATCHERS: u64 = 24;
const KEYS: u64 = 12;
/// A connection is tried again after this long while the server is down.
const RECONNECT: Duration = Duration::from_millis(5);

/// What writers know: by revision, the keys and values (nothing for a deletion) they had acknowledged.
type Acknowledged = BTreeMap<i64, Vec<(Vec<u8>, Option<Vec<u8>>)>>;

struct Shared {
    acknowledged: RefCell<Acknowledged>,
    count: Cell<u64>,
    value: Cell<u64>,
    /// Writers stop; watchers finish when they have seen everything.
    is_over: Cell<bool>,
    /// Known once it is over.
    last_revision: Cell<i64>,
    resumed: Cell<u64>,
    progress: Cell<u64>,
}

/// What a watcher asked for and was told.
struct Told {
    request: WatchCreate,
    from: i64,
    events: Vec<Event>,
}

#[test]
fn watchers_are_told_the_known_history() {
    let seed = match std::env::var("PILASTER_SEED") {
        Ok(seed) => seed.parse().expect("PILASTER_SEED is a number"),
        Err(_) => u64::from(std::process::id()),
    };
    println!("replay: PILASTER_SEED={seed} cargo xtask suite watch checker");
    let mut random = Random::new(seed);
    let mut server = Server::start(Options::new(Kind::subject()));
    let shared = Rc::new(Shared {
        acknowledged: RefCell::default(),
        count: Cell::new(0),
        value: Cell::new(0),
        is_over: Cell::new(false),
        last_revision: Cell::new(i64::MAX),
        resumed: Cell::new(0),
        progress: Cell::new(0),
    });
    let url = server.url();
    let told = raw::block_on(LocalSet::new().run_until(async {
        let mut writers = Vec::new();
        for number in 0..WRITERS {
            let own = Random::new(seed ^ (number << 8));
            writers.push(tokio::task::spawn_local(write(
                url.clone(),
                shared.clone(),
                own,
            )));
        }
        let mut watchers = Vec::new();
        for number in 0..WATCHERS {
            let own = Random::new(seed ^ (number << 16) ^ 1);
            watchers.push(tokio::task::spawn_local(observe(
                url.clone(),
                shared.clone(),
                own,
            )));
        }
        for _ in 0..ROUNDS {
            let until = shared.count.get() + 1 + random.below(400);
            while shared.count.get() < until {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            server.kill9();
            server.launch();
        }
        let until = shared.count.get() + 200;
        while shared.count.get() < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        shared.is_over.set(true);
        for writer in writers {
            writer.await.expect("a writer ends");
        }
        let mut client = Client::connect(&server).await;
        let last = client.range(&raw::get("end")).await.expect("a read");
        shared
            .last_revision
            .set(last.header.expect("a header").revision);
        let mut told = Vec::new();
        for watcher in watchers {
            told.push(watcher.await.expect("a watcher ends"));
        }
        told
    }));
    let history = raw::block_on(read_history(&server, shared.last_revision.get()));
    judge_history(&history, &shared.acknowledged.borrow());
    let mut count = 0;
    for told in &told {
        judge(told, &history);
        count += told.events.len();
    }
    println!(
        "{} acknowledged writes, {count} events told, {} resumptions, {} progress messages",
        shared.count.get(),
        shared.resumed.get(),
        shared.progress.get()
    );
    assert!(shared.resumed.get() > u64::from(ROUNDS) && shared.progress.get() > 0 && count > 1000);
}

async fn connect(url: &str) -> Client {
    loop {
        match Client::connect_to(url, None).await {
            Ok(client) => return client,
            Err(_) => tokio::time::sleep(RECONNECT).await,
        }
    }
}

fn key(random: &mut Random) -> Vec<u8> {
    format!("k{:02}", random.below(KEYS)).into_bytes()
}

async fn write(url: String, shared: Rc<Shared>, mut random: Random) {
    let mut client = connect(&url).await;
    while !shared.is_over.get() {
        let mut changes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        for _ in 0..1 + random.below(3) * random.below(3) {
            shared.value.set(shared.value.get() + 1);
            let value = format!("value {}", shared.value.get()).into_bytes();
            let value = (!random.chance(1, 5)).then_some(value);
            changes.insert(key(&mut random), value);
        }
        let ops = changes.iter().map(|(key, value)| RequestOp {
            request: Some(match value {
                Some(value) => Request::Put(raw::put(key.clone(), value.clone())),
                None => Request::DeleteRange(DeleteRangeRequest {
                    key: key.clone(),
                    ..Default::default()
                }),
            }),
        });
        let txn = TxnRequest {
            success: ops.collect(),
            ..Default::default()
        };
        match client.txn(&txn).await {
            Ok(reply) => {
                let deleted = |response: &ResponseOp| match &response.response {
                    Some(Response::DeleteRange(delete)) => delete.deleted == 0,
                    _ => false,
                };
                // A deletion that found nothing is no event.
                let effective: Vec<_> = changes
                    .into_iter()
                    .zip(&reply.responses)
                    .filter(|(_, response)| !deleted(response))
                    .map(|(change, _)| change)
                    .collect();
                shared.count.set(shared.count.get() + 1);
                if !effective.is_empty() {
                    let revision = reply.header.expect("a header").revision;
                    let before = shared.acknowledged.borrow_mut().insert(revision, effective);
                    assert!(before.is_none(), "revision {revision} was given twice");
                }
            }
            Err(failure) if failure.is_from_server() => panic!("a write failed: {failure:?}"),
            Err(_) => client = connect(&url).await,
        }
    }
}

/// One watcher through all its connections.
async fn observe(url: String, shared: Rc<Shared>, mut random: Random) -> Told {
    let single = random.chance(1, 3);
    let start = match random.below(3) {
        0 => 1,
        1 => 1 + random.below(200) as i64,
        // Far ahead of what is there when it begins.
        _ => 300 + random.below(300) as i64,
    };
    let mut told = Told {
        request: WatchCreate {
            key: key(&mut random),
            range_end: if single {
                Vec::new()
            } else {
                format!("k{:02}", random.below(KEYS) + 1).into_bytes()
            },
            filters: match random.below(5) {
                0 => vec![0],
                1 => vec![1],
                _ => Vec::new(),
            },
            prev_kv: random.chance(1, 2),
            progress_notify: random.chance(1, 2),
            fragment: random.chance(1, 2),
            ..WatchCreate::default()
        },
        from: start,
        events: Vec::new(),
    };
    if !single && told.request.range_end <= told.request.key {
        told.request.range_end = b"z".to_vec();
    }
    // The first revision it has not been told of, by events or by progress.
    let mut next = start;
    loop {
        let client = connect(&url).await;
        let mut stream = WatchStream::open(&client);
        stream.send(Union::Create(WatchCreate {
            start_revision: next,
            ..told.request.clone()
        }));
        shared.resumed.set(shared.resumed.get() + 1);
        let mut until_disconnect = 1 + random.below(60);
        // Events of one revision in parts are taken when the last is there.
        let mut parts: Vec<Event> = Vec::new();
        // Asked for earlier, etcd may send a stream's progress before the answer that holds the watcher's events back.
        let mut is_created = false;
        loop {
            if shared.last_revision.get() < next {
                return told;
            }
            if is_created {
                stream.send(Union::Progress(WatchProgress {}));
            }
            let receive = tokio::time::timeout(Duration::from_millis(20), stream.receive());
            let message = match receive.await {
                // Nothing new, or the watcher is behind: progress is asked for again.
                Err(_) => continue,
                Ok(Err(_)) => break,
                Ok(Ok(message)) => message,
            };
            assert!(!message.canceled, "{message:?}");
            if message.is_progress() {
                shared.progress.set(shared.progress.get() + 1);
                // Judged with the events: nothing up to here may come later.
                next = next.max(message.revision() + 1);
                continue;
            }
            if message.created {
                is_created = true;
                continue;
            }
            for event in &message.events {
                assert!(
                    next <= event.revision(),
                    "told twice, or after progress: {event:?}"
                );
            }
            parts.extend(message.events);
            if message.fragment {
                continue;
            }
            if let Some(last) = parts.last() {
                next = last.revision() + 1;
            }
            told.events.append(&mut parts);
            match random.below(40) {
                0 => {
                    // Stops reading for a while.
                    tokio::time::sleep(Duration::from_millis(random.below(60))).await;
                }
                1 => until_disconnect = 1,
                _ => {}
            }
            until_disconnect -= 1;
            if until_disconnect == 0 {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(random.below(5))).await;
    }
}

/// Every event there is, from one watcher that nothing disturbs.
async fn read_history(server: &Server, last: i64) -> Vec<Event> {
    let client = Client::connect(server).await;
    let mut stream = WatchStream::open(&client);
    stream
        .create(WatchCreate {
            start_revision: 1,
            prev_kv: true,
            ..watch_all()
        })
        .await;
    let mut history: Vec<Event> = Vec::new();
    while history.last().map_or(1, Event::revision) < last {
        let message = stream.next().await.expect("events");
        history.extend(message.events);
    }
    history
}

fn judge_history(history: &[Event], acknowledged: &Acknowledged) {
    let mut by_revision: Acknowledged = BTreeMap::new();
    for event in history {
        let kv = event.kv.clone().expect("a record");
        let value = (event.kind == 0).then_some(kv.value);
        by_revision
            .entry(kv.mod_revision)
            .or_default()
            .push((kv.key, value));
    }
    for (revision, changes) in acknowledged {
        assert_eq!(
            by_revision.get(revision),
            Some(changes),
            "acknowledged at {revision}"
        );
    }
    // A revision without a gap, from the first write on.
    for (place, revision) in by_revision.keys().enumerate() {
        assert_eq!(*revision, place as i64 + 2);
    }
    let mut values: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for event in history {
        let kv = event.kv.as_ref().expect("a record");
        let before = values.get(&kv.key);
        let prev = event.prev_kv.as_ref().map(|prev| &prev.value);
        assert_eq!(prev, before, "the record before {kv:?}");
        match event.kind {
            0 => values.insert(kv.key.clone(), kv.value.clone()),
            _ => values.remove(&kv.key),
        };
    }
}

fn judge(told: &Told, history: &[Event]) {
    let request = &told.request;
    let wanted: Vec<Event> = history
        .iter()
        .filter(|event| {
            let key = &event.kv.as_ref().expect("a record").key;
            let is_inside = if request.range_end.is_empty() {
                *key == request.key
            } else {
                request.key <= *key && *key < request.range_end
            };
            is_inside && told.from <= event.revision() && !request.filters.contains(&event.kind)
        })
        .cloned()
        .map(|mut event| {
            if !request.prev_kv {
                event.prev_kv = None;
            }
            event
        })
        .collect();
    let place = wanted.iter().zip(&told.events).position(|(a, b)| a != b);
    assert!(
        place.is_none() && wanted.len() == told.events.len(),
        "{request:?} from {}: {} events happened, {} were told; the first that differs is number {place:?}: {:?}, {:?}",
        told.from,
        wanted.len(),
        told.events.len(),
        place.map(|place| &wanted[place]),
        place.map(|place| &told.events[place]),
    );
}
