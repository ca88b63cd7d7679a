//! The log core: Raft and the write-ahead log.
//!
//! One loop with one owner. Each turn it takes what the net cores propose and ask, what the disk has
//! finished and the time that passed, gives them to the Raft core, and carries out what comes back
//! in the order its contract asks for: writes in order of their numbers, messages and commits after
//! what they rest on.
//!
//! Always true here: at most one group write is under way, and everything that arrives meanwhile
//! goes into the next; the disk is never waited for, so ticks go on while it stalls; the first
//! failed write ends the process, and nothing it was meant to carry is acknowledged. On a full disk
//! proposals are refused while there is still room for all that were accepted before.
//!
//! Deliberately absent: what an entry means.

mod timeline;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use consensus::{LogIndex, ProposeError, Raft, Ready, Role, WriteNumber};
use storage::wal::{self, Position};
use wire::error::EtcdError;

use crate::fatal::fatal;
use crate::metrics::{CoreMetrics, Stage};
use crate::net::core::Clock;
use crate::pipeline::{Inbox, NetId, RequestId, Shared, Spill, ToApply, ToLog, ToNet};
use crate::runtime::{Signal, sleep};

use timeline::Timeline;

/// Entry kinds in the log.
pub const KIND_NORMAL: u8 = 0;
pub const KIND_CONF_CHANGE: u8 = 1;

/// Messages taken from one ring before the disk and Raft get their turn.
const INTAKE_MAX: usize = 4096;

/// On a full disk this much of the last segment is left for what was proposed before: as much as
/// Raft takes without having committed it.
const RESERVE_BYTES: u64 = 32 << 20;

pub struct LogStage {
    raft: Raft,
    ready: Ready,
    /// `None` once closed.
    wal: Option<wal::Log>,
    /// Writes handed to the log and not yet durable, oldest first.
    writes: VecDeque<PendingWrite>,
    timeline: Timeline,
    /// Of the turn that runs.
    now_ns: u64,
    inboxes: Vec<Inbox<ToLog>>,
    to_apply: Spill<ToApply>,
    to_net: Vec<Spill<ToNet>>,
    shared: Arc<Shared>,
    clock: Clock,
    metrics: Rc<CoreMetrics>,
    reported_applied: u64,
    checkpoint: u64,
    /// Clients' proposals are refused until space comes back.
    is_disk_full: bool,
}

struct PendingWrite {
    /// Of its last record.
    position: Position,
    number: WriteNumber,
    /// Of its last entry, 0 without one.
    last_index: u64,
}

/// What the stage is built from.
pub struct LogParts {
    pub raft: Raft,
    pub wal: wal::Log,
    pub inboxes: Vec<Inbox<ToLog>>,
    pub to_apply: Spill<ToApply>,
    pub to_net: Vec<Spill<ToNet>>,
    pub shared: Arc<Shared>,
    pub clock: Clock,
    pub metrics: Rc<CoreMetrics>,
}

impl LogStage {
    pub fn new(parts: LogParts) -> Rc<RefCell<LogStage>> {
        Rc::new(RefCell::new(LogStage {
            raft: parts.raft,
            ready: Ready::new(),
            wal: Some(parts.wal),
            writes: VecDeque::new(),
            timeline: Timeline::default(),
            now_ns: 0,
            inboxes: parts.inboxes,
            to_apply: parts.to_apply,
            to_net: parts.to_net,
            shared: parts.shared,
            clock: parts.clock,
            metrics: parts.metrics,
            reported_applied: 0,
            checkpoint: 0,
            is_disk_full: false,
        }))
    }

    /// The stage's task: a turn whenever something arrived.
    pub async fn run(stage: Rc<RefCell<LogStage>>, signal: Signal) {
        loop {
            stage.borrow_mut().turn();
            signal.wait().await;
        }
    }

    /// The stage's clock.
    pub async fn keep_time(stage: Rc<RefCell<LogStage>>, tick: Duration) {
        loop {
            sleep(tick).await;
            let mut stage = stage.borrow_mut();
            stage.raft.tick();
            let now_ns = stage.clock.now_ns();
            let ticked_ns = &stage.shared.progress.ticked_ns;
            ticked_ns.store(now_ns, Ordering::Relaxed);
            stage.turn();
        }
    }

    /// Works until there is nothing left to do without waiting.
    fn turn(&mut self) {
        if self.wal.is_none() {
            return;
        }
        self.look_for_space();
        self.now_ns = self.clock.now_ns();
        loop {
            let took = self.take_messages();
            self.report_applied();
            self.take_synced();
            self.raft.ready(&mut self.ready);
            if self.ready.is_empty() && !took {
                break;
            }
            self.carry_out();
            self.submit();
        }
        self.to_apply.flush();
        for ring in &mut self.to_net {
            ring.flush();
        }
    }

