//! The apply core's loop.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::Guard;
use bytes::Bytes;
use consensus::EntryKind;
use prost::Message;
use storage::command::{
    self, ArchivedAlarm, ArchivedBody, ArchivedClusterVersionSet, ArchivedMemberAttrSet, Body,
    Command, CommandArena, CommandView, Header,
};
use storage::mvcc::{Applied, Bucket, CompactError, Store};
use storage::tree::{Snapshot, TreeError};
use wire::error::EtcdError;
use wire::kv::{ResponseHeader, put_compaction_response};
use wire::messages::etcdserverpb::{AlarmMember, AlarmResponse, AlarmType, Member};

use crate::fatal::fatal;
use crate::kv;
use crate::metrics::{ApplyOp, CoreMetrics, Stage};
use crate::net::core::Clock;
use crate::pipeline::{
    Doorbell, Inbox, NetId, Reply, ReplyBatch, RequestId, Shared, Spill, ToApply, ToLog, ToNet,
};
use crate::runtime::{Signal, sleep, yield_now};
use crate::services::status;
use crate::store::{WriteCounts, Writes};

use super::cluster::{self, ClusterView};
use super::committer::{Committed, Committer};

/// Entries applied before replies leave and other tasks of the core get their turn.
const PASS_ENTRIES_MAX: usize = 1024;
/// Reply bytes that end a pass early.
const PASS_BYTES_MAX: usize = 4 << 20;
/// The net core number of the member's own proposals: nobody waits for their replies.
const NOBODY: NetId = NetId(u8::MAX);
const NO_SPACE: i32 = AlarmType::Nospace as i32;
const CORRUPT: i32 = AlarmType::Corrupt as i32;

/// What the configuration says about applying.
#[derive(Clone, Debug)]
pub struct ApplySettings {
    pub commit_interval: Duration,
    pub commit_changes_max: usize,
    /// `None`: no quota.
    pub quota_bytes: Option<u64>,
    pub compaction_keys: usize,
    pub compaction_pause: Duration,
    /// Applies slower than this are logged.
    pub warning_apply: Duration,
    /// This member as it wants to be known.
    pub member: Member,
}

/// A compaction whose client waits until the old revisions are gone.
pub(super) struct PhysicalWait {
    pub revision: i64,
    pub id: RequestId,
}

pub struct ApplyStage {
    pub(super) store: Store<Snapshot>,
    committer: Committer,
    entries: Inbox<ToApply>,
    recycled: Vec<Inbox<ReplyBatch>>,
    to_net: Vec<Spill<ToNet>>,
    to_log: Spill<ToLog>,
    /// Wakes each net core whose reads wait for the applied index.
    net_doorbells: Vec<Doorbell>,
    pub(super) shared: Arc<Shared>,
    settings: ApplySettings,
    pub(super) clock: Clock,
    pub(super) metrics: Rc<CoreMetrics>,
    /// When the compaction under way had its first slice.
    pub(super) compacting_since_ns: Option<u64>,
    applier: kv::apply::Applier,
    arena: CommandArena,
    /// Replies of this pass, by net core.
    batches: Vec<ReplyBatch>,
    spare: Vec<ReplyBatch>,
    scratch: Vec<u8>,
    sequence: u64,
    /// The last look at the clock in this pass.
    now_ns: u64,
    pub(super) physical: Vec<PhysicalWait>,
    /// The last finished compaction and the commit that makes it so in the file.
    compacted: Option<(i64, u64)>,
    commits_begun: u64,
    commits_done: u64,
    /// Wakes the compaction task.
    pub(super) compaction: Signal,
    /// What the tree file holds.
    persisted: Applied,
    is_serving: bool,
    is_congested: bool,
}

/// What the stage is built from.
pub struct ApplyParts {
    pub store: Store<Snapshot>,
    pub committer: Committer,
    pub entries: Inbox<ToApply>,
    pub recycled: Vec<Inbox<ReplyBatch>>,
    pub to_net: Vec<Spill<ToNet>>,
    pub to_log: Spill<ToLog>,
    pub net_doorbells: Vec<Doorbell>,
    pub shared: Arc<Shared>,
    pub settings: ApplySettings,
    pub clock: Clock,
    pub metrics: Rc<CoreMetrics>,
}

