//! Watch streams on a net core: requests on their way to the hub, and the hub's messages on their way to clients.
//!
//! Live watchers are served in the pass that the apply core's bell begins; those that read history by a background
//! task, a slice at a time. Always true here: a control answer is written before anything that follows from its
//! request; a stream is given more only while its client takes what it was given, so what a slow client costs is
//! bounded by one message for each of its streams.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use storage::tree::Snapshot;
use wire::error::EtcdError;
use wire::grpc::{Call, CancelReason, Responder};
use wire::kv::{ResponseHeader, WatchControl, WatchCreateRef, WatchRequestRef, put_watch_control};

use crate::auth::refusal;
use crate::metrics::{StreamApi, StreamDirection};
use crate::runtime::{Signal, sleep, yield_now};
use crate::services::methods::id;
use crate::watch::{Created, Hub, Output, Sink, StreamKey};

use super::calls::{CallError, Calls, Handled};
use super::connection::ConnectionKey;
use super::core::{NetCore, fail};

/// Messages to live watchers before the other tasks of the core get their turn, a larger one counted by its bytes: some
/// hundred microseconds, or about a millisecond if each goes to a connection of its own.
const LIVE_MESSAGES: usize = 256;
/// The same for watchers that read history.
const HISTORY_MESSAGES: usize = 128;
/// Bounds of how often progress timers are looked at; in between, a tenth of their interval.
const TICK_MIN: Duration = Duration::from_millis(10);
const TICK_MAX: Duration = Duration::from_millis(500);

/// Connections whose clients have taken what waited for them, and whose watchers or backups want to know.
#[derive(Default)]
pub struct Drained {
    keys: RefCell<Vec<ConnectionKey>>,
    /// Wakes the background task.
    signal: Signal,
}

impl Drained {
    pub fn push(&self, key: ConnectionKey) {
        self.keys.borrow_mut().push(key);
        self.signal.notify();
    }
}

/// What a net core knows of its watchers.
pub struct Watching {
    pub hub: Hub<Snapshot>,
    /// A request has come in this pass.
    is_touched: bool,
    /// Control answers of this pass.
    controls: u32,
    /// Streams, watchers and slow ones as the gauges show them.
    shown: [i64; 4],
    /// Since when there is no leader.
    leaderless_since_ns: Option<u64>,
}

impl Watching {
    pub fn new(hub: Hub<Snapshot>) -> Watching {
        Watching {
            hub,
            is_touched: false,
            controls: 0,
            shown: [0; 4],
            leaderless_since_ns: None,
        }
    }
}

