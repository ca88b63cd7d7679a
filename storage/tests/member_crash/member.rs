//! A member without network and Raft: log, tree and store put together as the server does it, on one simulated disk.
//!
//! Always true of a sound member
//! - An entry is applied once it is durable, and acknowledged once it is applied.
//! - One group commit is under way at a time; it carries data and consistent index together, and log writes go on
//!   between its steps.
//! - The log is given up only behind what a finished group commit covers.
//! - Whatever opening finds is compared with the ledger before it is used.
//!
//! One thread; every choice comes from a seed. A [`Habit`] breaks one of these rules, to show that it is noticed.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use storage::command::{
    ArchivedBody, Body, Command, CommandArena, Compact, DeleteRange, Header, LeaseGrant,
    LeaseRevoke, Put, access,
};
use storage::device::{CrashDisk, Directory};
use storage::lease::{LeaseId, LeaseTable, bucket_key};
use storage::mvcc::{
    self, Applied, Bucket, Change, CompactProgress, Frozen, KeyRange, Reader, Store,
};
use storage::tree::{Scrubber, Snapshot, Tree, TreeError, TreeFiles, TreeOptions, WriteBatch};
use storage::wal::{self, Evidence, HardState, Log, LogIndex, MarkKind, Position, Term, Vote};

use super::check;
use super::model::{Appended, Ledger, Order, Rng};

pub const CONF_STATE: &str = "{\"voters\":[7]}";
pub const MEMBER_KEY: &[u8] = b"0000000000000007";
pub const MEMBER: &[u8] = b"{\"id\":7}";
const METADATA: &[u8] = b"member 7";
const FOUNDED: Applied = Applied { index: 1, term: 1 };
/// Changes in the live batch that do not wait for a random moment.
const COMMIT_CHANGES: usize = 12;
/// Entries behind the last group commit that let the log be trimmed.
const TRIM_ENTRIES: u64 = 12;

/// What a member does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    Sound,
    AcknowledgesBeforeDurable,
    AppliesAgain,
    CommitsIndexBeforeData,
    CommitsDataBeforeIndex,
    TrimsAheadOfTree,
}

/// Why a member is not running.
#[derive(Clone, Debug)]
pub enum Halt {
    /// The disk failed it.
    Stopped(String),
    /// What it keeps is not what it was told to keep.
    Wrong(String),
}

fn stopped(error: impl std::fmt::Display) -> Halt {
    Halt::Stopped(error.to_string())
}

pub struct Member {
    tree: Tree,
    front: Front,
    /// Handed over and not yet in the tree.
    frozen: Option<Frozen>,
    scrubber: Scrubber,
}

/// All but the tree, which has a thread of its own in the server.
struct Front {
    log: Log,
    store: Store<Snapshot>,
    leases: LeaseTable,
    reader: Reader<Snapshot>,
    rng: Rng,
    habit: Habit,
    arena: CommandArena,
    term: u64,
    last: u64,
    /// Appended and not reported durable.
    writes: VecDeque<(Position, u64)>,
    durable: u64,
    /// Not applied, ascending.
    entries: VecDeque<(u64, u64, Bytes)>,
    persisted: u64,
    trimmed: u64,
    /// No new proposals.
    is_quiet: bool,
    /// Of the log's room, left for what was accepted.
    reserve_bytes: u64,
    now_ns: u64,
}

/// Segments as small as the log takes them.
pub fn log_options() -> wal::Options {
    wal::Options {
        segment_bytes: 160 << 10,
        group_bytes: 8 << 10,
        buffers: 2,
        entry_bytes_max: 20 << 10,
        pending_bytes_max: 256 << 10,
        spares_max: 1,
        helper: wal::Helper::Caller,
    }
}

fn tree_options() -> TreeOptions {
    TreeOptions {
        page_bytes: 1024,
        map_bytes: 1 << 20,
        grow_bytes: 8 << 10,
        ..TreeOptions::default()
    }
}