impl ApplyStage {
    pub fn new(parts: ApplyParts) -> Rc<RefCell<ApplyStage>> {
        let persisted = parts.store.applied();
        let nets = parts.to_net.len();
        Rc::new(RefCell::new(ApplyStage {
            store: parts.store,
            committer: parts.committer,
            entries: parts.entries,
            recycled: parts.recycled,
            to_net: parts.to_net,
            to_log: parts.to_log,
            net_doorbells: parts.net_doorbells,
            shared: parts.shared,
            settings: parts.settings,
            clock: parts.clock,
            metrics: parts.metrics,
            compacting_since_ns: None,
            applier: kv::apply::Applier::default(),
            arena: CommandArena::default(),
            batches: (0..nets).map(|_| ReplyBatch::default()).collect(),
            spare: Vec::new(),
            scratch: Vec::new(),
            sequence: 0,
            now_ns: 0,
            physical: Vec::new(),
            compacted: None,
            commits_begun: 0,
            commits_done: 0,
            compaction: Signal::new(),
            persisted,
            is_serving: false,
            is_congested: false,
        }))
    }

    /// The stage's task: a pass whenever something arrived.
    pub async fn run(stage: Rc<RefCell<ApplyStage>>, signal: Signal) {
        loop {
            let is_more = stage.borrow_mut().pass();
            if is_more {
                yield_now().await;
            } else {
                signal.wait().await;
            }
        }
    }

    /// Group commits on time.
    pub async fn keep_time(stage: Rc<RefCell<ApplyStage>>) {
        let interval = stage.borrow().settings.commit_interval;
        loop {
            sleep(interval).await;
            let mut stage = stage.borrow_mut();
            stage.start_commit();
            // A compaction may wait for readers, who tell nobody when they are done.
            stage.compaction.notify();
            stage.finish_pass();
        }
    }

    /// Applies what has arrived; true when a bound ended the pass before the ring was empty.
    fn pass(&mut self) -> bool {
        self.take_committed();
        for inbox in &mut self.recycled {
            while let Some(batch) = inbox.pop() {
                self.spare.push(batch);
            }
        }
        self.now_ns = self.clock.now_ns();
        let mut applied = 0;
        let mut is_more = false;
        let mut last = None;
        while let Some(entry) = self.entries.pop() {
            self.apply(&entry);
            last = Some(entry.entry.index.0);
            applied += 1;
            let bytes: usize = self.batches.iter().map(|batch| batch.bytes.len()).sum();
            if applied == PASS_ENTRIES_MAX || bytes >= PASS_BYTES_MAX {
                is_more = true;
                break;
            }
        }
        if let Some(last) = last {
            self.shared.progress.applied.store(last, Ordering::Release);
            self.wake_waiting_reads();
        }
        if self.store.must_commit()
            || self.store.pending_changes() >= self.settings.commit_changes_max
        {
            self.start_commit();
        }
        self.publish_congestion();
        self.finish_pass();
        is_more
    }

    /// Sends replies and proposals of this pass.
    pub(super) fn finish_pass(&mut self) {
        for (net, batch) in self.batches.iter_mut().enumerate() {
            if !batch.replies.is_empty() {
                batch.made_ns = self.clock.now_ns();
                let spare = self.spare.pop().unwrap_or_default();
                self.to_net[net].push(ToNet::Replies(std::mem::replace(batch, spare)));
            }
            self.to_net[net].flush();
        }
        self.to_log.flush();
    }

    fn wake_waiting_reads(&self) {
        for (waits, doorbell) in self.shared.waits_for_apply.iter().zip(&self.net_doorbells) {
            if waits.load(Ordering::SeqCst) {
                doorbell.ring();
            }
        }
    }

    fn apply(&mut self, ToApply { entry, durable_ns }: &ToApply) {
        let applied = Applied {
            index: entry.index.0,
            term: entry.term.0,
        };
        if applied.index <= self.store.applied().index {
            // The tree file holds it already: replay after a restart.
            return;
        }
        if entry.kind == EntryKind::ConfChange || entry.payload.is_empty() {
            // A leader's first entry changes nothing. Membership changes are not proposed yet.
            self.store.set_applied(applied);
            // Its leader takes proposals now: a member that starts tells who it is. Entries that are
            // replayed stand for leaders of earlier lives.
            if !self.is_serving && entry.term.0 == self.shared.term() {
                self.publish();
            }
            return;
        }
        let command = match command::access(&entry.payload) {
            Ok(command) => command,
            Err(error) => fatal(
                &format!("log entry {} cannot be applied", entry.index),
                &error,
            ),
        };
        if *durable_ns != 0 {
            let waited = Duration::from_nanos(self.now_ns.saturating_sub(*durable_ns));
            self.metrics.stage(Stage::Commit, waited);
        }
        let outcome = self.apply_command(applied, command);
        self.book(command, outcome);
    }

