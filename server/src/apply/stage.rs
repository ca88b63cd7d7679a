//! The apply core's loop: entries come in, are carried out one by one, replies go out.
//!
//! Commands on keys are carried out here through [`crate::kv::apply`]; alarms, membership, compaction
//! and group commits have files of their own beside this one, as methods of the same stage.
//!
//! Always true here: entries are applied once, in order; a pass ends by publishing the applied index
//! before its replies leave.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use arc_swap::Guard;
use bytes::Bytes;
use consensus::EntryKind;
use storage::command::{self, ArchivedBody, Body, Command, CommandArena, CommandView, Header};
use storage::mvcc::{Applied, Store};
use storage::tree::Snapshot;
use wire::error::EtcdError;
use wire::kv::ResponseHeader;
use wire::messages::etcdserverpb::Member;

use crate::fatal::fatal;
use crate::kv;
use crate::metrics::{ApplyOp, CoreMetrics, Stage};
use crate::net::core::Clock;
use crate::pipeline::{
    Doorbell, Inbox, NetId, Reply, ReplyBatch, RequestId, Shared, Spill, ToApply, ToLog, ToNet,
};
use crate::runtime::{Signal, sleep, yield_now};
use crate::store::Writes;

use super::alarms::alarm_refusal;
use super::auth_entries::{AuthRoom, auth_op};
use super::cluster::ClusterView;
use super::committer::Committer;
use super::compaction::{Compacting, PhysicalWait};
use super::defrag::Defrag;
use super::describe::describe;
use super::leases::Leases;
use super::states::States;

/// Entries applied before replies leave and other tasks of the core get their turn.
const PASS_ENTRIES_MAX: usize = 1024;
/// Reply bytes that end a pass early.
const PASS_BYTES_MAX: usize = 4 << 20;

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