fn store_options() -> mvcc::Options {
    mvcc::Options {
        dead_revisions_max: 6,
        open_threads_max: 1,
        ..mvcc::Options::default()
    }
}

impl Member {
    /// Opens what is there, or founds a member; compares it with the ledger, and brings the ledger to what came back.
    pub fn open(
        disk: &CrashDisk,
        ledger: &mut Ledger,
        habit: Habit,
        seed: u64,
    ) -> Result<Member, Halt> {
        let mut rng = Rng(seed);
        let files = TreeFiles::open_in(&disk.folder("snap")).map_err(stopped)?;
        let (tree, snapshot, tree_report) = Tree::open(files, tree_options()).map_err(stopped)?;
        let (store, reader, report) =
            Store::open(snapshot.clone(), store_options()).map_err(stopped)?;
        let attached = report.lease_keys.clone();
        let (leases, _) = LeaseTable::load(&snapshot, attached, 1, seed).map_err(stopped)?;

        let folder: Arc<dyn Directory> = Arc::new(disk.folder("wal"));
        let mut evidence = Evidence::default();
        if wal::exists(&*folder).map_err(stopped)? {
            evidence.applied_index_min = LogIndex(report.applied.index);
            evidence.entries_from = LogIndex(report.applied.index + 1);
        } else {
            create_log(&*folder, &report, &mut rng).map_err(stopped)?;
        }
        if habit == Habit::AppliesAgain {
            evidence.entries_from = LogIndex(1);
        }
        let (log, mut recovered) = wal::open(folder, &log_options(), evidence).map_err(stopped)?;
        let again = match habit {
            Habit::AppliesAgain => {
                let mut again = std::mem::take(&mut recovered.entries);
                recovered.entries = again.split_off(
                    again.partition_point(|entry| entry.index.0 <= report.applied.index),
                );
                again
            }
            _ => Vec::new(),
        };
        check::found(ledger, &snapshot, tree_report.sums, &report, &recovered)
            .map_err(Halt::Wrong)?;
        drop(snapshot);
        let last = recovered.last_index.0.max(1);
        ledger.entries.truncate(last as usize);
        // What was read once must be there ever after.
        ledger.acknowledged = ledger.acknowledged.max(recovered.last_index.0);
        ledger.persisted = ledger.persisted.max(report.applied.index);
        ledger.hard_state = recovered.hard_state;

        let is_founding = report.applied.index == 0;
        let applied = if is_founding { FOUNDED } else { report.applied };
        let front = Front {
            log,
            store,
            leases,
            reader,
            rng,
            habit,
            arena: CommandArena::new(4096),
            term: recovered.hard_state.term.0.max(applied.term) + 1,
            last,
            writes: VecDeque::new(),
            durable: recovered.hard_state.commit.0.max(applied.index),
            entries: VecDeque::new(),
            persisted: report.applied.index,
            trimmed: recovered.mark.map_or(0, |mark| mark.index.0),
            is_quiet: false,
            reserve_bytes: 0,
            now_ns: 0,
        };
        let mut member = Member {
            tree,
            front,
            frozen: None,
            scrubber: Scrubber::new(),
        };
        let front = &mut member.front;
        if recovered.last_index.0 < applied.index {
            front.begin_log(applied)?;
        }
        if is_founding {
            let mut txn = front.store.begin(applied);
            txn.put_bucket(Bucket::Members, MEMBER_KEY, MEMBER);
            txn.commit();
            front.store.set_conf_state(CONF_STATE);
        }
        for entry in again.into_iter().chain(recovered.entries) {
            let (index, term) = (entry.index.0, entry.term.0);
            front.entries.push_back((index, term, entry.payload));
        }
        Ok(member)
    }

    /// Leads a new term and applies what the log held.
    pub fn start(&mut self, ledger: &mut Ledger) -> Result<(), Halt> {
        let front = &mut self.front;
        front.apply(ledger, usize::MAX)?;
        front.append_hard_state()?;
        front.append(ledger, Order::Nothing, Bytes::new())?;
        front.flush(ledger)?;
        self.serves(ledger)
    }