    /// Counts an entry that was applied just now, and logs it if it took long. The end of one entry
    /// is the beginning of the next, so each costs one look at the clock.
    fn book(&mut self, command: &CommandView, outcome: Result<(), EtcdError>) {
        let begun_ns = std::mem::replace(&mut self.now_ns, self.clock.now_ns());
        let took = Duration::from_nanos(self.now_ns.saturating_sub(begun_ns));
        self.metrics.stage(Stage::Apply, took);
        let success = matches!(outcome, Ok(()) | Err(EtcdError::Compacted));
        let op = match &command.body {
            ArchivedBody::Put(_) => ApplyOp::Put,
            ArchivedBody::DeleteRange(_) => ApplyOp::DeleteRange,
            ArchivedBody::Txn(_) => ApplyOp::Txn,
            ArchivedBody::Compact(_) => ApplyOp::Compaction,
            ArchivedBody::Alarm(_) => ApplyOp::Alarm,
            ArchivedBody::ClusterVersionSet(_) => ApplyOp::ClusterVersionSet,
            ArchivedBody::MemberAttrSet(_) => ApplyOp::ClusterMemberAttrSet,
        };
        self.metrics.applied(op, success, took);
        if took > self.settings.warning_apply {
            self.metrics.counters.slow_apply.inc();
            tracing::warn!(
                took = ?took,
                "expected-duration" = ?self.settings.warning_apply,
                prefix = "",
                request = describe(command),
                response = %format_args!("size:{}", self.scratch.len()),
                error = outcome.err().map_or("", |error| error.text()),
                "apply request took too long"
            );
        }
    }

    fn apply_command(&mut self, applied: Applied, command: &CommandView) -> Result<(), EtcdError> {
        let id = RequestId(command.header.request_id.to_native());
        self.scratch.clear();
        let result = match &command.body {
            ArchivedBody::Compact(compact) => {
                self.store.set_applied(applied);
                let (revision, physical) = (compact.revision.to_native(), compact.physical);
                match self.compact(revision, physical, id) {
                    Some(result) => result,
                    None => return Ok(()),
                }
            }
            ArchivedBody::Alarm(alarm) => {
                self.apply_alarm(applied, alarm);
                Ok(())
            }
            ArchivedBody::ClusterVersionSet(set) => {
                self.apply_cluster_version(applied, set);
                Ok(())
            }
            ArchivedBody::MemberAttrSet(set) => {
                self.apply_member_attributes(applied, set, id);
                Ok(())
            }
            _ => self.apply_key_value(applied, command),
        };
        self.reply(id, result);
        result
    }

    fn apply_key_value(
        &mut self,
        applied: Applied,
        command: &CommandView,
    ) -> Result<(), EtcdError> {
        let alarms = self.shared.cluster.load();
        if let Some(refusal) = alarm_refusal(&alarms, command) {
            self.store.set_applied(applied);
            return Err(refusal);
        }
        let header = self.header();
        let compact_revision = self.store.compact_revision();
        let result = {
            let txn = self.store.begin(applied);
            let mut writes = Writes {
                txn,
                compact_revision,
                counts: WriteCounts::default(),
            };
            let reply = Some(&mut self.scratch);
            let result = self
                .applier
                .apply(command, &mut writes, &header, reply)
                .expect("the other kinds of commands are handled before");
            self.metrics.count_writes(&writes.counts);
            if result.is_ok() {
                writes.txn.commit();
            } else {
                writes.txn.abort();
            }
            result
        };
        result?;
        // Checked again here, as etcd does: the write stands, the client learns that space is short.
        let cost = kv::quota::command_cost(command);
        if cost > 0 && self.is_over_quota(cost) {
            self.raise_no_space(&alarms);
            return Err(EtcdError::NoSpace);
        }
        Ok(())
    }

    fn is_over_quota(&self, cost: usize) -> bool {
        let size = self.shared.tree_bytes() as u64;
        self.settings
            .quota_bytes
            .is_some_and(|quota| size.saturating_add(cost as u64) >= quota)
    }

