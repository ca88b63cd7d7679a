//! Applies key-value commands.
//!
//! Always true: all comparisons and checks see the state before the command, and all of them come before the first
//! change, so a command either passes whole or leaves no trace; the same command on the same state gives the same state
//! and the same reply on every member. Runs on the apply core, on commands that [`storage::command::access`] has checked.
//! Does not open or commit the store's transaction.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use storage::command::{
    ArchivedBody, ArchivedBranches, ArchivedDeleteRange, ArchivedOp, ArchivedPut, ArchivedRange,
    ArchivedSpan, ArchivedTxn, CommandView,
};
use wire::error::EtcdError;
use wire::kv::{
    RangeRequestRef, ReplyKind, ResponseHeader, TxnReply, put_delete_range_response,
    put_deleted_prev_kv, put_put_response,
};

use super::compare::Operand;
use super::intervals::IntervalSet;
use super::range::RangeJob;
use super::store::{
    KeyRange, ReadStore, StoredItem, TxnReads, TxnScan, WriteTxn, newest_revision, read_record,
};

/// The operations of one branch with their places in the table.
pub(super) fn ops_of<'a>(
    txn: &'a ArchivedTxn<'static>,
    span: &ArchivedSpan,
) -> impl Iterator<Item = (usize, &'a ArchivedOp<'static>)> + use<'a> {
    let from = span.from.to_native() as usize;
    let len = span.len.to_native() as usize;
    txn.ops[from..from + len]
        .iter()
        .enumerate()
        .map(move |(at, op)| (from + at, op))
}

/// Interprets commands. Holds only scratch memory, kept from one command to the next.
#[derive(Default)]
pub struct Applier {
    scratch: Scratch,
    reply: TxnReply,
    /// For each nested transaction, by the place of its operation: whether its comparisons hold.
    succeeded: Vec<bool>,
}

#[derive(Default)]
struct Scratch {
    /// The record a put replaces.
    previous: Vec<u8>,
    /// The records a delete takes away, as the reply wants them.
    prev_kvs: Vec<u8>,
    range: RangeJob<TxnScan>,
}

impl Applier {
    /// Applies `command` if it is a put, a delete or a transaction; `None` for every other kind.
    ///
    /// `reply` gets the encoded reply under `header`, whose revision is filled in. Without it (nobody waits on this
    /// member) no reply is built and ranges inside transactions are not read. On an error nothing was changed and
    /// nothing was appended.
    pub fn apply<W: WriteTxn>(
        &mut self,
        command: &CommandView,
        txn: &mut W,
        header: &ResponseHeader,
        reply: Option<&mut Vec<u8>>,
    ) -> Option<Result<(), EtcdError>> {
        assert!(!txn.has_changed(), "one transaction applies one command");
        match &command.body {
            ArchivedBody::Put(put) => Some(self.apply_put(put, txn, header, reply)),
            ArchivedBody::DeleteRange(delete) => {
                self.scratch.delete_range(delete, txn, header, reply);
                Some(Ok(()))
            }
            ArchivedBody::Txn(request) => Some(self.apply_txn(request, txn, header, reply)),
            _ => None,
        }
    }

    fn apply_put<W: WriteTxn>(
        &mut self,
        put: &ArchivedPut<'static>,
        txn: &mut W,
        header: &ResponseHeader,
        reply: Option<&mut Vec<u8>>,
    ) -> Result<(), EtcdError> {
        check_lease(put.lease.to_native(), txn)?;
        let has_previous = self.scratch.read_previous(put, txn);
        if needs_previous(put) && !has_previous {
            return Err(EtcdError::KeyNotFound);
        }
        if put.ignore_lease {
            check_lease(read_record(&self.scratch.previous).lease, txn)?;
        }
        self.scratch.put(put, has_previous, txn, header, reply);
        Ok(())
    }