impl Calls<'_> {
    /// Whether the call is a stream that has begun before.
    pub(super) fn is_watching(&self, call: &Call<'_>) -> bool {
        call.method == id::WATCH_WATCH && self.state.watching.hub.has_stream(self.stream_key(call))
    }

    /// A message on a watch stream, the first one too.
    pub(super) fn watch(
        &mut self,
        call: &Call<'_>,
        message: &[u8],
        out: &mut Responder<'_>,
    ) -> Handled {
        let key = self.stream_key(call);
        let request = match WatchRequestRef::decode(message) {
            Ok(request) => request,
            Err(error) => {
                let metrics = &self.state.metrics;
                metrics.stream_failed(StreamDirection::Receive, StreamApi::Watch);
                self.state.watching.hub.close(key);
                return Err(CallError::from(error));
            }
        };
        self.open_watch(call, out);
        let now_ns = self.state.now_ns;
        let denied = match &request {
            WatchRequestRef::Create(create) => self.watch_denied(call, create),
            _ => None,
        };
        let mut header = self.state.header();
        let watching = &mut self.state.watching;
        watching.is_touched = true;
        let reason;
        let control = match request {
            // As etcd: it says nothing that could be answered.
            WatchRequestRef::None => return Ok(()),
            WatchRequestRef::Progress => {
                watching.hub.ask_progress(key);
                return Ok(());
            }
            WatchRequestRef::Create(_) if denied.is_some() => {
                reason = denied
                    .map(EtcdError::watch_cancel_reason)
                    .unwrap_or_default();
                WatchControl {
                    watch_id: -1,
                    created: true,
                    canceled: true,
                    cancel_reason: &reason,
                    ..WatchControl::default()
                }
            }
            WatchRequestRef::Create(create) => {
                let created = watching.hub.create(key, &create, now_ns);
                header.revision = created.revision;
                WatchControl {
                    watch_id: created.watch_id,
                    created: true,
                    canceled: created.refusal.is_some(),
                    cancel_reason: created.refusal.unwrap_or(""),
                    ..WatchControl::default()
                }
            }
            WatchRequestRef::Cancel(watch_id) => {
                let Some(revision) = watching.hub.cancel(key, watch_id) else {
                    return Ok(());
                };
                header.revision = revision;
                WatchControl {
                    watch_id,
                    canceled: true,
                    ..WatchControl::default()
                }
            }
        };
        watching.controls += 1;
        out.message(call.stream, |buffer| {
            put_watch_control(buffer, &header, &control);
        });
        Ok(())
    }

    /// Why somebody may not watch these keys. A watcher that is there stays when its user loses the right, as in etcd.
    fn watch_denied(&mut self, call: &Call<'_>, create: &WatchCreateRef<'_>) -> Option<EtcdError> {
        // A revision that cannot be is told first.
        if create.start_revision < 0 {
            return None;
        }
        let who = match self.identify(call) {
            Ok(who) => who,
            Err(error) => return Some(error),
        };
        let (rights, _) = self.state.auth.rights(who.as_ref());
        let key = match create.key {
            b"" => b"\0",
            key => key,
        };
        let denied = rights.may_read(key, create.range_end).err()?;
        Some(refusal(denied))
    }

    /// The client sends no more requests; its watchers go on.
    pub(super) fn watch_half_closed(
        &mut self,
        call: &Call<'_>,
        out: &mut Responder<'_>,
    ) -> Handled {
        if !self.is_watching(call) {
            self.begin(call)?;
            self.open_watch(call, out);
        }
        Ok(())
    }

    pub(super) fn watch_over(&mut self, key: StreamKey, reason: CancelReason) {
        if reason == CancelReason::SlowReader {
            let metrics = &self.state.metrics;
            metrics.stream_failed(StreamDirection::Send, StreamApi::Watch);
        }
        self.state.watching.hub.close(key);
        self.state.watching.is_touched = true;
    }

    fn open_watch(&mut self, call: &Call<'_>, out: &mut Responder<'_>) {
        let key = self.stream_key(call);
        if self.state.watching.hub.has_stream(key) {
            return;
        }
        out.be_patient(call.stream);
        let needs_leader = call.metadata.get(b"hasleader") == Some(b"true");
        self.state.open_watch(key, needs_leader);
    }

    fn stream_key(&self, call: &Call<'_>) -> StreamKey {
        StreamKey {
            connection: self.connection,
            stream: call.stream,
        }
    }
}

/// The output of the core's connections.
struct CoreSink<'a> {
    core: &'a NetCore,
    header: ResponseHeader,
}

impl Sink for CoreSink<'_> {
    fn output(&mut self, key: StreamKey) -> Output {
        if let Some(errand) = self.core.errands.get(key) {
            return errand.output();
        }
        let connections = self.core.connections.borrow();
        let Some(connection) = connections.get(key.connection) else {
            return Output::Gone;
        };
        if !connection.takes_output() {
            return Output::Blocked;
        }
        let mut output = Output::Gone;
        connection.respond(|out| {
            if out.is_open(key.stream) {
                output = match out.backlog_bytes(key.stream) {
                    0 => Output::Ready,
                    _ => Output::Blocked,
                };
            }
        });
        output
    }

    fn put(&mut self, key: StreamKey, parts: &[&[u8]]) {
        if let Some(errand) = self.core.errands.get(key) {
            return errand.put(parts);
        }
        self.core.respond(key.connection, |out| {
            out.message(key.stream, |buffer| {
                buffer.reserve(parts.iter().map(|part| part.len()).sum());
                for part in parts {
                    buffer.extend_from_slice(part);
                }
            });
        });
    }

    fn await_room(&mut self, key: StreamKey) {
        if self.core.errands.get(key).is_some() {
            // It tells the hub by itself when it has looked at its news.
            return;
        }
        let connections = self.core.connections.borrow();
        if let Some(connection) = connections.get(key.connection) {
            connection.tell_when_drained(self.core.drained.clone());
        }
    }

    fn header(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            revision,
            ..self.header
        }
    }
}

