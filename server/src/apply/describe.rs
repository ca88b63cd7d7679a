//! A command as a log line shows it: keys and sizes, never the values it holds.

use storage::command::{ArchivedBody, CommandView};

/// A command for the log, without the values it may hold.
pub fn describe(command: &CommandView) -> String {
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
        ArchivedBody::LeaseGrant(grant) => {
            format!("lease_grant:<ID:{} TTL:{} >", grant.id, grant.ttl_s)
        }
        ArchivedBody::LeaseRevoke(revoke) => format!("lease_revoke:<ID:{} >", revoke.id),
        ArchivedBody::LeaseCheckpoint(checkpoint) => {
            format!("lease_checkpoint:<leases:{} >", checkpoint.leases.len())
        }
        ArchivedBody::Auth(auth) => {
            let (kind, whom) = auth.describe();
            format!("{kind}:<name:\"{}\" >", whom.escape_debug())
        }
        ArchivedBody::Compact(compact) => format!("compaction:<revision:{} >", compact.revision),
        _ => String::new(),
    }
}
