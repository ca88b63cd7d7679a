//! Watchers against a known history: a store, streams that are read slowly or not at all, compactions, group commits,
//! and everything a client may ask, in random order from a seed.
//!
//! Checked at every message: events are exactly those that the watcher asked for, in order, whole revisions, none twice;
//! the previous record is right; a progress message names nothing that is not sent; a cancelled watcher had to read
//! below the compact revision. Checked at the end, when every client reads: nothing is missing, and nothing is kept of
//! what is over.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use storage::mvcc::{Applied, KeyRange, MemoryTree, Options, Reader, Store};
use wire::error::{EtcdError, WATCH_DUPLICATE_ID, WATCH_RANGE_EMPTY};
use wire::grpc::StreamId;
use wire::kv::{ResponseHeader, WatchCreateRef};
use wire::messages::etcdserverpb::WatchResponse;
use wire::messages::mvccpb::{Event, event::EventType};

use super::interval::Interval;
use super::{Hub, HubSettings, Output, Sink, StreamKey};
use crate::net::ConnectionKey;

const FRAGMENT_BYTES: usize = 400;
const INTERVAL_NS: u64 = 1000;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// One change of the known history.
#[derive(Clone, Debug)]
struct Change {
    revision: i64,
    key: Vec<u8>,
    /// Nothing for a deletion.
    value: Option<Vec<u8>>,
    /// The value before.
    before: Option<Vec<u8>>,
}

/// What is on its way to a client, in order.
enum Message {
    Created(i64, Box<Watched>),
    Canceled(i64),
    Response(Vec<u8>),
}

struct Client {
    messages: Vec<Message>,
    /// What the server was asked for and has not been asked to cancel.
    ids: BTreeSet<i64>,
    /// Blocked when so many messages are not read.
    room: usize,
    awaits: bool,
    watchers: BTreeMap<i64, Watched>,
}

/// What a client knows of a watcher.
struct Watched {
    interval: Interval,
    request: Request,
    start: i64,
    /// The first revision it has not seen.
    next: i64,
    /// How much of revision `next` came in parts that are continued.
    parts: usize,
    is_compacted: bool,
}

#[derive(Clone, Default, Debug)]
struct Request {
    key: Vec<u8>,
    range_end: Vec<u8>,
    start_revision: i64,
    progress_notify: bool,
    no_put: bool,
    no_delete: bool,
    prev_kv: bool,
    watch_id: i64,
    fragment: bool,
}

#[derive(Default)]
struct Clients {
    open: BTreeMap<StreamKey, Client>,
}

impl Sink for Clients {
    fn output(&mut self, stream: StreamKey) -> Output {
        match self.open.get(&stream) {
            None => Output::Gone,
            Some(client) if client.messages.len() >= client.room => Output::Blocked,
            Some(_) => Output::Ready,
        }
    }

    fn put(&mut self, stream: StreamKey, parts: &[&[u8]]) {
        let client = self.open.get_mut(&stream).expect("found ready just now");
        client.messages.push(Message::Response(parts.concat()));
    }

    fn await_room(&mut self, stream: StreamKey) {
        self.open.get_mut(&stream).expect("it is blocked").awaits = true;
    }

    fn header(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: 1,
            member_id: 2,
            revision,
            raft_term: 3,
        }
    }
}

struct World {
    random: Random,
    store: Store<MemoryTree>,
    reader: Reader<MemoryTree>,
    hub: Hub<MemoryTree>,
    clients: Clients,
    history: Vec<Change>,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    index: u64,
    now_ns: u64,
    streams: u32,
    /// What happened, to see that the test reaches it.
    seen: Seen,
}