impl NetCore {
    fn sink(&self, header: ResponseHeader) -> CoreSink<'_> {
        CoreSink { core: self, header }
    }

    /// Serves live watchers and their streams' requests, if a request has come or `has_news`. True if it must be
    /// called again once other tasks had their turn.
    pub(super) fn serve_watchers(&self, has_news: bool) -> bool {
        let state = &mut *self.state.borrow_mut();
        let is_touched = std::mem::take(&mut state.watching.is_touched);
        let hub = &state.watching.hub;
        if !is_touched && !(has_news && (hub.follows() || hub.is_asked())) {
            return false;
        }
        let begun_ns = self.clock.now_ns();
        let mut sink = self.sink(state.header());
        let hub = &mut state.watching.hub;
        let is_more = hub.advance(&mut sink, LIVE_MESSAGES);
        if !is_more && hub.is_asked() {
            hub.answer_progress(&mut sink);
        }
        if hub.lags() {
            self.drained.signal.notify();
        }
        if hub.is_empty() {
            state.shared.watches[usize::from(self.id.0)].store(false, Ordering::SeqCst);
        }
        let took = Duration::from_nanos(self.clock.now_ns() - begun_ns);
        state.count_watching(took);
        is_more
    }

    /// The background task of watchers that read history.
    pub async fn catch_watchers_up(self: Rc<Self>) {
        loop {
            self.drained.signal.wait().await;
            loop {
                let is_more = self.catch_up_slice();
                self.flush_dirty();
                if !is_more {
                    break;
                }
                yield_now().await;
            }
        }
    }

    fn catch_up_slice(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        let begun_ns = self.clock.now_ns();
        state.now_ns = begun_ns;
        let drained = std::mem::take(&mut *self.drained.keys.borrow_mut());
        for key in drained {
            state.watching.hub.on_room(key);
            if state.watching.hub.is_asked() {
                // Its progress may have waited for this.
                self.inbox_signal.notify();
            }
            self.on_backup_room(state, key);
            self.errands.on_room(key);
        }
        let mut sink = self.sink(state.header());
        let hub = &mut state.watching.hub;
        let is_more = hub.catch_up(&mut sink, HISTORY_MESSAGES);
        let took = Duration::from_nanos(self.clock.now_ns() - begun_ns);
        state.count_watching(took);
        is_more
    }

    /// Progress messages on time, and the end of streams whose clients want a leader.
    pub async fn keep_watchers_time(self: Rc<Self>) {
        let interval = self.state.borrow().settings.watch.progress_interval_ns;
        let pause = Duration::from_nanos(interval / 10).clamp(TICK_MIN, TICK_MAX);
        while !self.shared.is_stopping() {
            sleep(pause).await;
            self.tick_watchers();
            self.flush_dirty();
        }
    }

    fn tick_watchers(&self) {
        let now_ns = self.clock.now_ns();
        let is_leaderless = {
            let state = &mut *self.state.borrow_mut();
            let patience_ns = state.settings.leaderless_max_ns;
            let since_ns = &mut state.watching.leaderless_since_ns;
            if self.shared.leader() == 0 {
                let since_ns = *since_ns.get_or_insert(now_ns);
                now_ns.saturating_sub(since_ns) >= patience_ns
            } else {
                *since_ns = None;
                false
            }
        };
        if is_leaderless {
            self.end_watches(EtcdError::NoLeader, true);
        }
        let state = &mut *self.state.borrow_mut();
        state.now_ns = now_ns;
        let hub = &mut state.watching.hub;
        if hub.next_tick_ns().is_none_or(|due_ns| now_ns < due_ns) {
            return;
        }
        let mut sink = self.sink(state.header());
        let hub = &mut state.watching.hub;
        if hub.advance(&mut sink, LIVE_MESSAGES) {
            // Progress is for those who have everything; look again when that is so.
            self.inbox_signal.notify();
        } else {
            hub.tick(&mut sink, now_ns);
            let took = Duration::from_nanos(self.clock.now_ns() - now_ns);
            let histograms = &state.metrics.histograms;
            histograms.watch_send_loop_progress.observe(took);
        }
        state.count_watching(Duration::ZERO);
    }

    /// Ends watch streams with an error: all, or those whose clients want a leader.
    pub(super) fn end_watches(&self, error: EtcdError, only_leader_bound: bool) {
        let keys = self.state.borrow().watching.hub.keys(only_leader_bound);
        for key in keys {
            self.respond(key.connection, |out| fail(out, key.stream, error));
            self.state.borrow_mut().watching.hub.close(key);
        }
        self.state.borrow_mut().count_watching(Duration::ZERO);
        self.flush_dirty();
    }
}

