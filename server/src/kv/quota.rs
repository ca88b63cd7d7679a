//! What a write costs against the space quota.
//!
//! Always true: the numbers are etcd's: a put costs its key, its value and a fixed overhead, a transaction the dearer of
//! its branches, everything else nothing. Used by the net cores before proposing and by apply. Does not know the quota.

use storage::command::{ArchivedBody, ArchivedOp, ArchivedSpan, ArchivedTxn, CommandView};
use wire::kv::{OpRef, PutRequestRef, TxnRequestRef};

/// Counted for each put beside its bytes.
const KV_OVERHEAD: usize = 256;

/// What granting a lease costs.
pub const LEASE_COST: usize = 64;

pub fn put_cost(request: &PutRequestRef<'_>) -> usize {
    KV_OVERHEAD + request.key.len() + request.value.len()
}

pub fn txn_cost(request: &TxnRequestRef<'_>) -> usize {
    let op_cost = |op: OpRef<'_>| match op {
        OpRef::Put(put) => put_cost(&put),
        OpRef::Txn(txn) => txn_cost(&txn),
        _ => 0,
    };
    let success: usize = request.success().map(op_cost).sum();
    let failure: usize = request.failure().map(op_cost).sum();
    success.max(failure)
}

/// The same for a command that is being applied; 0 for one that takes no space.
pub fn command_cost(command: &CommandView) -> usize {
    match &command.body {
        ArchivedBody::Put(put) => KV_OVERHEAD + put.key.len() + put.value.len(),
        ArchivedBody::Txn(txn) => {
            branch_cost(txn, &txn.root.success).max(branch_cost(txn, &txn.root.failure))
        }
        _ => 0,
    }
}

fn branch_cost(txn: &ArchivedTxn<'static>, span: &ArchivedSpan) -> usize {
    super::apply::ops_of(txn, span)
        .map(|(_, op)| match op {
            ArchivedOp::Put(put) => KV_OVERHEAD + put.key.len() + put.value.len(),
            ArchivedOp::Txn(branches) => {
                branch_cost(txn, &branches.success).max(branch_cost(txn, &branches.failure))
            }
            _ => 0,
        })
        .sum()
}
