//! Checks a request before it is proposed or read, in etcd's order.
//!
//! Always true: what passes here and its pre-checks at apply can be executed without a further error. The first error in
//! etcd's order is the one reported. Called by the net cores on decoded requests. Does not look at the store.

use std::collections::BTreeSet;

use wire::error::EtcdError;
use wire::kv::{DeleteRangeRequestRef, OpRef, PutRequestRef, RangeRequestRef, TxnRequestRef};

use super::intervals::IntervalSet;
use super::store::KeyRange;

/// etcd's numbers for `sort_order`.
pub mod sort_order {
    pub const NONE: i32 = 0;
    pub const ASCEND: i32 = 1;
    pub const DESCEND: i32 = 2;
}

/// etcd's numbers for `sort_target`.
pub mod sort_target {
    pub const KEY: i32 = 0;
    pub const VERSION: i32 = 1;
    pub const CREATE: i32 = 2;
    pub const MOD: i32 = 3;
    pub const VALUE: i32 = 4;
}

pub fn check_range(request: &RangeRequestRef<'_>) -> Result<(), EtcdError> {
    if request.key.is_empty() {
        return Err(EtcdError::EmptyKey);
    }
    if !(sort_order::NONE..=sort_order::DESCEND).contains(&request.sort_order)
        || !(sort_target::KEY..=sort_target::VALUE).contains(&request.sort_target)
    {
        return Err(EtcdError::InvalidSortOption);
    }
    Ok(())
}

pub fn check_range_stream(request: &RangeRequestRef<'_>) -> Result<(), EtcdError> {
    check_range(request)?;
    if !is_key_order(request) {
        return Err(EtcdError::RangeStreamSort);
    }
    if has_filters(request) {
        return Err(EtcdError::RangeStreamFilters);
    }
    Ok(())
}

pub fn check_put(request: &PutRequestRef<'_>) -> Result<(), EtcdError> {
    if request.key.is_empty() {
        return Err(EtcdError::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(EtcdError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(EtcdError::LeaseProvided);
    }
    Ok(())
}

pub fn check_delete_range(request: &DeleteRangeRequestRef<'_>) -> Result<(), EtcdError> {
    if request.key.is_empty() {
        return Err(EtcdError::EmptyKey);
    }
    Ok(())
}

/// `ops_max` is the configured number of operations a transaction may have.
pub fn check_txn(request: &TxnRequestRef<'_>, ops_max: usize) -> Result<(), EtcdError> {
    let has_nested = check_txn_ops(request, ops_max)?;
    // Second, so that the number of operations it has to go through is bounded. A lone operation collides with nothing,
    // and most branches are one.
    let lens = request.lens();
    if has_nested || lens.success > 1 {
        check_duplicates(request.success())?;
    }
    if has_nested || lens.failure > 1 {
        check_duplicates(request.failure())?;
    }
    Ok(())
}

/// Whether the answer needs no consensus round and no log entry: all operations are ranges.
pub fn is_readonly(request: &TxnRequestRef<'_>) -> bool {
    request
        .success()
        .chain(request.failure())
        .all(|op| matches!(op, OpRef::Range(_)))
}

/// Whether the answer may come from local state: all operations are serializable ranges.
pub fn is_serializable(request: &TxnRequestRef<'_>) -> bool {
    request
        .success()
        .chain(request.failure())
        .all(|op| matches!(op, OpRef::Range(range) if range.serializable))
}

/// Whether the limit can be applied while scanning. A target without an order counts: it is scanned in key order, cut,
/// and sorted afterwards.
pub fn is_key_order(request: &RangeRequestRef<'_>) -> bool {
    request.sort_order == sort_order::NONE
        || (request.sort_target == sort_target::KEY && request.sort_order == sort_order::ASCEND)
}

pub fn has_filters(request: &RangeRequestRef<'_>) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

/// Whether transactions are nested in it.
fn check_txn_ops(request: &TxnRequestRef<'_>, ops_max: usize) -> Result<bool, EtcdError> {
    let lens = request.lens();
    let ops = lens.compares.max(lens.success).max(lens.failure);
    if ops > ops_max {
        return Err(EtcdError::TooManyOps);
    }
    if request.compares().any(|compare| compare.key.is_empty()) {
        return Err(EtcdError::EmptyKey);
    }
    let mut has_nested = false;
    for op in request.success().chain(request.failure()) {
        match op {
            OpRef::Range(range) => check_range(&range)?,
            OpRef::Put(put) => check_put(&put)?,
            OpRef::DeleteRange(delete) => check_delete_range(&delete)?,
            OpRef::Txn(txn) => {
                check_txn_ops(&txn, ops_max - ops)?;
                has_nested = true;
            }
            OpRef::Unset => return Err(EtcdError::KeyNotFound),
        }
    }
    Ok(has_nested)
}

/// Keys that a list of operations puts, and those it deletes.
#[derive(Default)]
struct Touched<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: IntervalSet<'a>,
}

/// The duplicate rule for one branch and everything nested in it.
///
/// Deletes of this level count from the start. Nested transactions follow in order, each seeing what the ones before it
/// touched; puts of this level come last. A nested transaction's two branches exclude each other, so they may put the
/// same key.
fn check_duplicates<'a>(
    ops: impl Iterator<Item = OpRef<'a>> + Clone,
) -> Result<Touched<'a>, EtcdError> {
    let mut touched = Touched::default();
    for op in ops.clone() {
        if let OpRef::DeleteRange(delete) = op {
            add_delete(&mut touched.deletes, &delete);
        }
    }
    for op in ops.clone() {
        let OpRef::Txn(txn) = op else { continue };
        let success = check_duplicates(txn.success())?;
        let failure = check_duplicates(txn.failure())?;
        let collides = |key: &[u8]| touched.puts.contains(key) || touched.deletes.contains(key);
        if success
            .puts
            .iter()
            .chain(&failure.puts)
            .any(|key| collides(key))
        {
            return Err(EtcdError::DuplicateKey);
        }
        for mut puts in [success.puts, failure.puts] {
            if touched.puts.len() < puts.len() {
                std::mem::swap(&mut touched.puts, &mut puts);
            }
            touched.puts.extend(puts);
        }
        touched.deletes.add_all(success.deletes);
        touched.deletes.add_all(failure.deletes);
    }
    for op in ops {
        let OpRef::Put(put) = op else { continue };
        if touched.deletes.contains(put.key) || !touched.puts.insert(put.key) {
            return Err(EtcdError::DuplicateKey);
        }
    }
    Ok(touched)
}

/// etcd's interval tree takes one zero byte as an end below every key, so a delete of everything from a key on covers
/// nothing here and collides with no put. Apply keeps such a transaction from harm.
fn add_delete<'a>(deletes: &mut IntervalSet<'a>, delete: &DeleteRangeRequestRef<'a>) {
    if delete.range_end != b"\0" {
        deletes.add(KeyRange::new(delete.key, delete.range_end));
    }
}