    fn apply_txn<W: WriteTxn>(
        &mut self,
        request: &ArchivedTxn<'static>,
        txn: &mut W,
        header: &ResponseHeader,
        reply: Option<&mut Vec<u8>>,
    ) -> Result<(), EtcdError> {
        self.succeeded.clear();
        self.succeeded.resize(request.ops.len(), false);
        let root_succeeded = decide(request, &request.root, txn, &mut self.succeeded);
        let chosen = branch(&request.root, root_succeeded);
        let mut checks = Checks::new(request, &self.succeeded);
        checks.check_branch(chosen, txn)?;
        if checks.has_delete && checks.has_needy_put {
            Presence::default().check_branch(request, chosen, &self.succeeded)?;
        }
        // From here on nothing can fail.
        let mut execution = Execution {
            request,
            succeeded: &self.succeeded,
            scratch: &mut self.scratch,
        };
        match reply {
            Some(out) => {
                self.reply.begin(out, root_succeeded);
                execution.run(chosen, txn, Some((&mut self.reply, out)));
                let revision = newest_revision(txn);
                self.reply.finish(
                    out,
                    &ResponseHeader {
                        revision,
                        ..*header
                    },
                );
            }
            None => execution.run(chosen, txn, None),
        }
        Ok(())
    }
}

fn branch(branches: &ArchivedBranches, succeeded: bool) -> &ArchivedSpan {
    if succeeded {
        &branches.success
    } else {
        &branches.failure
    }
}

/// Evaluates the comparisons of a transaction and of those nested in its chosen branch.
fn decide<W: WriteTxn>(
    request: &ArchivedTxn<'static>,
    branches: &ArchivedBranches,
    txn: &W,
    succeeded: &mut [bool],
) -> bool {
    let from = branches.compares.from.to_native() as usize;
    let len = branches.compares.len.to_native() as usize;
    let holds = request.compares[from..from + len].iter().all(|compare| {
        let operand = Operand::from(compare);
        let mut found = false;
        let mut holds = true;
        let range = KeyRange::new(&compare.key, &compare.range_end);
        if range.is_single() {
            txn.get(range.key, &mut |item| {
                found = true;
                holds = operand.holds_for(item);
            });
        } else {
            txn.range(range, newest_revision(txn), &mut |item| {
                found = true;
                holds = operand.holds_for(item);
                if holds {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            });
        }
        if found {
            holds
        } else {
            operand.holds_for_nothing()
        }
    });
    for (slot, op) in ops_of(request, branch(branches, holds)) {
        if let ArchivedOp::Txn(nested) = op {
            succeeded[slot] = decide(request, nested, txn, succeeded);
        }
    }
    holds
}

/// A put may name only a lease that exists, also where it takes the name from the record it replaces: a file may hold
/// keys whose lease is not in it. etcd's members crash on such a put with `ignore_lease`, and again at every start.
fn check_lease<W: WriteTxn>(lease: i64, txn: &W) -> Result<(), EtcdError> {
    if lease != 0 && !txn.has_lease(lease) {
        return Err(EtcdError::LeaseNotFound);
    }
    Ok(())
}

/// A range's revision against the state before a transaction. Zero is the newest; a negative one is like any other
/// number below the compact revision, so it passes only as -1 before the first compaction.
pub(super) fn check_range_revision(
    asked: i64,
    revision: i64,
    compact_revision: i64,
) -> Result<(), EtcdError> {
    if asked == 0 {
        Ok(())
    } else if asked > revision {
        Err(EtcdError::FutureRevision)
    } else if asked < compact_revision {
        Err(EtcdError::Compacted)
    } else {
        Ok(())
    }
}

/// Whether the put takes something from the record it replaces.
fn needs_previous(put: &ArchivedPut<'_>) -> bool {
    put.ignore_value || put.ignore_lease
}

/// etcd's checks of the operations that will run, in its order, against the state before the transaction.
struct Checks<'a> {
    request: &'a ArchivedTxn<'static>,
    succeeded: &'a [bool],
    has_delete: bool,
    has_needy_put: bool,
}

impl<'a> Checks<'a> {
    fn new(request: &'a ArchivedTxn<'static>, succeeded: &'a [bool]) -> Self {
        Checks {
            request,
            succeeded,
            has_delete: false,
            has_needy_put: false,
        }
    }