    fn take_messages(&mut self) -> bool {
        let mut took = false;
        for place in 0..self.inboxes.len() {
            for _ in 0..INTAKE_MAX {
                let Some(message) = self.inboxes[place].pop() else {
                    break;
                };
                took = true;
                self.on_message(message);
            }
        }
        took
    }

    fn on_message(&mut self, message: ToLog) {
        match message {
            ToLog::Propose { id, .. } if self.is_disk_full && Self::can_be_refused(id) => {
                self.metrics.counters.proposals_failed.inc();
                self.send(
                    id.net().0,
                    ToNet::Dropped {
                        id,
                        error: EtcdError::NoSpace,
                    },
                );
            }
            ToLog::Propose {
                id,
                command,
                parsed_ns,
            } => {
                let waited = Duration::from_nanos(self.now_ns.saturating_sub(parsed_ns));
                self.metrics.stage(Stage::Queue, waited);
                match self.raft.propose(command) {
                    Ok(index) => self.timeline.taken(index.0, self.now_ns),
                    Err(error) => self.drop_proposal(id, error),
                }
            }
            ToLog::ReadIndex { net, context } => {
                // Contexts are unique for each net core; Raft wants them unique for the member.
                let tagged = context << 8 | u64::from(net.0);
                if self.raft.read_index(tagged).is_err() {
                    self.metrics.counters.read_indexes_failed.inc();
                    let error = EtcdError::NoLeader;
                    self.send(net.0, ToNet::ReadIndexFailed { context, error });
                }
            }
            ToLog::Persisted { index } => {
                self.checkpoint = self.checkpoint.max(index);
                self.raft.on_checkpoint(LogIndex(self.checkpoint));
            }
        }
    }

    /// Whether the proposal can be refused: a client is told, and ends of leases are proposed again.
    fn can_be_refused(id: RequestId) -> bool {
        id.net() != NetId::MEMBER
    }

    /// Refuses clients' writes while the disk has no room for the log's next segment or for the tree
    /// file, and takes them again when it has.
    fn look_for_space(&mut self) {
        let is_log_full = self.wal().lacks_room(RESERVE_BYTES);
        let is_full = is_log_full
            || self
                .shared
                .progress
                .is_tree_disk_full
                .load(Ordering::Relaxed);
        if std::mem::replace(&mut self.is_disk_full, is_full) == is_full {
            return;
        }
        if is_full {
            tracing::error!(
                file = if is_log_full {
                    "write-ahead log"
                } else {
                    "tree file"
                },
                "the disk is full: writes are refused and reads go on; free some space, and writes are taken again"
            );
        } else {
            tracing::info!("the disk has room again: writes are taken");
        }
    }

    fn drop_proposal(&mut self, id: RequestId, error: ProposeError) {
        self.metrics.counters.proposals_failed.inc();
        let error = match error {
            ProposeError::Full => EtcdError::TooManyRequests,
            ProposeError::NoLeader | ProposeError::NotLeader { .. } => EtcdError::NoLeader,
            _ => EtcdError::ProposalDropped,
        };
        self.send(id.net().0, ToNet::Dropped { id, error });
    }

    fn send(&mut self, net: u8, message: ToNet) {
        // Nobody waits for the member's own proposals.
        if let Some(ring) = self.to_net.get_mut(usize::from(net)) {
            ring.push(message);
        }
    }

    fn report_applied(&mut self) {
        let applied = self.shared.applied();
        if applied > self.reported_applied {
            self.reported_applied = applied;
            self.raft.on_applied(LogIndex(applied));
        }
    }

    fn take_synced(&mut self) {
        let now_ns = self.clock.now_ns();
        loop {
            let synced = match self.wal().poll(now_ns) {
                Ok(Some(synced)) => synced,
                Ok(None) => {
                    // What waited for the next segment may find it ready now, and on a full disk
                    // another try to make it may be due.
                    self.submit();
                    break;
                }
                Err(error) => fatal("the write-ahead log failed", &error),
            };
            let took = Duration::from_nanos(synced.latency_ns);
            self.metrics.histograms.disk_wal_fsync.observe(took);
            self.metrics.histograms.disk_wal_write.observe(took);
            self.metrics
                .gauges()
                .disk_wal_write_bytes
                .add(synced.bytes as i64);
            let mut durable = WriteNumber::NONE;
            let mut last_index = 0;
            while let Some(write) = self.writes.front()
                && write.position <= synced.position
            {
                durable = write.number;
                last_index = write.last_index.max(last_index);
                self.writes.pop_front();
            }
            let metrics = &self.metrics;
            self.timeline.synced(last_index, now_ns, |waited_ns| {
                metrics.stage(Stage::Log, Duration::from_nanos(waited_ns));
            });
            if durable != WriteNumber::NONE {
                self.raft.on_synced(durable);
            }
            self.submit();
        }
    }

