//! Where watchers stand in the history: live, in the future, behind, stalled; and how they move.
//!
//! Invariants
//! - All live watchers have been sent, or are in the round under way for, everything below `live.next`.
//! - Watchers of a cursor have been sent everything below its `at`. While its round is under way a cursor is in no
//!   list, so nobody joins it at a revision that is already being handed out.
//! - While anybody is live, a hold keeps compactions from deleting what the live place has not read.
//!
//! A net core calls `advance` when the apply core has rung, and `catch_up` from its background task while it says that
//! there is more to do.

use std::collections::{BTreeSet, VecDeque};

use rustc_hash::FxHashMap;
use slab::Slab;
use storage::mvcc::{Hold, TreeSnapshot};
use wire::kv::{WatchControl, put_watch_fragment, put_watch_id, put_watch_verdict};

use super::hub::{Flow, Home, Hub};
use super::matcher::Matcher;
use super::round::{Body, Round};
use super::slots::Id;
use super::{Output, Sink};
use crate::net::ConnectionKey;

/// Watchers that move from one place to another in one turn.
const MOVES_MAX: usize = 2048;
/// Stalled watchers of one stream that are set going in one turn.
const RESUMES_MAX: usize = 64;
/// Streams looked at for that in one turn.
const STREAMS_MAX: usize = 16;
/// Records looked at that cost as much as one message.
const RECORDS_PER_MESSAGE: usize = 4;
/// Bytes, encoded or sent, that cost as much as one message.
const BYTES_PER_MESSAGE: usize = 2048;

#[derive(Default)]
pub(super) struct Live {
    matcher: Matcher,
    /// The first revision that is not read yet; means something while `is_open`.
    next: i64,
    is_open: bool,
    hold: Option<Hold>,
    round: Option<Round>,
    /// By the revision they wait for.
    future: BTreeSet<(i64, Id)>,
}

struct Cursor {
    /// The next revision of its watchers.
    at: i64,
    matcher: Matcher,
}

#[derive(Default)]
pub(super) struct Behind {
    cursors: Slab<Cursor>,
    /// Cursors without a round, by where they are.
    order: BTreeSet<(i64, u32)>,
    /// The cursor that had the last turn.
    turn: (i64, u32),
    /// The round under way, and its cursor.
    round: Option<(u32, Round)>,
    /// Streams with stalled watchers whose clients may take something again.
    resuming: VecDeque<Id>,
    /// Streams that wait for room, by connection.
    blocked: FxHashMap<ConnectionKey, Vec<Id>>,
    /// Memory of the last round.
    spare: Option<Round>,
}

impl Behind {
    pub(super) fn forget_blocked(&mut self, connection: ConnectionKey, stream: Id) {
        if let Some(streams) = self.blocked.get_mut(&connection) {
            streams.retain(|held| *held != stream);
            if streams.is_empty() {
                self.blocked.remove(&connection);
            }
        }
    }
}

impl<T: TreeSnapshot> Hub<T> {
    // ---- live ----

    /// Whether new revisions concern anybody here.
    pub fn follows(&self) -> bool {
        self.live.is_open || !self.live.future.is_empty() || self.live.round.is_some()
    }

    /// Sends live watchers what is new, about `budget` messages of it; true if there is more.
    pub fn advance(&mut self, sink: &mut impl Sink, budget: usize) -> bool {
        let mut budget = budget;
        loop {
            if let Some(mut round) = self.live.round.take() {
                if !self.deliver(&mut round, sink, &mut budget) {
                    self.live.round = Some(round);
                    return true;
                }
                self.behind.spare = Some(round);
            }
            let view = self.reader.view();
            self.wake_future(view.revision);
            if !self.live.is_open || view.revision < self.live.next {
                return false;
            }
            if budget == 0 {
                return true;
            }
            if self.live.hold.is_none() && self.live.next < view.compact_revision {
                // Nothing held the history back, so part of it may be gone: their cursor will find out.
                drop(view);
                self.fall_behind();
                return false;
            }
            let first_future = self.live.future.first().map_or(i64::MAX, |(at, _)| *at);
            let through = view.revision.min(first_future - 1);
            let mut round = self.behind.spare.take().unwrap_or_default();
            let stretch = (self.live.next, through);
            let looked_at = round.read(&view, &self.live.matcher, stretch, None);
            budget = budget.saturating_sub(1 + looked_at / RECORDS_PER_MESSAGE);
            self.live.next = round.through + 1;
            if let Some(hold) = &mut self.live.hold {
                hold.advance(round.through);
            }
            self.live.round = Some(round);
        }
    }