#[derive(Default, Debug)]
struct Seen {
    events: usize,
    parts: usize,
    stalls: u64,
    compacted: usize,
    progress: usize,
    stream_progress: usize,
    behind: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let (store, reader, _) =
            Store::open(MemoryTree::default(), Options::default()).expect("an empty tree");
        let settings = HubSettings {
            fragment_bytes: FRAGMENT_BYTES,
            progress_interval_ns: INTERVAL_NS,
        };
        World {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            hub: Hub::new(settings, reader.clone(), seed),
            store,
            reader,
            clients: Clients::default(),
            history: Vec::new(),
            values: BTreeMap::new(),
            index: 0,
            now_ns: 0,
            streams: 0,
            seen: Seen::default(),
        }
    }

    fn key(&mut self) -> Vec<u8> {
        vec![b'a' + self.random.below(6) as u8]
    }

    fn write(&mut self) {
        self.index += 1;
        let applied = Applied {
            index: self.index,
            term: 1,
        };
        let mut changes = Vec::new();
        let steps = 1 + self.random.below(3) * self.random.below(3);
        let keys: Vec<Vec<u8>> = (0..steps).map(|_| self.key()).collect();
        let mut txn = self.store.begin(applied);
        let revision = txn.revision() + 1;
        for key in keys {
            if changes.iter().any(|change: &Change| change.key == key) {
                continue;
            }
            let before = self.values.get(&key).cloned();
            if self.random.chance(25) {
                let deleted = txn.delete_range(KeyRange::single(&key), &mut |_| {});
                assert_eq!(deleted, usize::from(before.is_some()));
                if before.is_none() {
                    continue;
                }
                self.values.remove(&key);
                changes.push(Change {
                    revision,
                    key,
                    value: None,
                    before,
                });
            } else {
                let length = self.random.below(100);
                let value = format!("{revision}-{}", "x".repeat(length)).into_bytes();
                txn.put(&key, &value, 0);
                self.values.insert(key.clone(), value.clone());
                changes.push(Change {
                    revision,
                    key,
                    value: Some(value),
                    before,
                });
            }
        }
        txn.commit();
        self.history.extend(changes);
    }

    fn commit(&mut self) {
        if let Some(frozen) = self.store.freeze() {
            let tree = self.store.tree().committed(&frozen);
            self.store.on_committed(tree);
        }
    }

    fn compact(&mut self) {
        let revision = self.store.revision() - self.random.below(12) as i64;
        // What is compacted already is refused.
        let _ = self.store.compact(revision);
    }

    fn some_stream(&mut self) -> Option<StreamKey> {
        let count = self.clients.open.len();
        if count == 0 {
            return None;
        }
        let place = self.random.below(count);
        self.clients.open.keys().nth(place).copied()
    }

    fn open(&mut self) {
        self.streams += 1;
        let key = StreamKey {
            connection: ConnectionKey {
                slot: self.random.below(3) as u32,
                life: 1,
            },
            stream: StreamId(self.streams),
        };
        let room = 1 + self.random.below(6);
        self.hub.open(key, false, self.now_ns);
        self.clients.open.insert(
            key,
            Client {
                messages: Vec::new(),
                ids: BTreeSet::new(),
                room,
                awaits: false,
                watchers: BTreeMap::new(),
            },
        );
    }

    fn create(&mut self) {
        let Some(key) = self.some_stream() else {
            return;
        };
        let revision = self.store.revision();
        let request = Request {
            key: self.key(),
            range_end: match self.random.below(8) {
                0 => b"\0".to_vec(),
                1 | 2 => vec![b'a' + self.random.below(9) as u8],
                3 => b"z".to_vec(),
                _ => Vec::new(),
            },
            start_revision: match self.random.below(8) {
                0..3 => 0,
                3 => revision + 1 + self.random.below(10) as i64,
                4 => self.random.below(revision as usize + 2) as i64 - 1,
                _ => (revision - self.random.below(30) as i64).max(1),
            },
            progress_notify: self.random.chance(50),
            no_put: self.random.chance(10),
            no_delete: self.random.chance(20),
            prev_kv: self.random.chance(30),
            watch_id: if self.random.chance(30) {
                self.random.below(5) as i64
            } else {
                0
            },
            fragment: self.random.chance(40),
        };
        let created = self.hub.create(
            key,
            &WatchCreateRef {
                key: &request.key,
                range_end: &request.range_end,
                start_revision: request.start_revision,
                progress_notify: request.progress_notify,
                no_put: request.no_put,
                no_delete: request.no_delete,
                prev_kv: request.prev_kv,
                watch_id: request.watch_id,
                fragment: request.fragment,
            },
            self.now_ns,
        );
        let client = self.clients.open.get_mut(&key).expect("chosen from these");
        assert_eq!(created.revision, revision);
        let interval = Interval::new(&request.key, &request.range_end);
        let expected = if request.start_revision < 0 {
            Some(EtcdError::Compacted.text())
        } else if interval.is_none() {
            Some(WATCH_RANGE_EMPTY)
        } else if request.watch_id != 0 && client.ids.contains(&request.watch_id) {
            Some(WATCH_DUPLICATE_ID)
        } else {
            None
        };
        assert_eq!(created.refusal, expected);
        if expected.is_some() {
            assert_eq!(created.watch_id, -1);
            return;
        }
        assert!(request.watch_id == 0 || request.watch_id == created.watch_id);
        let watched = Watched {
            interval: interval.expect("not refused"),
            start: request.start_revision,
            next: match request.start_revision {
                0 => revision + 1,
                start => start,
            },
            parts: 0,
            is_compacted: false,
            request,
        };
        let is_new = client.ids.insert(created.watch_id);
        assert!(is_new, "an id in use was given out");
        let created = Message::Created(created.watch_id, Box::new(watched));
        client.messages.push(created);
    }

    fn cancel(&mut self) {
        let Some(key) = self.some_stream() else {
            return;
        };
        let watch_id = self.random.below(5) as i64;
        let client = self.clients.open.get_mut(&key).expect("chosen from these");
        let known = client.ids.remove(&watch_id);
        assert_eq!(self.hub.cancel(key, watch_id).is_some(), known);
        if known {
            client.messages.push(Message::Canceled(watch_id));
        }
    }

    fn close(&mut self) {
        if let Some(key) = self.some_stream() {
            self.clients.open.remove(&key);
            // The engine may tell later than the output does.
            if self.random.chance(70) {
                self.hub.close(key);
            }
        }
    }

    fn read_some(&mut self) {
        if let Some(key) = self.some_stream() {
            let client = &self.clients.open[&key];
            let count = self.random.below(client.messages.len() + 1);
            self.read(key, count);
        }
    }

    fn read_all(&mut self, key: StreamKey) {
        let count = self.clients.open[&key].messages.len();
        self.read(key, count);
    }

    fn read(&mut self, key: StreamKey, count: usize) {
        let client = self.clients.open.get_mut(&key).expect("it is open");
        let messages: Vec<Message> = client.messages.drain(..count).collect();
        for message in messages {
            let client = self.clients.open.get_mut(&key).expect("it is open");
            match message {
                Message::Created(watch_id, watched) => {
                    let before = client.watchers.insert(watch_id, *watched);
                    assert!(before.is_none());
                }
                Message::Canceled(watch_id) => {
                    assert!(client.watchers.remove(&watch_id).is_some());
                }
                Message::Response(message) => {
                    let response = WatchResponse::decode(&*message).expect("a response");
                    self.check(key, &response);
                }
            }
        }
        let client = self.clients.open.get_mut(&key).expect("it is open");
        if client.messages.len() < client.room && std::mem::take(&mut client.awaits) {
            self.hub.on_room(key.connection);
        }
    }

    fn check(&mut self, key: StreamKey, response: &WatchResponse) {
        let client = self.clients.open.get_mut(&key).expect("it is open");
        let shown = response.header.as_ref().expect("a header").revision;
        if response.canceled {
            let watched = client.watchers.get_mut(&response.watch_id).expect("known");
            assert!(watched.next < response.compact_revision);
            assert!(response.compact_revision <= self.store.compact_revision());
            assert!(!watched.is_compacted && response.events.is_empty() && shown == 0);
            watched.is_compacted = true;
            self.seen.compacted += 1;
            return;
        }
        if response.events.is_empty() {
            let concerned = client
                .watchers
                .iter()
                .filter(|(watch_id, _)| response.watch_id == -1 || response.watch_id == **watch_id);
            for (_, watched) in concerned {
                assert!(!watched.is_compacted, "it is no watcher any more");
                assert!(watched.start <= shown);
                let missing =
                    expected(&self.history, watched).find(|change| change.revision <= shown);
                assert!(missing.is_none(), "progress {shown} before {missing:?}");
            }
            match response.watch_id {
                -1 => self.seen.stream_progress += 1,
                _ => self.seen.progress += 1,
            }
            return;
        }
        let watched = client.watchers.get_mut(&response.watch_id).expect("known");
        assert!(!watched.is_compacted);
        assert!(watched.request.fragment || !response.fragment);
        let wanted: Vec<&Change> = expected(&self.history, watched)
            .skip(watched.parts)
            .take(response.events.len())
            .collect();
        assert_eq!(
            wanted.len(),
            response.events.len(),
            "events that nobody made"
        );
        let compact_revision = self.store.compact_revision();
        for (change, event) in wanted.iter().zip(&response.events) {
            check_event(change, event, &watched.request, compact_revision);
        }
        let last = wanted.last().expect("there are events").revision;
        assert!(last <= shown && shown <= self.store.revision());
        self.seen.events += wanted.len();
        if response.fragment {
            self.seen.parts += 1;
            watched.parts += response.events.len();
            return;
        }
        let sent = watched.parts + response.events.len();
        let following = expected(&self.history, watched).nth(sent);
        let is_whole = following.is_none_or(|change| change.revision != last);
        assert!(is_whole, "revision {last} is split");
        watched.next = last + 1;
        watched.parts = 0;
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..30 => self.write(),
            30..34 => self.commit(),
            34..36 => self.compact(),
            36..40 => {
                self.store.compact_step(1 + self.random.below(20));
            }
            40..43 => self.open(),
            43..50 => self.create(),
            50..52 => self.cancel(),
            52 => self.close(),
            53..63 => self.read_some(),
            63..83 => {
                let budget = 1 + self.random.below(20);
                self.hub.advance(&mut self.clients, budget);
            }
            83..95 => {
                self.seen.behind += self.hub.slow_watchers();
                let budget = 1 + self.random.below(20);
                self.hub.catch_up(&mut self.clients, budget);
            }
            95..97 => {
                if let Some(key) = self.some_stream() {
                    self.hub.ask_progress(key);
                }
                self.hub.answer_progress(&mut self.clients);
            }
            _ => {
                self.now_ns += self.random.below(INTERVAL_NS as usize) as u64;
                self.hub.tick(&mut self.clients, self.now_ns);
            }
        }
        self.seen.stalls += self.hub.take_counts().stalls;
    }

    /// Every client reads until there is nothing to do.
    fn finish(&mut self) {
        for _ in 0..10_000 {
            let keys: Vec<StreamKey> = self.clients.open.keys().copied().collect();
            for key in keys {
                self.read_all(key);
            }
            let is_more = self.hub.advance(&mut self.clients, 50);
            self.hub.answer_progress(&mut self.clients);
            let is_behind = self.hub.catch_up(&mut self.clients, 50);
            let is_quiet = self
                .clients
                .open
                .values()
                .all(|client| client.messages.is_empty());
            if !is_more && !is_behind && is_quiet {
                return;
            }
        }
        panic!("the watchers do not come to rest");
    }
}