    fn raise_no_space(&mut self, view: &Guard<Arc<ClusterView>>) {
        let member_id = self.shared.member_id;
        let wanted = AlarmMember {
            member_id,
            alarm: NO_SPACE,
        };
        if !view.alarms.contains(&wanted) {
            let activate = command::Alarm {
                member_id,
                action: 1,
                alarm: NO_SPACE,
            };
            self.propose(Body::Alarm(activate));
        }
    }

    /// `None` when the reply follows once the old revisions are gone.
    fn compact(
        &mut self,
        revision: i64,
        physical: bool,
        id: RequestId,
    ) -> Option<Result<(), EtcdError>> {
        if self.has_alarm(CORRUPT) {
            return Some(Err(EtcdError::Corrupt));
        }
        let result = match self.store.compact(revision) {
            Ok(()) => {
                tracing::info!(revision, "compacting");
                self.compaction.notify();
                Ok(())
            }
            Err(CompactError::Compacted { .. }) => Err(EtcdError::Compacted),
            Err(CompactError::Future { .. }) => Err(EtcdError::FutureRevision),
        };
        if physical && result.is_ok() {
            self.physical.push(PhysicalWait { revision, id });
            return None;
        }
        let header = self.header();
        put_compaction_response(&mut self.scratch, &header);
        Some(result)
    }

    /// The deletions through `revision` are all in a batch: who waited is answered when the commit
    /// that takes the last of them is done.
    pub(super) fn on_compacted(&mut self, revision: i64) {
        let was_busy = self.committer.is_busy();
        self.start_commit();
        // Behind a commit that is under way the last deletions may still lie in the live batch.
        let is_next = was_busy && self.store.pending_changes() > 0;
        let commit = self.commits_begun + u64::from(is_next);
        if commit <= self.commits_done {
            self.answer_physical(revision);
        } else {
            self.compacted = Some((revision, commit));
        }
    }

    /// The old revisions through `revision` are gone from the tree file: answers who waited.
    fn answer_physical(&mut self, revision: i64) {
        let (done, waiting) = std::mem::take(&mut self.physical)
            .into_iter()
            .partition(|wait: &PhysicalWait| wait.revision <= revision);
        self.physical = waiting;
        for wait in done {
            self.scratch.clear();
            let header = self.header();
            put_compaction_response(&mut self.scratch, &header);
            self.reply(wait.id, Ok(()));
        }
    }

    fn apply_alarm(&mut self, applied: Applied, request: &ArchivedAlarm) {
        let alarm = AlarmMember {
            member_id: request.member_id.to_native(),
            alarm: request.alarm.to_native(),
        };
        let mut view = ClusterView::clone(&self.shared.cluster.load());
        let mut shown = Vec::new();
        let mut txn = self.store.begin(applied);
        let key = alarm.encode_to_vec();
        match request.action.to_native() {
            0 => shown.extend(
                view.alarms
                    .iter()
                    .filter(|held| alarm.alarm == 0 || held.alarm == alarm.alarm),
            ),
            1 if alarm.alarm != 0 => {
                if !view.alarms.contains(&alarm) {
                    tracing::warn!(
                        alarm = alarm_name(alarm.alarm),
                        member_id = %format_args!("{:x}", alarm.member_id),
                        "alarm raised"
                    );
                    txn.put_bucket(Bucket::Alarm, &key, b"");
                    view.alarms.push(alarm);
                    view.alarms
                        .sort_unstable_by_key(|held| (held.member_id, held.alarm));
                }
                shown.push(alarm);
            }
            2 => {
                if let Some(place) = view.alarms.iter().position(|held| *held == alarm) {
                    tracing::warn!(alarm = alarm_name(alarm.alarm), "alarm disarmed");
                    txn.delete_bucket(Bucket::Alarm, &key);
                    view.alarms.remove(place);
                    shown.push(alarm);
                }
            }
            _ => {}
        }
        txn.commit();
        self.shared.cluster.store(Arc::new(view));
        let header = Some(status::header(&self.shared, self.store.revision()));
        AlarmResponse {
            header,
            alarms: shown,
        }
        .encode(&mut self.scratch)
        .expect("a Vec has room");
    }

    fn apply_cluster_version(&mut self, applied: Applied, set: &ArchivedClusterVersionSet<'_>) {
        let version: &str = &set.version;
        let mut txn = self.store.begin(applied);
        txn.put_bucket(Bucket::Cluster, b"clusterVersion", version.as_bytes());
        txn.put_bucket(Bucket::Meta, b"storageVersion", version.as_bytes());
        txn.commit();
        let mut view = ClusterView::clone(&self.shared.cluster.load());
        view.cluster_version = version.to_owned();
        view.storage_version = version.to_owned();
        self.shared.cluster.store(Arc::new(view));
        tracing::info!(cluster_version = version, "set the cluster version");
    }