    /// The last revision whose events are all sent to the live watchers; none while a round is under way.
    pub(super) fn live_revision(&self) -> Option<i64> {
        let is_settled = self.live.is_open && self.live.round.is_none();
        is_settled.then(|| self.live.next - 1)
    }

    pub(super) fn has_live_round(&self) -> bool {
        self.live.round.is_some()
    }

    /// Moves those whose revision has come.
    fn wake_future(&mut self, revision: i64) {
        while let Some(&(at, id)) = self.live.future.first() {
            let come = if self.live.is_open {
                self.live.next
            } else {
                revision + 1
            };
            if at > come {
                return;
            }
            self.live.future.pop_first();
            self.set_home(id, Home::Nowhere);
            self.place(id, at);
        }
    }

    /// Opens the live place at `at`, if all that follows is sure to be there.
    fn open_live(&mut self, at: i64) -> bool {
        debug_assert!(self.live.matcher.is_empty());
        let hold = self.reader.hold(at - 1);
        if hold.is_none() && at <= self.reader.compact_revision() {
            return false;
        }
        // What is left of an old round concerns nobody who is still here.
        self.live.round = None;
        self.live.hold = hold;
        self.live.next = at;
        self.live.is_open = true;
        true
    }

    fn fall_behind(&mut self) {
        let at = self.live.next;
        while let Some(id) = self.live.matcher.pop() {
            self.set_home(id, Home::Nowhere);
            self.join_cursor(id, at);
        }
        self.close_live_if_empty();
    }

    fn close_live_if_empty(&mut self) {
        if self.live.matcher.is_empty() {
            self.live.is_open = false;
            self.live.hold = None;
        }
    }

    // ---- homes ----

    /// Gives a watcher whose next revision is `next` its home.
    pub(super) fn place(&mut self, id: Id, next: i64) {
        if !self.live.is_open {
            let revision = self.reader.revision();
            if next > revision + 1 {
                self.live.future.insert((next, id));
                return self.set_home(id, Home::Future(next));
            }
            if next <= revision || !self.open_live(next) {
                return self.join_cursor(id, next);
            }
        }
        if next > self.live.next {
            self.live.future.insert((next, id));
            self.set_home(id, Home::Future(next));
        } else if next == self.live.next {
            let Some(watcher) = self.watchers.get(id) else {
                return;
            };
            let matcher = &mut self.live.matcher;
            let place = matcher.insert(&watcher.interval, watcher.wants, id);
            self.set_home(id, Home::Live(place));
        } else {
            self.join_cursor(id, next);
        }
    }

    fn join_cursor(&mut self, id: Id, at: i64) {
        let known = self.behind.order.range((at, 0)..).next();
        let number = match known {
            Some(&(there, number)) if there == at => number,
            _ => {
                let matcher = Matcher::default();
                let number = self.behind.cursors.insert(Cursor { at, matcher }) as u32;
                self.behind.order.insert((at, number));
                number
            }
        };
        self.add_to_cursor(id, number);
    }

    fn add_to_cursor(&mut self, id: Id, number: u32) {
        let Some(watcher) = self.watchers.get(id) else {
            return;
        };
        let matcher = &mut self.behind.cursors[number as usize].matcher;
        let place = matcher.insert(&watcher.interval, watcher.wants, id);
        self.set_home(id, Home::Behind(number, place));
    }

    fn set_home(&mut self, id: Id, home: Home) {
        let Some(watcher) = self.watchers.get_mut(id) else {
            return;
        };
        let is_slow = |home| matches!(home, Home::Behind(..) | Home::Stalled(_));
        let before = std::mem::replace(&mut watcher.home, home);
        self.slow += usize::from(is_slow(home));
        self.slow -= usize::from(is_slow(before));
    }

