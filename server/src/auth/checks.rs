//! What rights a request needs: etcd's rules, in its order.
//!
//! Always true here: nothing is changed or read but the request, the rights and what is attached to leases; every branch
//! of a transaction is asked for, nested ones too, whichever will run. Reads are asked on net cores, writes on the apply
//! core.

use storage::auth::{AuthView, Refusal, Rights};
use storage::command::{
    ArchivedBody, ArchivedBranches, ArchivedOp, ArchivedPut, ArchivedSpan, ArchivedTxn, CommandView,
};
use storage::lease::{LeaseId, LeaseTable};
use wire::grpc::MethodId;
use wire::kv::{OpRef, RangeRequestRef, TxnRequestRef};

use crate::services::methods::id;

type Checked = Result<(), Refusal>;

/// A read that was decoded and checked before.
pub fn check_read(method: MethodId, request: &[u8], rights: &Rights<'_>) -> Checked {
    const CHECKED: &str = "the request was decoded before it was parked";
    match method {
        id::KV_RANGE | id::KV_RANGE_STREAM => {
            let range = RangeRequestRef::decode(request).expect(CHECKED);
            rights.may_read(range.key, range.range_end)
        }
        id::KV_TXN => {
            let txn = TxnRequestRef::decode(request).expect(CHECKED);
            for compare in txn.compares() {
                rights.may_read(compare.key, compare.range_end)?;
            }
            for op in txn.success().chain(txn.failure()) {
                if let OpRef::Range(range) = op {
                    rights.may_read(range.key, range.range_end)?;
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A write, before it is carried out.
pub fn check_write(view: &AuthView, leases: &LeaseTable, command: &CommandView) -> Checked {
    if !view.is_enabled {
        return Ok(());
    }
    let user = &*command.header.user;
    let asker = Asker {
        view,
        leases,
        user,
        rights: Rights::of(view, user, command.header.auth_revision.to_native()),
    };
    match &command.body {
        ArchivedBody::Put(put) => asker.check_put(put),
        ArchivedBody::DeleteRange(delete) => {
            asker.rights.may_write(&delete.key, &delete.range_end)?;
            match delete.prev_kv {
                true => asker.rights.may_read(&delete.key, &delete.range_end),
                false => Ok(()),
            }
        }
        ArchivedBody::Txn(txn) => asker.check_txn(txn, &txn.root),
        ArchivedBody::LeaseRevoke(revoke) => asker.check_lease(LeaseId(revoke.id.to_native())),
        _ => Ok(()),
    }
}

/// Keeping a lease alive, or taking it, needs the right to write all that is attached to it.
pub fn check_lease_writes(
    view: &AuthView,
    leases: &LeaseTable,
    (user, revision): (&str, u64),
    id: LeaseId,
) -> Checked {
    let asker = Asker {
        view,
        leases,
        user,
        rights: Rights::of(view, user, revision),
    };
    asker.check_lease(id)
}

/// Being told what is attached to a lease needs the right to read it.
pub fn check_lease_reads(
    view: &AuthView,
    leases: &LeaseTable,
    (user, revision): (&str, u64),
    id: LeaseId,
) -> Checked {
    if view.check_root(user).is_ok() {
        return Ok(());
    }
    let rights = Rights::of(view, user, revision);
    let mut keys = leases.keys(id).iter();
    keys.try_for_each(|key| rights.may_read(key, b""))
}

struct Asker<'v> {
    view: &'v AuthView,
    leases: &'v LeaseTable,
    user: &'v str,
    rights: Rights<'v>,
}

impl Asker<'_> {
    fn check_put(&self, put: &ArchivedPut<'_>) -> Checked {
        self.rights.may_write(&put.key, b"")?;
        // Else somebody could have his key deleted together with keys that he may not delete, and the other way round.
        self.check_lease(LeaseId(put.lease.to_native()))?;
        match put.prev_kv {
            true => self.rights.may_read(&put.key, b""),
            false => Ok(()),
        }
    }

    fn check_lease(&self, id: LeaseId) -> Checked {
        let keys = self.leases.keys(id);
        if keys.is_empty() || self.view.check_root(self.user).is_ok() {
            return Ok(());
        }
        keys.iter()
            .try_for_each(|key| self.rights.may_write(key, b""))
    }

    /// As deep as transactions nest, which [`storage::command`] bounds.
    fn check_txn(&self, txn: &ArchivedTxn<'_>, branches: &ArchivedBranches) -> Checked {
        for compare in part(&txn.compares, &branches.compares) {
            self.rights.may_read(&compare.key, &compare.range_end)?;
        }
        for span in [&branches.success, &branches.failure] {
            for op in part(&txn.ops, span) {
                self.check_op(txn, op)?;
            }
        }
        Ok(())
    }

    fn check_op(&self, txn: &ArchivedTxn<'_>, op: &ArchivedOp<'_>) -> Checked {
        match op {
            ArchivedOp::Range(range) => self.rights.may_read(&range.key, &range.range_end),
            ArchivedOp::Put(put) => self.check_put(put),
            ArchivedOp::DeleteRange(delete) => {
                if delete.prev_kv {
                    self.rights.may_read(&delete.key, &delete.range_end)?;
                }
                self.rights.may_write(&delete.key, &delete.range_end)
            }
            ArchivedOp::Txn(branches) => self.check_txn(txn, branches),
        }
    }
}

/// A run of a table, whose bounds were checked when the command was read.
fn part<'t, T>(table: &'t [T], span: &ArchivedSpan) -> &'t [T] {
    let from = span.from.to_native() as usize;
    &table[from..from + span.len.to_native() as usize]
}