    fn apply_member_attributes(
        &mut self,
        applied: Applied,
        set: &ArchivedMemberAttrSet<'_>,
        id: RequestId,
    ) {
        let member_id = set.member_id.to_native();
        let mut view = ClusterView::clone(&self.shared.cluster.load());
        let Some(member) = view
            .members
            .iter_mut()
            .find(|member| member.id == member_id)
        else {
            return self.store.set_applied(applied);
        };
        let name: &str = &set.name;
        member.name = name.to_owned();
        member.client_ur_ls = set
            .client_urls
            .iter()
            .map(|url| url.url.to_string())
            .collect();
        let mut txn = self.store.begin(applied);
        cluster::put_member(&mut txn, member);
        txn.commit();
        self.shared.cluster.store(Arc::new(view));
        // What an earlier life published says nothing about this one: there may be no leader yet,
        // and acknowledged entries may lie behind it.
        if member_id == self.shared.member_id && id.life() == self.shared.life {
            self.on_published();
        }
    }

    /// The member has published itself: everything it acknowledged before is applied.
    fn on_published(&mut self) {
        if !std::mem::replace(&mut self.is_serving, true) {
            for ring in &mut self.to_net {
                ring.push(ToNet::Serve);
            }
        }
    }

    /// Proposes what a starting member tells its cluster: its name and URLs, and the version.
    fn publish(&mut self) {
        let member = self.settings.member.clone();
        let urls: Vec<command::Url<'_>> = member
            .client_ur_ls
            .iter()
            .map(|url| command::Url { url })
            .collect();
        if self.shared.cluster.load().cluster_version.is_empty() {
            self.propose(Body::ClusterVersionSet(command::ClusterVersionSet {
                version: crate::version::CLUSTER_VERSION,
            }));
        }
        self.propose(Body::MemberAttrSet(command::MemberAttrSet {
            member_id: member.id,
            name: &member.name,
            client_urls: &urls,
        }));
        self.finish_pass();
    }

    /// Proposes on the member's own behalf.
    pub(super) fn propose(&mut self, body: Body<'_>) {
        self.sequence += 1;
        let id = RequestId::new(self.shared.life, NOBODY, self.sequence);
        let header = Header {
            request_id: id.0,
            member_id: self.shared.member_id,
            auth_revision: 0,
            user: "",
        };
        let command: Bytes = self
            .arena
            .encode(&Command { header, body })
            .expect("the member's own commands are small");
        self.to_log.push(ToLog::Propose {
            id,
            command,
            parsed_ns: self.clock.now_ns(),
        });
    }

    fn reply(&mut self, id: RequestId, result: Result<(), EtcdError>) {
        if id.life() != self.shared.life {
            return;
        }
        let Some(batch) = self.batches.get_mut(usize::from(id.net().0)) else {
            return;
        };
        let result = result.map(|()| {
            let from = batch.bytes.len();
            batch.bytes.extend_from_slice(&self.scratch);
            from..batch.bytes.len()
        });
        batch.replies.push(Reply { id, result });
    }