    /// Takes a watcher out of its home.
    pub(super) fn leave_home(&mut self, id: Id) {
        let Some(watcher) = self.watchers.get(id) else {
            return;
        };
        match watcher.home {
            Home::Live(place) => {
                if let Some(moved) = self.live.matcher.remove(place) {
                    self.set_home(moved, Home::Live(place));
                }
                self.close_live_if_empty();
            }
            Home::Behind(number, place) => {
                let cursor = &mut self.behind.cursors[number as usize];
                let (moved, at) = (cursor.matcher.remove(place), cursor.at);
                if let Some(moved) = moved {
                    self.set_home(moved, Home::Behind(number, place));
                } else if self.behind.cursors[number as usize].matcher.is_empty()
                    && self.behind.order.remove(&(at, number))
                {
                    // One whose round is under way goes when that ends.
                    self.behind.cursors.remove(number as usize);
                }
            }
            Home::Future(next) => {
                self.live.future.remove(&(next, id));
            }
            Home::Stalled(next) => {
                if let Some(stream) = self.streams.get_mut(watcher.stream) {
                    stream.stalled.remove(&(next, id));
                }
            }
            Home::Compacted | Home::Nowhere => {}
        }
        self.set_home(id, Home::Nowhere);
    }

    // ---- handing out ----

    /// Hands out a round; false when the budget ended it before all was done.
    fn deliver(&mut self, round: &mut Round, sink: &mut impl Sink, budget: &mut usize) -> bool {
        let reader = self.reader.clone();
        loop {
            if *budget == 0 {
                return false;
            }
            let mut encoded = 0;
            let next = round.next(&mut encoded, &mut || reader.view(), &mut |revision| {
                sink.header(revision)
            });
            let Some((id, body)) = next else { return true };
            let sent = self.hand_over(id, body, sink);
            let cost = 1 + (encoded + sent) / BYTES_PER_MESSAGE;
            *budget = budget.saturating_sub(cost);
        }
    }

    /// Sends a watcher its message, if it is still there and its client takes it; returns the bytes sent.
    fn hand_over(&mut self, id: Id, body: &Body, sink: &mut impl Sink) -> usize {
        let Some(watcher) = self.watchers.get_mut(id) else {
            // Cancelled since the round was read.
            return 0;
        };
        let stream = watcher.stream;
        let key = match self.streams.get(stream) {
            Some(stream) => stream.key,
            None => return 0,
        };
        match sink.output(key) {
            Output::Ready => {}
            Output::Gone => {
                self.close_id(stream);
                return 0;
            }
            Output::Blocked => {
                let next = match body.compact_revision {
                    // It has something to be told, but nothing to be read.
                    Some(_) => 0,
                    None => body.first,
                };
                self.stall(id, next, sink);
                return 0;
            }
        }
        let mut watch_id = Vec::with_capacity(11);
        put_watch_id(&mut watch_id, watcher.watch_id);
        if let Some(compact_revision) = body.compact_revision {
            let mut verdict = Vec::new();
            let control = WatchControl {
                canceled: true,
                compact_revision,
                ..WatchControl::default()
            };
            put_watch_verdict(&mut verdict, &control);
            sink.put(key, &[&body.head, &watch_id, &verdict]);
            self.counts.messages += 1;
            self.counts.compacted += 1;
            self.leave_home(id);
            self.set_home(id, Home::Compacted);
            return 0;
        }
        if let Some(is_due) = &mut watcher.progress {
            *is_due = false;
        }
        let bytes = body.head.len() + watch_id.len() + body.rest.len();
        let is_split =
            watcher.fragment && bytes >= self.settings.fragment_bytes && body.ends.len() > 1;
        self.counts.events += body.ends.len() as u64;
        if is_split {
            self.counts.messages +=
                put_parts(sink, key, body, &watch_id, self.settings.fragment_bytes);
        } else {
            self.counts.messages += 1;
            sink.put(key, &[&body.head, &watch_id, &body.rest]);
        }
        bytes
    }