pub struct ApplyStage {
    pub(super) store: Store<Snapshot>,
    pub(super) committer: Committer,
    entries: Inbox<ToApply>,
    recycled: Vec<Inbox<ReplyBatch>>,
    pub(super) to_net: Vec<Spill<ToNet>>,
    pub(super) to_log: Spill<ToLog>,
    /// Wakes each net core whose reads wait for the applied index.
    net_doorbells: Vec<Doorbell>,
    pub(super) shared: Arc<Shared>,
    pub(super) settings: ApplySettings,
    pub(super) clock: Clock,
    pub(super) metrics: Rc<CoreMetrics>,
    /// When the compaction under way had its first slice.
    pub(super) compacting: Option<Compacting>,
    applier: kv::apply::Applier,
    arena: CommandArena,
    /// Replies of this pass, by net core.
    batches: Vec<ReplyBatch>,
    spare: Vec<ReplyBatch>,
    pub(super) scratch: Vec<u8>,
    sequence: u64,
    /// The revision up to which net cores with watchers were rung.
    announced: i64,
    /// The last look at the clock in this pass.
    pub(super) now_ns: u64,
    pub(super) leases: Leases,
    pub(super) states: States,
    pub(super) auth: AuthRoom,
    pub(super) defrag: Defrag,
    pub(super) physical: Vec<PhysicalWait>,
    /// The last finished compaction and the commit that makes it so in the file.
    pub(super) compacted: Option<(i64, u64)>,
    pub(super) commits_begun: u64,
    pub(super) commits_done: u64,
    /// Wakes the compaction task.
    pub(super) compaction: Signal,
    /// What the tree file holds.
    pub(super) persisted: Applied,
    pub(super) is_serving: bool,
    pub(super) is_congested: bool,
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
    pub leases: Leases,
    pub states: States,
    pub auth: AuthRoom,
    pub defrag: Defrag,
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
            compacting: None,
            applier: kv::apply::Applier::default(),
            arena: CommandArena::default(),
            batches: (0..nets).map(|_| ReplyBatch::default()).collect(),
            spare: Vec::new(),
            scratch: Vec::new(),
            sequence: 0,
            announced: 0,
            now_ns: 0,
            leases: parts.leases,
            states: parts.states,
            auth: parts.auth,
            defrag: parts.defrag,
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
            stage.serve_states();
            stage.sweep_tokens();
            // A compaction may wait for readers, who tell nobody when they are done.
            stage.compaction.notify();
            stage.finish_pass();
        }
    }

    /// Applies what has arrived; true when a bound ended the pass before the ring was empty.
    pub(super) fn pass(&mut self) -> bool {
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
        self.serve_states();
        is_more |= self.serve_leases();
        self.take_defrag_asks();
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
        self.announce();
    }

    /// Wakes the net cores with watchers if there is a new revision: the events are in the store's buffer, where every
    /// core reads them.
    fn announce(&mut self) {
        let revision = self.store.revision();
        if std::mem::replace(&mut self.announced, revision) == revision {
            return;
        }
        // Between the revision, published before, and the words: see `Calls::open_watch`.
        fence(Ordering::SeqCst);
        for (watches, doorbell) in self.shared.watches.iter().zip(&self.net_doorbells) {
            if watches.load(Ordering::SeqCst) {
                doorbell.ring();
            }
        }
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
            let is_of_this_term = entry.term.0 == self.shared.term();
            if is_of_this_term && self.shared.leader() == self.shared.member_id {
                self.leases.promote(self.now_ns);
            }
            if !self.is_serving && is_of_this_term {
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
            ArchivedBody::LeaseGrant(_) => ApplyOp::LeaseGrant,
            ArchivedBody::LeaseRevoke(_) => ApplyOp::LeaseRevoke,
            ArchivedBody::LeaseCheckpoint(_) => ApplyOp::LeaseCheckpoint,
            ArchivedBody::DowngradeInfoSet(_) => ApplyOp::DowngradeInfoSet,
            ArchivedBody::MemberPeerUrlsSet(_) => ApplyOp::ClusterMemberAttrSet,
            ArchivedBody::Auth(auth) => auth_op(auth),
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
        // Who asked in an earlier life is gone, even if this one has its number again.
        let id = match applied.index > self.shared.replayed_through {
            true => RequestId(command.header.request_id.to_native()),
            false => RequestId::NOBODY,
        };
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
            ArchivedBody::LeaseCheckpoint(checkpoint) => {
                self.apply_lease_checkpoint(applied, checkpoint, id);
                Ok(())
            }
            ArchivedBody::DowngradeInfoSet(set) => {
                self.apply_downgrade_info(applied, set);
                Ok(())
            }
            ArchivedBody::MemberPeerUrlsSet(set) => self.apply_peer_urls(applied, set),
            ArchivedBody::Auth(auth) => self.apply_auth(applied, command, auth),
            _ => self.apply_guarded(applied, command, id),
        };
        self.reply(id, result);
        result
    }

    /// What alarms can forbid.
    fn apply_guarded(
        &mut self,
        applied: Applied,
        command: &CommandView,
        id: RequestId,
    ) -> Result<(), EtcdError> {
        let alarms = self.shared.cluster.load();
        if let Some(refusal) = alarm_refusal(&alarms, command) {
            self.store.set_applied(applied);
            return Err(refusal);
        }
        if let Err(refusal) = self.check_rights(command) {
            self.store.set_applied(applied);
            return Err(refusal);
        }
        match &command.body {
            ArchivedBody::LeaseGrant(grant) => self.apply_lease_grant(applied, grant),
            ArchivedBody::LeaseRevoke(revoke) => self.apply_lease_revoke(applied, revoke, id),
            _ => self.apply_key_value(applied, command, &alarms),
        }
    }

    fn apply_key_value(
        &mut self,
        applied: Applied,
        command: &CommandView,
        alarms: &Guard<Arc<ClusterView>>,
    ) -> Result<(), EtcdError> {
        let header = self.header();
        let result = {
            let mut writes = Writes::new(&mut self.store, &mut self.leases.table, applied);
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
            self.raise_no_space(alarms);
            return Err(EtcdError::NoSpace);
        }
        Ok(())
    }

    /// Proposes on the member's own behalf.
    pub(super) fn propose(&mut self, body: Body<'_>) {
        self.propose_as(NetId::MEMBER, body);
    }

    /// The same, in the place of a net core that does not exist: nobody waits for the reply.
    pub(super) fn propose_as(&mut self, net: NetId, body: Body<'_>) -> RequestId {
        self.sequence += 1;
        let id = RequestId::new(self.shared.life, net, self.sequence);
        // The member may do what root may, as etcd's does.
        let (user, auth_revision) = self.auth.own_name();
        let header = Header {
            request_id: id.0,
            member_id: self.shared.member_id,
            auth_revision,
            user,
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
        id
    }

    pub(super) fn reply(&mut self, id: RequestId, result: Result<(), EtcdError>) {
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

    pub(super) fn header(&self) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.shared.cluster_id,
            member_id: self.shared.member_id,
            revision: self.store.revision(),
            raft_term: self.shared.term(),
        }
    }

    /// Lengths of the queues to this stage and from it.
    pub fn queues(&self) -> [(&'static str, u64); 5] {
        [
            ("to_apply", self.entries.len() as u64),
            (
                "to_net_waiting",
                self.to_net.iter().map(|ring| ring.waiting() as u64).sum(),
            ),
            ("lease_questions", self.leases.waiting() as u64),
            ("uncommitted_changes", self.store.pending_changes() as u64),
            ("auth_tokens", self.auth.tokens.len() as u64),
        ]
    }

    pub fn settings(&self) -> &ApplySettings {
        &self.settings
    }
}