/// What a watcher must see from now on.
fn expected<'h>(history: &'h [Change], watched: &'h Watched) -> impl Iterator<Item = &'h Change> {
    history.iter().filter(move |change| {
        let is_refused = match change.value {
            Some(_) => watched.request.no_put,
            None => watched.request.no_delete,
        };
        watched.next <= change.revision && watched.interval.contains(&change.key) && !is_refused
    })
}

fn check_event(change: &Change, event: &Event, request: &Request, compact_revision: i64) {
    let kv = event.kv.as_ref().expect("every event has a record");
    assert_eq!(kv.key, change.key);
    assert_eq!(kv.mod_revision, change.revision);
    let is_delete = event.r#type == i32::from(EventType::Delete);
    assert_eq!(is_delete, change.value.is_none());
    assert_eq!(kv.value, change.value.clone().unwrap_or_default());
    let prev = event.prev_kv.as_ref().map(|prev| prev.value.clone());
    if prev.is_some() || !request.prev_kv {
        assert_eq!(prev.is_some(), request.prev_kv && change.before.is_some());
        assert!(prev.is_none() || prev == change.before);
    } else {
        let may_lack = change.before.is_none() || change.revision - 1 < compact_revision;
        assert!(may_lack, "no previous record for {change:?}");
    }
}