    fn stall(&mut self, id: Id, next: i64, sink: &mut impl Sink) {
        self.leave_home(id);
        let Some(watcher) = self.watchers.get(id) else {
            return;
        };
        let stream_id = watcher.stream;
        self.counts.stalls += 1;
        self.set_home(id, Home::Stalled(next));
        let Some(stream) = self.streams.get_mut(stream_id) else {
            return;
        };
        stream.stalled.insert((next, id));
        if stream.flow == Flow::Free {
            self.block(stream_id, sink);
        }
    }

    fn block(&mut self, stream_id: Id, sink: &mut impl Sink) {
        let Some(stream) = self.streams.get_mut(stream_id) else {
            return;
        };
        stream.flow = Flow::Blocked;
        let key = stream.key;
        let blocked = &mut self.behind.blocked;
        blocked.entry(key.connection).or_default().push(stream_id);
        sink.await_room(key);
    }

    // ---- behind ----

    /// The clients of a connection have taken its output: its stalled watchers go on with the next `catch_up`.
    pub fn on_room(&mut self, connection: ConnectionKey) {
        for id in self.behind.blocked.remove(&connection).unwrap_or_default() {
            if let Some(stream) = self.streams.get_mut(id) {
                stream.flow = Flow::Resuming;
                self.behind.resuming.push_back(id);
            }
        }
    }

    /// Whether `catch_up` has something to do.
    pub fn lags(&self) -> bool {
        let behind = &self.behind;
        behind.round.is_some() || !behind.order.is_empty() || !behind.resuming.is_empty()
    }

    /// One slice of the history for one cursor, or about `budget` messages of it; true if there is more to do.
    pub fn catch_up(&mut self, sink: &mut impl Sink, budget: usize) -> bool {
        self.resume(sink);
        let (number, mut round) = match self.behind.round.take() {
            Some(round) => round,
            None => match self.next_round() {
                Some(round) => round,
                None => return self.lags(),
            },
        };
        let mut budget = budget;
        if !self.deliver(&mut round, sink, &mut budget) {
            self.behind.round = Some((number, round));
            return true;
        }
        let at = round.through + 1;
        self.behind.spare = Some(round);
        self.settle(number, at);
        self.lags()
    }