    fn header(&self) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.shared.cluster_id,
            member_id: self.shared.member_id,
            revision: self.store.revision(),
            raft_term: self.shared.term(),
        }
    }

    fn has_alarm(&self, kind: i32) -> bool {
        self.shared
            .cluster
            .load()
            .alarms
            .iter()
            .any(|alarm| alarm.alarm == kind)
    }

    /// Hands the live batch to the tree thread, unless one is under way or nothing has changed.
    pub(super) fn start_commit(&mut self) {
        if self.committer.is_busy() {
            return;
        }
        if let Some(frozen) = self.store.freeze() {
            self.commits_begun += 1;
            self.committer.commit(frozen);
        }
    }

    fn take_committed(&mut self) {
        match self.committer.poll() {
            None => {}
            Some(Ok(committed)) => self.on_committed(committed),
            // The member stops; what is not committed is in the log.
            Some(Err(TreeError::NoSpace { .. })) => {}
            Some(Err(error)) => fatal("the tree file cannot be written", &error),
        }
    }

    fn on_committed(&mut self, committed: Committed) {
        let [built, written, synced, published] = committed.phases;
        let histograms = &self.metrics.histograms;
        histograms.disk_backend_commit.observe(committed.took);
        histograms.disk_backend_commit_spill.observe(built);
        histograms
            .disk_backend_commit_write
            .observe(written + synced + published);
        self.publish_sizes(
            committed.stats.high_water_bytes() as i64,
            committed.stats.in_use_bytes() as i64,
        );
        tracing::debug!(changes = committed.changes, took = ?committed.took, "committed");
        self.store.on_committed(committed.snapshot);
        self.persisted = Applied {
            index: committed.index,
            term: committed.term,
        };
        self.to_log.push(ToLog::Persisted {
            index: committed.index,
        });
        self.commits_done += 1;
        if let Some((revision, commit)) = self.compacted
            && commit <= self.commits_done
        {
            self.compacted = None;
            self.answer_physical(revision);
        }
        self.compaction.notify();
    }

    /// Tells the net cores whether group commits lag too far behind.
    fn publish_congestion(&mut self) {
        let is_congested = self.store.is_congested();
        if is_congested != self.is_congested {
            self.is_congested = is_congested;
            self.shared
                .progress
                .is_congested
                .store(is_congested, Ordering::Relaxed);
        }
    }

    pub fn publish_sizes(&self, total: i64, in_use: i64) {
        self.shared
            .progress
            .tree_bytes
            .store(total, Ordering::Relaxed);
        self.shared
            .progress
            .tree_bytes_in_use
            .store(in_use, Ordering::Relaxed);
    }

    /// Commits everything and waits for it; the last thing the stage does.
    pub fn close(stage: &Rc<RefCell<ApplyStage>>) {
        let stage = &mut *stage.borrow_mut();
        while stage.pass() {}
        for _ in 0..2 {
            if !stage.finish_commit() {
                return;
            }
            stage.start_commit();
        }
        stage.finish_commit();
    }

    /// Waits for the commit under way; false when the disk is too full for it.
    fn finish_commit(&mut self) -> bool {
        match self.committer.wait() {
            Some(Ok(committed)) => self.on_committed(committed),
            Some(Err(error @ TreeError::NoSpace { .. })) => {
                tracing::warn!(
                    error = %error,
                    "stopping without a last group commit; the next start applies the log instead"
                );
                return false;
            }
            Some(Err(error)) => fatal("the tree file cannot be written", &error),
            None => {}
        }
        true
    }

    /// Lengths of the queues to this stage and from it.
    pub fn queues(&self) -> [(&'static str, u64); 3] {
        [
            ("to_apply", self.entries.len() as u64),
            (
                "to_net_waiting",
                self.to_net.iter().map(|ring| ring.waiting() as u64).sum(),
            ),
            ("uncommitted_changes", self.store.pending_changes() as u64),
        ]
    }

    pub fn settings(&self) -> &ApplySettings {
        &self.settings
    }
}

/// Why an alarm forbids this command, if one does.
fn alarm_refusal(view: &ClusterView, command: &CommandView) -> Option<EtcdError> {
    if view.alarms.iter().any(|alarm| alarm.alarm == CORRUPT) {
        return Some(EtcdError::Corrupt);
    }
    let takes_space = match &command.body {
        ArchivedBody::Put(_) => true,
        ArchivedBody::Txn(_) => kv::quota::command_cost(command) > 0,
        _ => false,
    };
    (takes_space && view.alarms.iter().any(|alarm| alarm.alarm == NO_SPACE))
        .then_some(EtcdError::NoSpace)
}

/// A command for the log, without the values it may hold.
fn describe(command: &CommandView) -> String {
    match &command.body {
        ArchivedBody::Put(put) => {
            format!(
                "put:<key:\"{}\" value_size:{} >",
                put.key.escape_ascii(),
                put.value.len()
            )
        }
        ArchivedBody::DeleteRange(delete) => format!(
            "delete_range:<key:\"{}\" range_end:\"{}\" >",
            delete.key.escape_ascii(),
            delete.range_end.escape_ascii()
        ),
        ArchivedBody::Txn(txn) => {
            format!(
                "txn:<compares:{} operations:{} >",
                txn.compares.len(),
                txn.ops.len()
            )
        }
        ArchivedBody::Compact(compact) => format!("compaction:<revision:{} >", compact.revision),
        _ => String::new(),
    }
}

fn alarm_name(alarm: i32) -> &'static str {
    AlarmType::try_from(alarm).map_or("UNKNOWN", |alarm| alarm.as_str_name())
}