fn run(seed: u64, steps: usize) -> Seen {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step();
    }
    // Some streams ended without the hub being told.
    for key in world.hub.keys(false) {
        if !world.clients.open.contains_key(&key) {
            world.hub.close(key);
        }
    }
    world.finish();
    let revision = world.store.revision();
    for client in world.clients.open.values() {
        for watched in client
            .watchers
            .values()
            .filter(|watched| !watched.is_compacted)
        {
            let missing =
                expected(&world.history, watched).find(|change| change.revision <= revision);
            assert!(missing.is_none(), "{missing:?} never came");
        }
    }
    // Everybody who is not waiting for the future has all there is, so every such stream can be told so.
    assert_eq!(world.hub.slow_watchers(), 0);
    let keys: Vec<StreamKey> = world.clients.open.keys().copied().collect();
    for key in keys {
        let told_before = world.seen.stream_progress;
        world.hub.ask_progress(key);
        world.hub.answer_progress(&mut world.clients);
        world.read_all(key);
        let client = &world.clients.open[&key];
        let all_live = !client.watchers.is_empty()
            && client
                .watchers
                .values()
                .all(|watched| !watched.is_compacted && watched.start <= revision);
        assert_eq!(
            world.seen.stream_progress - told_before,
            usize::from(all_live)
        );
        world.clients.open.remove(&key);
        world.hub.close(key);
    }
    world.hub.assert_forgotten();
    assert!(world.reader.hold(revision).is_some());
    world.seen
}

#[test]
fn every_guarantee_holds_whatever_happens() {
    let wanted = std::env::var("PILASTER_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = match wanted {
        Some(seed) => seed..seed + 1,
        None => 0..400u64,
    };
    let mut all = Seen::default();
    for seed in seeds.clone() {
        eprintln!("PILASTER_SEED={seed}");
        let seen = run(seed, 600);
        all.events += seen.events;
        all.parts += seen.parts;
        all.stalls += seen.stalls;
        all.compacted += seen.compacted;
        all.progress += seen.progress;
        all.stream_progress += seen.stream_progress;
        all.behind += seen.behind;
    }
    if wanted.is_none() {
        let Seen {
            events,
            parts,
            stalls,
            compacted,
            progress,
            stream_progress,
            behind,
        } = all;
        assert!(events > 10_000 && parts > 100 && stalls > 1000, "{all:?}");
        assert!(compacted > 100 && progress > 100, "{all:?}");
        assert!(stream_progress > 100 && behind > 1000, "{all:?}");
    }
}