    /// The store answers as the entries applied so far say.
    pub fn serves(&self, ledger: &Ledger) -> Result<(), Halt> {
        let front = &self.front;
        let applied = front.store.applied().index;
        check::serves(ledger, &front.reader, applied).map_err(Halt::Wrong)?;
        check::holds_leases(ledger, &front.leases, applied).map_err(Halt::Wrong)
    }

    /// Leaves so much of the log's room to what was accepted before, once the disk is full.
    pub fn reserve(&mut self, bytes: u64) {
        self.front.reserve_bytes = bytes;
    }

    /// Whether proposals are refused for want of room.
    pub fn lacks_room(&self) -> bool {
        self.front.log.lacks_room(self.front.reserve_bytes)
    }

    /// Whether what was accepted waits for room.
    pub fn is_held_up(&self) -> bool {
        self.front.is_held_up()
    }

    /// Makes durable and applies what was accepted; false if the log has no room for all of it.
    pub fn flush(&mut self, ledger: &mut Ledger) -> Result<bool, Halt> {
        self.front.flush(ledger)
    }

    /// A random life of so many steps.
    pub fn live(&mut self, ledger: &mut Ledger, steps: usize) -> Result<(), Halt> {
        for _ in 0..steps {
            match self.front.rng.below(16) {
                0..8 => self.front.turn(ledger)?,
                8 | 9 => {
                    self.front.flush(ledger)?;
                }
                10 => self.freeze(),
                11 => {
                    self.commit(ledger)?;
                }
                12 | 13 => {
                    self.front.store.compact_step(4);
                }
                14 => self.front.trim(ledger)?,
                _ => self.front.log.run_chores(),
            }
            let store = &self.front.store;
            if store.must_commit() || store.pending_changes() >= COMMIT_CHANGES {
                self.freeze();
            }
        }
        Ok(())
    }

    fn freeze(&mut self) {
        if self.frozen.is_none() {
            self.frozen = self.front.store.freeze();
        }
    }

    /// Commits the frozen batch, if there is one; false if the disk is full, and then it stays frozen.
    pub fn commit(&mut self, ledger: &mut Ledger) -> Result<bool, Halt> {
        let Some(frozen) = self.frozen.take() else {
            return Ok(true);
        };
        let front = &mut self.front;
        let changes = frozen.changes();
        let part: Option<fn(&Change<'_>) -> bool> = match front.habit {
            Habit::CommitsIndexBeforeData => Some(is_index),
            Habit::CommitsDataBeforeIndex => Some(|change| !is_index(change)),
            _ => None,
        };
        if let Some(part) = part {
            let mut batch = WriteBatch::new();
            changes.for_each(|change| {
                if part(&change) {
                    add(&mut batch, change);
                }
            });
            self.tree.commit(&batch).map_err(stopped)?;
        }
        let mut batch = WriteBatch::new();
        changes.fill(&mut batch);
        let mut meanwhile = Ok(());
        let outcome = self.tree.commit_observed(&batch, &mut |_| {
            if meanwhile.is_ok() {
                meanwhile = front.turn(ledger);
            }
        });
        match outcome {
            Ok(snapshot) => {
                let applied = frozen.applied().index;
                front.store.on_committed(snapshot);
                front.persisted = applied;
                ledger.persisted = applied;
                meanwhile?;
                let step = self.scrubber.step(&self.tree, 8);
                step.map_err(|error| Halt::Wrong(error.to_string()))?;
                Ok(true)
            }
            Err(TreeError::NoSpace { .. }) => {
                self.frozen = Some(frozen.clone());
                meanwhile?;
                Ok(false)
            }
            Err(error) => Err(stopped(error)),
        }
    }