    fn submit(&mut self) {
        let now_ns = self.clock.now_ns();
        if let Err(error) = self.wal().submit(now_ns) {
            fatal("the write-ahead log failed", &error);
        }
    }

    /// Carries out one `Ready` in the order of its contract.
    fn carry_out(&mut self) {
        if self.ready.must_sync() {
            let position = self.append();
            let last_index = self.ready.entries.last().map_or(0, |entry| entry.index.0);
            self.writes.push_back(PendingWrite {
                position,
                number: self.ready.write,
                last_index,
            });
        }
        // One member has nobody to send to; links to others will take these.
        self.ready.messages.clear();
        for entry in self.ready.committed.drain(..) {
            self.shared
                .progress
                .committed
                .store(entry.index.0, Ordering::Release);
            let durable_ns = self.timeline.committed(entry.index.0);
            self.to_apply.push(ToApply { entry, durable_ns });
        }
        let reads = std::mem::take(&mut self.ready.read_states);
        for read in &reads {
            let (net, context) = (read.context as u8, read.context >> 8);
            self.send(
                net,
                ToNet::ReadIndex {
                    context,
                    index: read.index.0,
                },
            );
        }
        self.ready.read_states = reads;
        let failed = std::mem::take(&mut self.ready.reads_failed);
        for tagged in &failed {
            self.metrics.counters.read_indexes_failed.inc();
            let error = EtcdError::LeaderChanged;
            let context = tagged >> 8;
            self.send(*tagged as u8, ToNet::ReadIndexFailed { context, error });
        }
        self.ready.reads_failed = failed;
        if let Some(trim) = self.ready.trim {
            self.trim(trim);
        }
        if let Some(leadership) = self.ready.leadership {
            self.publish_leadership(leadership);
        }
    }

    fn wal(&mut self) -> &mut wal::Log {
        self.wal
            .as_mut()
            .expect("the stage takes no turn after it closed its log")
    }

    fn append(&mut self) -> Position {
        let wal = self
            .wal
            .as_mut()
            .expect("the stage takes no turn after it closed its log");
        let mut last = None;
        if let Some(state) = self.ready.hard_state {
            last = Some(wal.append_hard_state(wal::HardState {
                term: wal::Term(state.term.0),
                vote: wal::Vote(state.vote.map_or(0, |member| member.0)),
                commit: wal::LogIndex(state.commit.0),
            }));
        }
        for entry in &self.ready.entries {
            let kind = match entry.kind {
                consensus::EntryKind::Normal => KIND_NORMAL,
                consensus::EntryKind::ConfChange => KIND_CONF_CHANGE,
            };
            last = Some(wal.append_entry(
                wal::Term(entry.term.0),
                wal::LogIndex(entry.index.0),
                kind,
                &entry.payload,
            ));
        }
        match last.expect("a write has a hard state or entries: snapshots come with members") {
            Ok(position) => position,
            Err(error) => fatal("the write-ahead log refused an entry", &error),
        }
    }

    fn trim(&mut self, through: consensus::LogPosition) {
        let mark = wal::SnapshotMark {
            index: wal::LogIndex(through.index.0),
            term: wal::Term(through.term.0),
            kind: wal::MarkKind::Compaction,
            data: bytes::Bytes::new(),
        };
        if let Err(error) = self.wal().append_snapshot_mark(mark) {
            fatal("the write-ahead log refused a mark", &error);
        }
        self.wal().trim(wal::LogIndex(through.index.0));
    }

    fn publish_leadership(&mut self, now: consensus::Leadership) {
        let progress = &self.shared.progress;
        progress.term.store(now.term.0, Ordering::Relaxed);
        let leader = now.leader.map_or(0, |member| member.0);
        if progress.leader.swap(leader, Ordering::Relaxed) != leader && leader != 0 {
            self.metrics.counters.leader_changes_seen.inc();
        }
        if now.role == Role::Leader {
            tracing::info!(term = now.term.0, "this member leads");
        }
    }

    /// Lengths of the queues to this stage and from it.
    pub fn queues(&self) -> [(&'static str, u64); 3] {
        [
            (
                "to_log",
                self.inboxes.iter().map(|inbox| inbox.len() as u64).sum(),
            ),
            ("to_apply_waiting", self.to_apply.waiting() as u64),
            ("log_writes", self.writes.len() as u64),
        ]
    }

    /// Puts the closing record behind everything and waits for it; the last thing the stage does.
    pub fn close(stage: &Rc<RefCell<LogStage>>) {
        let stage = &mut *stage.borrow_mut();
        stage.turn();
        let clock = stage.clock;
        let Some(wal) = stage.wal.take() else { return };
        if let Err(error) = wal.close(|| clock.now_ns()) {
            tracing::warn!(error = %error, "the write-ahead log was not closed in good order");
        }
    }
}