impl super::state::NetState {
    /// A stream of watchers begins.
    fn open_watch(&mut self, key: StreamKey, needs_leader: bool) {
        if self.watching.hub.is_empty() {
            // From here on the apply core rings for each new revision. It looks at this word behind a fence after
            // it has published one, so either it sees the word or the watchers here see the revision.
            self.shared.watches[usize::from(self.id.0)].store(true, Ordering::SeqCst);
            fence(Ordering::SeqCst);
        }
        self.watching.hub.open(key, needs_leader, self.now_ns);
    }

    /// A watcher of an errand, in a stream under its call. The caller notifies the core's inbox.
    pub(super) fn watch_as(&mut self, key: StreamKey, create: &WatchCreateRef<'_>) -> Created {
        if !self.watching.hub.has_stream(key) {
            self.open_watch(key, false);
        }
        self.watching.is_touched = true;
        self.watching.hub.create(key, create, self.now_ns)
    }

    /// Books what the hub did in `took`, and brings the gauges up to date.
    fn count_watching(&mut self, took: Duration) {
        let watching = &mut self.watching;
        let counts = watching.hub.take_counts();
        let controls = std::mem::take(&mut watching.controls);
        let (counters, histograms) = (&self.metrics.counters, &self.metrics.histograms);
        if counts.messages + u64::from(controls) > 0 {
            let sent = counts.messages + u64::from(controls);
            self.metrics.grpc.sent_many(id::WATCH_WATCH, sent);
        }
        if counts.events > 0 {
            counters.mvcc_events.add(counts.events);
            histograms.watch_send_loop_watch_stream.observe(took);
            histograms
                .watch_send_loop_watch_stream_duration_per_event
                .observe(took.div_f64(counts.events as f64));
        }
        for _ in 0..controls {
            histograms
                .watch_send_loop_control_stream
                .observe(took / controls);
        }
        counters.watch_stalls.add(counts.stalls);
        counters.watch_refused.add(counts.refused);
        counters.watch_compacted.add(counts.compacted);
        let hub = &watching.hub;
        let now = [
            hub.streams() as i64,
            hub.watchers() as i64,
            hub.slow_watchers() as i64,
            hub.pending_events() as i64,
        ];
        let gauges = self.metrics.gauges();
        let cells = [
            &gauges.mvcc_watch_stream,
            &gauges.mvcc_watcher,
            &gauges.mvcc_slow_watcher,
            &gauges.mvcc_pending_events,
        ];
        for ((cell, now), shown) in cells.into_iter().zip(now).zip(&mut watching.shown) {
            if now != *shown {
                cell.add(now - *shown);
                *shown = now;
            }
        }
    }
}