    /// Makes everything durable, ends every compaction, and checks the result.
    pub fn settle(&mut self, ledger: &mut Ledger) -> Result<(), Halt> {
        self.front.is_quiet = true;
        loop {
            if !self.front.flush(ledger)? {
                return Err(Halt::Stopped("the log has no room".to_owned()));
            }
            // Twice: the batch under way, and the one that filled meanwhile.
            for _ in 0..2 {
                self.freeze();
                if !self.commit(ledger)? {
                    return Err(Halt::Stopped("the disk is full".to_owned()));
                }
            }
            let is_idle = self.front.store.compact_step(16) == CompactProgress::Idle;
            if is_idle && self.front.persisted == self.front.last {
                break;
            }
        }
        self.front.is_quiet = false;
        let mut scrubber = Scrubber::new();
        loop {
            let step = scrubber.step(&self.tree, 64);
            let step = step.map_err(|error| Halt::Wrong(error.to_string()))?;
            if step.round_done {
                break;
            }
        }
        check::settled(ledger, self.tree.current()).map_err(Halt::Wrong)?;
        self.serves(ledger)
    }

    /// As a member stops that was asked to.
    pub fn close(mut self, ledger: &mut Ledger) -> Result<(), Halt> {
        self.settle(ledger)?;
        self.front.log.close(|| 0).map_err(stopped)
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }
}

/// A new log: behind what the tree holds, or empty, to be begun with the founding. A founder may do either.
fn create_log(
    folder: &dyn Directory,
    report: &mvcc::OpenReport,
    rng: &mut Rng,
) -> Result<(), wal::OpenError> {
    let log_id = rng.next();
    let is_new = report.applied.index == 0;
    if is_new && rng.below(2) == 0 {
        return wal::create(folder, &log_options(), METADATA, log_id);
    }
    let applied = if is_new { FOUNDED } else { report.applied };
    let mark = mark(applied, MarkKind::Install);
    wal::create_behind(folder, &log_options(), METADATA, log_id, mark)
}

fn mark(applied: Applied, kind: MarkKind) -> wal::SnapshotMark {
    wal::SnapshotMark {
        index: LogIndex(applied.index),
        term: Term(applied.term),
        kind,
        data: Bytes::new(),
    }
}

fn is_index(change: &Change<'_>) -> bool {
    let index_keys: [&[u8]; 2] = [b"consistent_index", b"term"];
    matches!(change, Change::Put { bucket: Bucket::Meta, key, .. } if index_keys.contains(key))
}

fn add<'b>(batch: &mut WriteBatch<'b>, change: Change<'b>) {
    match change {
        Change::Put { bucket, key, value } => batch.put(bucket.name().as_bytes(), key, value),
        Change::Delete { bucket, key } => batch.delete(bucket.name().as_bytes(), key),
    }
}

impl Front {
    /// Starts the new log behind the founding.
    fn begin_log(&mut self, applied: Applied) -> Result<(), Halt> {
        self.log
            .append_snapshot_mark(mark(applied, MarkKind::Install))
            .map_err(stopped)?;
        self.log.submit(0).map_err(stopped)?;
        self.log.wait().map_err(stopped)?;
        self.log.poll(0).map_err(stopped)?;
        Ok(())
    }

    /// One of the small things a member does all the time.
    fn turn(&mut self, ledger: &mut Ledger) -> Result<(), Halt> {
        match self.rng.below(8) {
            0..3 if self.is_quiet || self.log.lacks_room(self.reserve_bytes) => Ok(()),
            0..3 => {
                self.append_hard_state()?;
                for _ in 0..1 + self.rng.below(3) {
                    self.propose(ledger)?;
                }
                Ok(())
            }
            3 | 4 => self.submit(),
            5 | 6 => self.poll(ledger),
            _ => {
                let entries_max = 1 + self.rng.below(4);
                self.apply(ledger, entries_max as usize)
            }
        }
    }