    fn check_branch<W: WriteTxn>(&mut self, span: &ArchivedSpan, txn: &W) -> Result<(), EtcdError> {
        for (slot, op) in ops_of(self.request, span) {
            match op {
                ArchivedOp::Range(range) => check_range_revision(
                    range.revision.to_native(),
                    txn.revision(),
                    txn.compact_revision(),
                )?,
                ArchivedOp::Put(put) => {
                    check_lease(put.lease.to_native(), txn)?;
                    if needs_previous(put) {
                        self.has_needy_put = true;
                        let mut lease = None;
                        txn.get(&put.key, &mut |item| {
                            lease = Some(match put.ignore_lease {
                                true => read_record(item.record()).lease,
                                false => 0,
                            });
                        });
                        check_lease(lease.ok_or(EtcdError::KeyNotFound)?, txn)?;
                    }
                }
                ArchivedOp::DeleteRange(_) => self.has_delete = true,
                ArchivedOp::Txn(nested) => {
                    self.check_branch(branch(nested, self.succeeded[slot]), txn)?;
                }
            }
        }
        Ok(())
    }
}

/// Follows which keys the transaction itself takes away and puts back.
///
/// The duplicate rule lets some transactions pass that delete a key and then put it with `ignore_value` or
/// `ignore_lease` (a delete of everything from a key on, say). The check against the state before finds the key; when the
/// put runs there is nothing to take the value from. etcd's members crash on it, all of them, and again at every start.
/// Here it is one more check before the first change.
#[derive(Default)]
struct Presence<'a> {
    deleted: IntervalSet<'a>,
    put_back: BTreeSet<&'a [u8]>,
}

impl<'a> Presence<'a> {
    fn check_branch(
        &mut self,
        request: &'a ArchivedTxn<'static>,
        span: &ArchivedSpan,
        succeeded: &[bool],
    ) -> Result<(), EtcdError> {
        for (slot, op) in ops_of(request, span) {
            match op {
                ArchivedOp::Range(_) => {}
                ArchivedOp::Put(put) => {
                    let key: &'a [u8] = &put.key;
                    let is_gone = self.deleted.contains(key) && !self.put_back.contains(key);
                    if is_gone && needs_previous(put) {
                        return Err(EtcdError::KeyNotFound);
                    }
                    self.put_back.insert(key);
                }
                ArchivedOp::DeleteRange(delete) => {
                    let range = KeyRange::new(&delete.key, &delete.range_end);
                    self.deleted.add(range);
                    while let Some(key) = next_from(&self.put_back, range.key)
                        && range.contains(key)
                    {
                        self.put_back.remove(key);
                    }
                }
                ArchivedOp::Txn(nested) => {
                    self.check_branch(request, branch(nested, succeeded[slot]), succeeded)?;
                }
            }
        }
        Ok(())
    }
}

fn next_from<'a>(keys: &BTreeSet<&'a [u8]>, from: &[u8]) -> Option<&'a [u8]> {
    keys.range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
        .next()
        .copied()
}

/// A checked transaction being carried out.
struct Execution<'a> {
    request: &'a ArchivedTxn<'static>,
    succeeded: &'a [bool],
    scratch: &'a mut Scratch,
}

impl Execution<'_> {
    fn run<W: WriteTxn>(
        &mut self,
        span: &ArchivedSpan,
        txn: &mut W,
        mut reply: Option<(&mut TxnReply, &mut Vec<u8>)>,
    ) {
        let no_header = ResponseHeader::default();
        for (slot, op) in ops_of(self.request, span) {
            match op {
                ArchivedOp::Range(range) => {
                    if let Some((reply, out)) = &mut reply {
                        reply.begin_op(out, ReplyKind::Range);
                        self.scratch.range(range, &TxnReads(&*txn), out);
                        reply.end_op(out);
                    }
                }
                ArchivedOp::Put(put) => {
                    let has_previous = self.scratch.read_previous(put, txn);
                    match &mut reply {
                        Some((reply, out)) => {
                            reply.begin_op(out, ReplyKind::Put);
                            self.scratch
                                .put(put, has_previous, txn, &no_header, Some(out));
                            reply.end_op(out);
                        }
                        None => self.scratch.put(put, has_previous, txn, &no_header, None),
                    }
                }
                ArchivedOp::DeleteRange(delete) => match &mut reply {
                    Some((reply, out)) => {
                        reply.begin_op(out, ReplyKind::DeleteRange);
                        self.scratch
                            .delete_range(delete, txn, &no_header, Some(out));
                        reply.end_op(out);
                    }
                    None => self.scratch.delete_range(delete, txn, &no_header, None),
                },
                ArchivedOp::Txn(nested) => {
                    let succeeded = self.succeeded[slot];
                    let chosen = branch(nested, succeeded);
                    match &mut reply {
                        Some((reply, out)) => {
                            reply.begin_nested(out, succeeded);
                            self.run(chosen, txn, Some((reply, out)));
                            reply.end_op(out);
                        }
                        None => self.run(chosen, txn, None),
                    }
                }
            }
        }
    }
}

