//! Watchers and streams of one net core, and what clients ask of them.
//!
//! Always true: a watcher belongs to one stream; its home says which of the places in [`super::places`] keeps it. A
//! stream's ids name its watchers; one whose history was compacted keeps its id until it is cancelled, as in etcd.
//! Requests are answered at once; what is sent later is sent from `places` and `progress`.

use std::collections::{BTreeSet, HashMap};

use rustc_hash::FxHashMap;
use storage::mvcc::{Reader, TreeSnapshot};
use wire::error::{EtcdError, WATCH_DUPLICATE_ID, WATCH_RANGE_EMPTY};
use wire::kv::WatchCreateRef;

use super::StreamKey;
use super::interval::Interval;
use super::matcher::{Place, Wants};
use super::places::{Behind, Live};
use super::progress::Ticks;
use super::slots::{Id, Slots};
use crate::net::ConnectionKey;

/// Watchers of one connection; one more is answered as cancelled with `too many requests`.
const CONNECTION_WATCHERS_MAX: usize = 131_072;
/// Bytes of their keys; the same answer.
const CONNECTION_KEY_BYTES_MAX: usize = 32 << 20;
/// Watchers of one net core, and bytes of their keys; the same answer.
const CORE_WATCHERS_MAX: usize = 1 << 20;
const CORE_KEY_BYTES_MAX: usize = 256 << 20;

/// With this text streams end when the member stops; the code is UNAVAILABLE, so clients go elsewhere.
pub const STREAM_STOPPED: EtcdError = EtcdError::Stopped;

/// What the configuration says about watching.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// Messages of this size and above are split for those who allow it.
    pub fragment_bytes: usize,
    /// Between two progress messages of a stream; up to a tenth is added.
    pub progress_interval_ns: u64,
}

/// What became of a request for a watcher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Created {
    /// -1 if it was refused.
    pub watch_id: i64,
    /// The store's revision when it was created.
    pub revision: i64,
    pub refusal: Option<&'static str>,
}

/// What happened since it was asked last.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Events sent.
    pub events: u64,
    /// Messages sent.
    pub messages: u64,
    /// Watchers whose clients did not take what was sent.
    pub stalls: u64,
    /// Watchers refused because there are too many.
    pub refused: u64,
    /// Watchers cancelled because what they had to read next was compacted.
    pub compacted: u64,
}

/// Where a watcher is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Home {
    Live(Place),
    /// With which cursor.
    Behind(u32, Place),
    /// Until the store comes to this revision.
    Future(i64),
    /// Goes on from this revision when there is room.
    Stalled(i64),
    /// Told that its history is gone; keeps its id.
    Compacted,
    /// Between two homes.
    Nowhere,
}

#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) stream: Id,
    pub(super) watch_id: i64,
    pub(super) interval: Interval,
    pub(super) wants: Wants,
    pub(super) fragment: bool,
    /// As asked; 0 means from now on.
    pub(super) start: i64,
    pub(super) home: Home,
    /// Wants progress messages; the inner value is false after events, for one tick.
    pub(super) progress: Option<bool>,
}

/// Whether a stream's client takes what it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
    Free,
    /// Waits for [`Hub::on_room`].
    Blocked,
    /// Its stalled watchers are set going again.
    Resuming,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) key: StreamKey,
    /// Keyed, because clients choose the ids.
    pub(super) ids: HashMap<i64, Id>,
    next_id: i64,
    pub(super) flow: Flow,
    /// By the revision they go on from.
    pub(super) stalled: BTreeSet<(i64, Id)>,
    /// Watchers that want progress messages.
    pub(super) notified: usize,
    pub(super) tick_ns: u64,
    /// Progress requests to be answered.
    pub(super) asked: u32,
    /// The client wants the stream to end when the cluster loses its leader.
    needs_leader: bool,
}