    fn propose(&mut self, ledger: &mut Ledger) -> Result<(), Halt> {
        let order = self.order();
        let header = Header {
            request_id: self.last + 1,
            member_id: 7,
            ..Header::default()
        };
        let body = match &order {
            Order::Put { key, value, lease } => Body::Put(Put {
                key,
                value,
                lease: *lease,
                ..Put::default()
            }),
            Order::Delete(key, range_end) => Body::DeleteRange(DeleteRange {
                key,
                range_end,
                prev_kv: false,
            }),
            Order::Compact(revision) => Body::Compact(Compact {
                revision: *revision,
                physical: false,
            }),
            Order::Grant(id, ttl_s) => Body::LeaseGrant(LeaseGrant {
                id: *id,
                ttl_s: *ttl_s,
            }),
            Order::Revoke(id) => Body::LeaseRevoke(LeaseRevoke { id: *id }),
            Order::Found | Order::Nothing => unreachable!("never proposed"),
        };
        let payload = self.arena.encode(&Command { header, body });
        let payload = payload.expect("a small command");
        self.append(ledger, order, payload)
    }

    fn order(&mut self) -> Order {
        let rng = &mut self.rng;
        let key = |number: u64| format!("key/{number:02}").into_bytes();
        match rng.below(30) {
            24..27 => Order::Grant(1 + rng.below(3) as i64, 60 + rng.below(60) as i64),
            27..29 => Order::Revoke(1 + rng.below(3) as i64),
            0..3 => {
                let from = rng.below(10);
                Order::Delete(key(from), key(from + 1 + rng.below(4)))
            }
            3 | 29 => Order::Compact(self.store.revision() - rng.below(6) as i64),
            choice => {
                let bytes = match choice {
                    4 => 1500 + rng.below(3000),
                    5 => 0,
                    _ => rng.below(200),
                };
                let first = rng.next();
                // A lease that is there now; by the time the entry is applied it may be gone.
                let lease = 1 + rng.below(3) as i64;
                let lease = if self.leases.contains(LeaseId(lease)) {
                    lease
                } else {
                    0
                };
                Order::Put {
                    key: key(rng.below(12)),
                    value: (0..bytes).map(|n| (first + n) as u8).collect(),
                    lease,
                }
            }
        }
    }

    fn append(&mut self, ledger: &mut Ledger, order: Order, payload: Bytes) -> Result<(), Halt> {
        let (term, index) = (self.term, self.last + 1);
        let position = self
            .log
            .append_entry(Term(term), LogIndex(index), 0, &payload)
            .map_err(stopped)?;
        self.last = index;
        self.writes.push_back((position, index));
        self.entries.push_back((index, term, payload.clone()));
        assert_eq!(
            ledger.last() + 1,
            index,
            "the ledger goes on at the log's end"
        );
        ledger.entries.push(Appended {
            term,
            order,
            payload,
        });
        if self.habit == Habit::AcknowledgesBeforeDurable {
            ledger.acknowledged = index;
        }
        Ok(())
    }

    fn append_hard_state(&mut self) -> Result<(), Halt> {
        let state = HardState {
            term: Term(self.term),
            vote: Vote(7),
            commit: LogIndex(self.durable.max(1)),
        };
        self.log.append_hard_state(state).map_err(stopped)?;
        Ok(())
    }

    fn submit(&mut self) -> Result<(), Halt> {
        self.now_ns += 1;
        self.log.submit(self.now_ns).map_err(stopped)?;
        if self.log.writer().is_waiting_for_segment() {
            self.log.run_chores();
        }
        Ok(())
    }

    fn poll(&mut self, ledger: &mut Ledger) -> Result<(), Halt> {
        self.now_ns += 1;
        let Some(synced) = self.log.poll(self.now_ns).map_err(stopped)? else {
            return Ok(());
        };
        while let Some(&(position, index)) = self.writes.front()
            && position <= synced.position
        {
            self.durable = index;
            self.writes.pop_front();
        }
        ledger.hard_state = synced.hard_state;
        Ok(())
    }

    fn is_held_up(&self) -> bool {
        self.log.writer().is_waiting_for_segment() && self.log.preparation_failure().is_some()
    }