impl Scratch {
    /// Copies the record the put replaces, if the put or its reply asks for it; whether there is one.
    fn read_previous<W: WriteTxn>(&mut self, put: &ArchivedPut<'_>, txn: &W) -> bool {
        let mut found = false;
        if put.prev_kv || needs_previous(put) {
            let previous = &mut self.previous;
            previous.clear();
            txn.get(&put.key, &mut |item| {
                found = true;
                previous.extend_from_slice(item.record());
            });
        }
        found
    }

    /// A put that has passed its checks.
    fn put<W: WriteTxn>(
        &mut self,
        put: &ArchivedPut<'_>,
        has_previous: bool,
        txn: &mut W,
        header: &ResponseHeader,
        reply: Option<&mut Vec<u8>>,
    ) {
        let mut value: &[u8] = &put.value;
        let mut lease = put.lease.to_native();
        if needs_previous(put) {
            assert!(has_previous, "checked before the first change");
            let previous = read_record(&self.previous);
            if put.ignore_value {
                value = previous.value;
            }
            if put.ignore_lease {
                lease = previous.lease;
            }
        }
        txn.put(&put.key, value, lease);
        if let Some(out) = reply {
            let header = ResponseHeader {
                revision: newest_revision(txn),
                ..*header
            };
            let prev_kv = (put.prev_kv && has_previous).then_some(self.previous.as_slice());
            put_put_response(out, &header, prev_kv);
        }
    }

    fn delete_range<W: WriteTxn>(
        &mut self,
        delete: &ArchivedDeleteRange<'_>,
        txn: &mut W,
        header: &ResponseHeader,
        reply: Option<&mut Vec<u8>>,
    ) {
        let prev_kvs = &mut self.prev_kvs;
        prev_kvs.clear();
        let wants_records = delete.prev_kv && reply.is_some();
        let range = KeyRange::new(&delete.key, &delete.range_end);
        let mut keep = |item: &dyn StoredItem| put_deleted_prev_kv(prev_kvs, item.record());
        let deleted = txn.delete_range(range, wants_records.then_some(&mut keep));
        if let Some(out) = reply {
            let header = ResponseHeader {
                revision: newest_revision(txn),
                ..*header
            };
            put_delete_range_response(out, &header, deleted as i64, prev_kvs);
        }
    }

    fn range<S: ReadStore<Scan = TxnScan>>(
        &mut self,
        range: &ArchivedRange<'_>,
        reads: &S,
        out: &mut Vec<u8>,
    ) {
        let request = RangeRequestRef {
            key: &range.key,
            range_end: &range.range_end,
            limit: range.limit.to_native(),
            revision: range.revision.to_native(),
            sort_order: i32::from(range.sort_order),
            sort_target: i32::from(range.sort_target),
            serializable: false,
            keys_only: range.keys_only,
            count_only: range.count_only,
            min_mod_revision: range.min_mod_revision.to_native(),
            max_mod_revision: range.max_mod_revision.to_native(),
            min_create_revision: range.min_create_revision.to_native(),
            max_create_revision: range.max_create_revision.to_native(),
        };
        let no_header = ResponseHeader::default();
        self.range
            .begin(reads, &request, &no_header, out)
            .and_then(|()| self.range.finish(reads, out))
            .expect("the revision was checked, and nothing is compacted inside a transaction");
    }
}