    /// Takes the next cursor in turn and reads on with it.
    fn next_round(&mut self) -> Option<(u32, Round)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let order = &self.behind.order;
        let after = order.range((Excluded(self.behind.turn), Unbounded)).next();
        let (at, number) = *after.or_else(|| order.first())?;
        self.behind.turn = (at, number);
        self.behind.order.remove(&(at, number));
        let view = self.reader.view();
        let matcher = &self.behind.cursors[number as usize].matcher;
        let mut round = self.behind.spare.take().unwrap_or_default();
        if at < view.compact_revision {
            round.cancel(matcher, at, view.compact_revision);
            return Some((number, round));
        }
        let next_cursor = self.behind.order.range((at + 1, 0)..).next();
        let mut through = view.revision;
        if let Some((there, _)) = next_cursor {
            through = through.min(there - 1);
        }
        if self.live.is_open {
            through = through.min(self.live.next - 1);
        }
        if at <= through {
            round.read(&view, matcher, (at, through), Some(view.revision));
            return Some((number, round));
        }
        drop(view);
        self.behind.spare = Some(round);
        self.settle(number, at);
        None
    }

    /// A cursor has come to `at`: whoever stands there is joined, as far as one turn allows.
    fn settle(&mut self, number: u32, at: i64) {
        self.behind.cursors[number as usize].at = at;
        let is_live = if self.live.is_open {
            at >= self.live.next
        } else {
            at > self.reader.revision()
        };
        if is_live {
            for _ in 0..MOVES_MAX {
                let Some(id) = self.behind.cursors[number as usize].matcher.pop() else {
                    break;
                };
                self.set_home(id, Home::Nowhere);
                self.place(id, at);
            }
        } else if let Some(&(there, other)) = self.behind.order.range((at, 0)..).next()
            && there == at
        {
            self.merge(number, other);
        }
        if self.behind.cursors[number as usize].matcher.is_empty() {
            self.behind.cursors.remove(number as usize);
        } else {
            self.behind.order.insert((at, number));
        }
    }

    /// Brings the watchers of two cursors at one revision together, the fewer to the more.
    fn merge(&mut self, number: u32, other: u32) {
        let len = |number: u32| self.behind.cursors[number as usize].matcher.len();
        let (from, to) = if len(number) <= len(other) {
            (number, other)
        } else {
            (other, number)
        };
        for _ in 0..MOVES_MAX {
            let Some(id) = self.behind.cursors[from as usize].matcher.pop() else {
                break;
            };
            self.set_home(id, Home::Nowhere);
            self.add_to_cursor(id, to);
        }
        if from == other && self.behind.cursors[other as usize].matcher.is_empty() {
            let at = self.behind.cursors[other as usize].at;
            self.behind.order.remove(&(at, other));
            self.behind.cursors.remove(other as usize);
        }
    }

    /// Sets stalled watchers going whose streams have room.
    fn resume(&mut self, sink: &mut impl Sink) {
        for _ in 0..self.behind.resuming.len().min(STREAMS_MAX) {
            let Some(id) = self.behind.resuming.pop_front() else {
                return;
            };
            let Some(stream) = self.streams.get(id) else {
                continue;
            };
            match sink.output(stream.key) {
                Output::Gone => {
                    self.close_id(id);
                    continue;
                }
                Output::Blocked => {
                    self.block(id, sink);
                    continue;
                }
                Output::Ready => {}
            }
            for _ in 0..RESUMES_MAX {
                let stalled = self.streams.get_mut(id).map(|stream| &mut stream.stalled);
                let Some((next, watcher)) = stalled.and_then(BTreeSet::pop_first) else {
                    break;
                };
                self.set_home(watcher, Home::Nowhere);
                self.place(watcher, next);
            }
            let Some(stream) = self.streams.get_mut(id) else {
                continue;
            };
            if stream.stalled.is_empty() {
                stream.flow = Flow::Free;
            } else {
                self.behind.resuming.push_back(id);
            }
        }
    }

    /// Events read and not yet sent.
    pub fn pending_events(&self) -> usize {
        let behind = self
            .behind
            .round
            .as_ref()
            .map_or(0, |(_, round)| round.pending());
        behind + self.live.round.as_ref().map_or(0, Round::pending)
    }
}

/// Sends a large message in parts, as etcd cuts it: each below the bound unless it has one event.
fn put_parts(
    sink: &mut impl Sink,
    key: super::StreamKey,
    body: &Body,
    watch_id: &[u8],
    bytes_max: usize,
) -> u64 {
    let mut mark = Vec::with_capacity(2);
    put_watch_fragment(&mut mark);
    let fixed = body.head.len() + watch_id.len() + mark.len();
    let mut parts = 0;
    let mut start = 0;
    let mut begun = 0;
    while begun < body.ends.len() {
        let mut end = begun + 1;
        while end < body.ends.len() && fixed + (body.ends[end] - start) < bytes_max {
            end += 1;
        }
        let piece = &body.rest[start..body.ends[end - 1]];
        let mark = if end < body.ends.len() {
            &mark[..]
        } else {
            &[]
        };
        sink.put(key, &[&body.head, watch_id, mark, piece]);
        parts += 1;
        start = body.ends[end - 1];
        begun = end;
    }
    parts
}

#[cfg(test)]
impl<T: TreeSnapshot> Hub<T> {
    /// Nothing is kept of watchers and streams that are gone.
    pub(super) fn assert_places_forgotten(&self) {
        let Live {
            matcher,
            is_open,
            hold,
            future,
            ..
        } = &self.live;
        assert!(matcher.is_empty() && !is_open && hold.is_none() && future.is_empty());
        let behind = &self.behind;
        assert!(behind.order.is_empty() && behind.blocked.is_empty());
        // A cursor whose round is under way goes when that ends.
        assert_eq!(behind.cursors.len(), usize::from(behind.round.is_some()));
    }
}
