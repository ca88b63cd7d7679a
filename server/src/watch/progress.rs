//! Progress messages: on a timer for watchers that asked for them, and once for a whole stream on request.
//!
//! Always true: a message names the last revision that the live place has handed out whole, and goes only to watchers
//! that are live and have begun; so nothing of that revision or below is missing. A stream whose client does not take
//! its output gets none, as in etcd, where its queue is full.

use std::collections::BTreeSet;

use storage::mvcc::TreeSnapshot;
use wire::kv::{WatchControl, put_watch_control};

use super::hub::{Home, Hub, Watcher};
use super::slots::Id;
use super::{Output, Sink, StreamKey};

/// Progress requests of one stream that wait for their answer; more are not answered.
const ASKED_MAX: u32 = 128;

/// When streams are due.
pub(super) struct Ticks {
    due: BTreeSet<(u64, Id)>,
    random: u64,
    /// Streams that were asked for progress.
    asked: Vec<Id>,
}

impl Ticks {
    pub(super) fn new(seed: u64) -> Ticks {
        Ticks {
            due: BTreeSet::new(),
            random: seed | 1,
            asked: Vec::new(),
        }
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

impl<T: TreeSnapshot> Hub<T> {
    /// The interval with some randomness, so that streams opened together do not tick together.
    pub(super) fn first_tick_ns(&mut self, now_ns: u64) -> u64 {
        let interval = self.settings.progress_interval_ns;
        let jitter = self.ticks.random() % (interval / 10).max(1);
        now_ns.saturating_add(interval + jitter)
    }

    pub(super) fn forget_tick(&mut self, id: Id) {
        if let Some(stream) = self.streams.get(id) {
            self.ticks.due.remove(&(stream.tick_ns, id));
        }
    }

    /// A watcher of the stream wants progress messages: its timer, which has run since the stream began, is watched.
    pub(super) fn watch_tick(&mut self, id: Id, now_ns: u64) {
        let interval = self.settings.progress_interval_ns;
        if let Some(stream) = self.streams.get_mut(id)
            && stream.notified > 0
        {
            self.ticks.due.remove(&(stream.tick_ns, id));
            while stream.tick_ns <= now_ns {
                stream.tick_ns += interval;
            }
            self.ticks.due.insert((stream.tick_ns, id));
        }
    }

    /// When `tick` has something to do.
    pub fn next_tick_ns(&self) -> Option<u64> {
        self.ticks.due.first().map(|(due_ns, _)| *due_ns)
    }

    /// Sends the progress messages that are due. Call `advance` before, until it has no more.
    pub fn tick(&mut self, sink: &mut impl Sink, now_ns: u64) {
        let interval = self.settings.progress_interval_ns;
        while let Some(&(due_ns, id)) = self.ticks.due.first()
            && due_ns <= now_ns
        {
            self.ticks.due.pop_first();
            let revision = self.live_revision();
            let Some(stream) = self.streams.get_mut(id) else {
                continue;
            };
            if stream.notified == 0 {
                continue;
            }
            // As a ticker that drops what nobody took in time.
            while stream.tick_ns <= now_ns {
                stream.tick_ns += interval;
            }
            self.ticks.due.insert((stream.tick_ns, id));
            let key = stream.key;
            let mut watchers: Vec<(i64, Id)> = stream.ids.iter().map(|(k, v)| (*k, *v)).collect();
            watchers.sort_unstable();
            for (watch_id, watcher) in watchers {
                let Some(watcher) = self.watchers.get_mut(watcher) else {
                    continue;
                };
                let Some(is_due) = watcher.progress.replace(true) else {
                    watcher.progress = None;
                    continue;
                };
                if is_due
                    && let Some(revision) = revision
                    && is_synced(watcher, revision)
                    && put_progress(sink, key, watch_id, revision)
                {
                    self.counts.messages += 1;
                }
            }
        }
    }

    pub(super) fn ask_progress_id(&mut self, id: Id) {
        if let Some(stream) = self.streams.get_mut(id) {
            if stream.asked == 0 {
                self.ticks.asked.push(id);
            }
            stream.asked = (stream.asked + 1).min(ASKED_MAX);
        }
    }

    /// Whether streams wait for [`Hub::answer_progress`].
    pub fn is_asked(&self) -> bool {
        !self.ticks.asked.is_empty()
    }

    /// Answers progress requests, where every watcher of the stream has everything; others get no answer, as in etcd.
    /// Call `advance` before; while it has more to do the requests wait.
    pub fn answer_progress(&mut self, sink: &mut impl Sink) {
        if self.has_live_round() {
            return;
        }
        let revision = self.live_revision();
        for id in std::mem::take(&mut self.ticks.asked) {
            let Some(stream) = self.streams.get_mut(id) else {
                continue;
            };
            let (key, asked) = (stream.key, std::mem::take(&mut stream.asked));
            let Some(revision) = revision else { continue };
            let all_synced = !stream.ids.is_empty()
                && stream.ids.values().all(|watcher| {
                    let watcher = self.watchers.get(*watcher);
                    watcher.is_some_and(|watcher| is_synced(watcher, revision))
                });
            for _ in 0..asked {
                if all_synced && put_progress(sink, key, -1, revision) {
                    self.counts.messages += 1;
                }
            }
        }
    }
}

fn is_synced(watcher: &Watcher, revision: i64) -> bool {
    matches!(watcher.home, Home::Live(_)) && watcher.start <= revision
}

fn put_progress(sink: &mut impl Sink, key: StreamKey, watch_id: i64, revision: i64) -> bool {
    if sink.output(key) != Output::Ready {
        return false;
    }
    let control = WatchControl {
        watch_id,
        ..WatchControl::default()
    };
    let mut message = Vec::with_capacity(64);
    put_watch_control(&mut message, &sink.header(revision), &control);
    sink.put(key, &[&message]);
    true
}