    /// Until nothing waits to be written or applied; false if the log waits for room.
    fn flush(&mut self, ledger: &mut Ledger) -> Result<bool, Halt> {
        let mut is_done = true;
        while is_done && (self.log.has_pending() || self.log.has_write_in_flight()) {
            self.submit()?;
            self.poll(ledger)?;
            is_done = !self.is_held_up();
        }
        self.apply(ledger, usize::MAX)?;
        Ok(is_done)
    }

    fn trim(&mut self, ledger: &Ledger) -> Result<(), Halt> {
        let through = match self.habit {
            Habit::TrimsAheadOfTree => self.store.applied().index,
            _ => self.persisted,
        };
        if through < self.trimmed + TRIM_ENTRIES {
            return Ok(());
        }
        let applied = Applied {
            index: through,
            term: ledger.get(through).term,
        };
        self.log
            .append_snapshot_mark(mark(applied, MarkKind::Compaction))
            .map_err(stopped)?;
        self.log.trim(LogIndex(through));
        self.trimmed = through;
        Ok(())
    }

    /// Applies durable entries; their clients have an answer then.
    fn apply(&mut self, ledger: &mut Ledger, entries_max: usize) -> Result<(), Halt> {
        for _ in 0..entries_max {
            let Some((index, term, payload)) = self
                .entries
                .pop_front_if(|(index, ..)| *index <= self.durable)
            else {
                break;
            };
            let mut applied = Applied { index, term };
            let done = self.store.applied();
            if index <= done.index {
                if self.habit != Habit::AppliesAgain {
                    continue;
                }
                applied = done;
            }
            self.apply_one(applied, &payload)?;
            ledger.acknowledged = ledger.acknowledged.max(index);
        }
        Ok(())
    }

    fn apply_one(&mut self, applied: Applied, payload: &[u8]) -> Result<(), Halt> {
        if payload.is_empty() {
            self.store.set_applied(applied);
            return Ok(());
        }
        let command = access(payload).map_err(|error| Halt::Wrong(error.to_string()))?;
        match &command.body {
            ArchivedBody::Put(put) => {
                let lease = LeaseId(put.lease.to_native());
                if !lease.is_none() && !self.leases.contains(lease) {
                    self.store.set_applied(applied);
                    return Ok(());
                }
                let mut txn = self.store.begin(applied);
                txn.put(&put.key, &put.value, lease.0);
                txn.commit();
                self.leases.on_put(&put.key, lease);
            }
            ArchivedBody::DeleteRange(delete) => {
                let mut txn = self.store.begin(applied);
                let range = KeyRange::new(&delete.key, &delete.range_end);
                txn.delete_range(range, &mut |item| self.leases.on_delete(item.key));
                txn.commit();
            }
            ArchivedBody::LeaseGrant(grant) => {
                let id = LeaseId(grant.id.to_native());
                let mut txn = self.store.begin(applied);
                if self.leases.grant(id, grant.ttl_s.to_native()).is_ok() {
                    let mut record = Vec::new();
                    let granted = self.leases.record(id).expect("granted just now");
                    granted.encode_into(&mut record);
                    txn.put_bucket(Bucket::Lease, &bucket_key(id), &record);
                }
                txn.commit();
            }
            ArchivedBody::LeaseRevoke(revoke) => {
                let id = LeaseId(revoke.id.to_native());
                let mut txn = self.store.begin(applied);
                if let Ok(keys) = self.leases.revoke(id) {
                    for key in keys {
                        txn.delete_range(KeyRange::new(&key, b""), &mut |_| {});
                    }
                    txn.delete_bucket(Bucket::Lease, &bucket_key(id));
                }
                txn.commit();
            }
            ArchivedBody::Compact(compact) => {
                self.store.set_applied(applied);
                // One that is refused changes nothing, here as in the model.
                let _refused = self.store.compact(compact.revision.to_native());
            }
            _ => return Err(Halt::Wrong("a command that nobody proposed".to_owned())),
        }
        Ok(())
    }
}