#[derive(Default, Debug)]
struct Usage {
    streams: usize,
    watchers: usize,
    key_bytes: usize,
}

pub struct Hub<T: TreeSnapshot> {
    pub(super) settings: HubSettings,
    pub(super) reader: Reader<T>,
    pub(super) streams: Slots<Stream>,
    by_key: HashMap<StreamKey, Id>,
    pub(super) watchers: Slots<Watcher>,
    /// Watchers at homes of the slow kind: behind or stalled.
    pub(super) slow: usize,
    key_bytes: usize,
    usage: FxHashMap<ConnectionKey, Usage>,
    pub(super) live: Live,
    pub(super) behind: Behind,
    pub(super) ticks: Ticks,
    pub(super) counts: Counts,
}

impl<T: TreeSnapshot> Hub<T> {
    pub fn new(settings: HubSettings, reader: Reader<T>, seed: u64) -> Hub<T> {
        Hub {
            settings,
            reader,
            streams: Slots::default(),
            by_key: HashMap::new(),
            watchers: Slots::default(),
            slow: 0,
            key_bytes: 0,
            usage: FxHashMap::default(),
            live: Live::default(),
            behind: Behind::default(),
            ticks: Ticks::new(seed),
            counts: Counts::default(),
        }
    }

    // ---- streams ----

    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    pub fn watchers(&self) -> usize {
        self.watchers.len()
    }

    /// Watchers that read history, or wait for their clients.
    pub fn slow_watchers(&self) -> usize {
        self.slow
    }

    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    pub fn has_stream(&self, key: StreamKey) -> bool {
        self.by_key.contains_key(&key)
    }

    /// A stream has begun.
    pub fn open(&mut self, key: StreamKey, needs_leader: bool, now_ns: u64) {
        let tick_ns = self.first_tick_ns(now_ns);
        let id = self.streams.insert(Stream {
            key,
            ids: HashMap::new(),
            next_id: 0,
            flow: Flow::Free,
            stalled: BTreeSet::new(),
            notified: 0,
            tick_ns,
            asked: 0,
            needs_leader,
        });
        let before = self.by_key.insert(key, id);
        assert!(before.is_none(), "{key:?} opened twice");
        self.usage.entry(key.connection).or_default().streams += 1;
    }

    /// A stream is over.
    pub fn close(&mut self, key: StreamKey) {
        if let Some(&id) = self.by_key.get(&key) {
            self.close_id(id);
        }
    }

    pub(super) fn close_id(&mut self, id: Id) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        let key = stream.key;
        let watchers: Vec<Id> = std::mem::take(&mut stream.ids).into_values().collect();
        for watcher in watchers {
            self.leave_home(watcher);
            self.forget(watcher, key.connection);
        }
        self.forget_tick(id);
        self.behind.forget_blocked(key.connection, id);
        self.streams.remove(id);
        self.by_key.remove(&key);
        if let Some(usage) = self.usage.get_mut(&key.connection) {
            usage.streams -= 1;
            if usage.streams == 0 {
                self.usage.remove(&key.connection);
            }
        }
    }

    /// All streams, or those whose clients want to be told when there is no leader.
    pub fn keys(&self, only_leader_bound: bool) -> Vec<StreamKey> {
        self.streams
            .ids()
            .filter_map(|id| self.streams.get(id))
            .filter(|stream| stream.needs_leader || !only_leader_bound)
            .map(|stream| stream.key)
            .collect()
    }

    // ---- watchers ----

    /// Creates a watcher on an open stream. The caller answers the client before anything else is sent to it.
    ///
    /// The order of the checks is etcd's; a check of permissions belongs behind that of the revision.
    pub fn create(&mut self, key: StreamKey, request: &WatchCreateRef<'_>, now_ns: u64) -> Created {
        // Once, for the answer and for what comes first: a client goes on from the one after the other.
        let revision = self.reader.revision();
        let refuse = |text| Created {
            watch_id: -1,
            revision,
            refusal: Some(text),
        };
        if request.start_revision < 0 {
            return refuse(EtcdError::Compacted.text());
        }
        let Some(interval) = Interval::new(request.key, request.range_end) else {
            return refuse(WATCH_RANGE_EMPTY);
        };
        let stream_id = self.by_key[&key];
        let stream = self.streams.get_mut(stream_id).expect("named by its key");
        let has_room = {
            let usage = &self.usage[&key.connection];
            let bytes = interval.bytes();
            usage.watchers < CONNECTION_WATCHERS_MAX
                && usage.key_bytes + bytes <= CONNECTION_KEY_BYTES_MAX
                && self.watchers.len() < CORE_WATCHERS_MAX
                && self.key_bytes + bytes <= CORE_KEY_BYTES_MAX
        };
        let watch_id = match request.watch_id {
            0 => {
                while stream.ids.contains_key(&stream.next_id) {
                    stream.next_id += 1;
                }
                stream.next_id
            }
            id if stream.ids.contains_key(&id) => return refuse(WATCH_DUPLICATE_ID),
            id => id,
        };
        if !has_room {
            self.counts.refused += 1;
            return refuse(EtcdError::TooManyRequests.text());
        }
        if request.watch_id == 0 {
            stream.next_id += 1;
        }
        stream.notified += usize::from(request.progress_notify);
        let bytes = interval.bytes();
        let id = self.watchers.insert(Watcher {
            stream: stream_id,
            watch_id,
            interval,
            wants: Wants::new(request.no_put, request.no_delete, request.prev_kv),
            fragment: request.fragment,
            start: request.start_revision,
            home: Home::Nowhere,
            progress: request.progress_notify.then_some(true),
        });
        stream.ids.insert(watch_id, id);
        let usage = self.usage.entry(key.connection).or_default();
        usage.watchers += 1;
        usage.key_bytes += bytes;
        self.key_bytes += bytes;
        let next = match request.start_revision {
            0 => revision + 1,
            start => start,
        };
        self.place(id, next);
        if request.progress_notify {
            self.watch_tick(stream_id, now_ns);
        }
        Created {
            watch_id,
            revision,
            refusal: None,
        }
    }

    /// Cancels a watcher; gives the revision of the answer, or nothing if there is no such watcher.
    pub fn cancel(&mut self, key: StreamKey, watch_id: i64) -> Option<i64> {
        let stream = self.streams.get_mut(*self.by_key.get(&key)?)?;
        let id = stream.ids.remove(&watch_id)?;
        self.leave_home(id);
        self.forget(id, key.connection);
        Some(self.reader.revision())
    }

    /// Asks for one progress message for all watchers of a stream.
    pub fn ask_progress(&mut self, key: StreamKey) {
        if let Some(&id) = self.by_key.get(&key) {
            self.ask_progress_id(id);
        }
    }

    /// Removes a watcher that has no home and no id any more.
    fn forget(&mut self, id: Id, connection: ConnectionKey) {
        let Some(watcher) = self.watchers.remove(id) else {
            return;
        };
        let bytes = watcher.interval.bytes();
        self.key_bytes -= bytes;
        if let Some(usage) = self.usage.get_mut(&connection) {
            usage.watchers -= 1;
            usage.key_bytes -= bytes;
        }
        if watcher.progress.is_some()
            && let Some(stream) = self.streams.get_mut(watcher.stream)
        {
            stream.notified -= 1;
        }
    }
}

#[cfg(test)]
impl<T: TreeSnapshot> Hub<T> {
    pub(super) fn assert_forgotten(&self) {
        assert!(self.streams.is_empty() && self.by_key.is_empty() && self.usage.is_empty());
        assert!(self.watchers.is_empty() && self.slow == 0 && self.key_bytes == 0);
        assert_eq!(self.next_tick_ns(), None);
        self.assert_places_forgotten();
    }
}
