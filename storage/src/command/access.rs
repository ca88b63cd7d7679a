//! Checks a payload and reads the command in it.
//!
//! Always true: a payload is the archive, its length a multiple of 8, followed by a trailer of 8 bytes (layout version,
//! six zero bytes); nothing of an archive is touched before its trailer, its alignment, all its pointers, its tags and
//! its text have been checked; transactions are checked to be the tables [`Txn`](super::Txn) describes. Called by the
//! apply core, and by tools that print a log. Does not repair.

use super::layout::{
    ArchivedBody, ArchivedBranches, ArchivedOp, ArchivedSpan, ArchivedTxn, CommandView,
    LAYOUT_VERSION, TXN_DEPTH_MAX,
};
use rkyv::rancor::Failure;
use thiserror::Error;

/// Bytes behind the archive.
pub(super) const TRAILER_BYTES: usize = 8;

/// Why a payload cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum CommandError {
    /// The caller handed in bytes that do not start at a multiple of 8; the log keeps payloads at multiples of 16.
    #[error("log entry payload is not aligned in memory")]
    Misaligned,
    #[error("log entry payload is shorter than any command")]
    TooShort,
    /// Written by a newer release.
    #[error(
        "log entry payload has layout {0}, this release reads up to layout {LAYOUT_VERSION}; \
         start a release that knows it"
    )]
    Version(u16),
    #[error("log entry payload is damaged; restore this member from a backup")]
    Damaged,
    #[error("log entry payload holds a transaction nested deeper than {TXN_DEPTH_MAX}")]
    TooDeep,
    /// Only when encoding: a table longer than 2^32 entries or an archive beyond 2 GiB.
    #[error("command is too large to be encoded")]
    TooLarge,
}

/// The command in `payload`, after a full check.
pub fn access(payload: &[u8]) -> Result<&CommandView, CommandError> {
    let (archive, trailer) = payload
        .split_last_chunk::<TRAILER_BYTES>()
        .ok_or(CommandError::TooShort)?;
    let (version, reserved) = trailer.split_at(2);
    let version = u16::from_le_bytes([version[0], version[1]]);
    if version != LAYOUT_VERSION {
        return Err(CommandError::Version(version));
    }
    if reserved.iter().any(|&byte| byte != 0) {
        return Err(CommandError::Damaged);
    }
    if archive.len() < size_of::<CommandView>() {
        return Err(CommandError::TooShort);
    }
    if !archive
        .as_ptr()
        .addr()
        .is_multiple_of(align_of::<CommandView>())
    {
        return Err(CommandError::Misaligned);
    }
    let command =
        rkyv::access::<CommandView, Failure>(archive).map_err(|_| CommandError::Damaged)?;
    if let ArchivedBody::Txn(txn) = &command.body {
        check_tables(txn)?;
    }
    Ok(command)
}

/// One pass over the operations, in which every transaction must claim exactly the next entries of both tables.
fn check_tables(txn: &ArchivedTxn<'_>) -> Result<(), CommandError> {
    let mut compares_end = 0;
    let mut ops_end = 0;
    claim_branches(&txn.root, &mut compares_end, &mut ops_end)?;
    // Operations below `level_end` are in transactions of depth `depth`; later ones are nested deeper.
    let mut depth = 1;
    let mut level_end = ops_end;
    for (slot, op) in txn.ops.iter().enumerate() {
        if slot as u64 == level_end {
            depth += 1;
            level_end = ops_end;
        }
        if let ArchivedOp::Txn(branches) = op {
            if depth == TXN_DEPTH_MAX {
                return Err(CommandError::TooDeep);
            }
            claim_branches(branches, &mut compares_end, &mut ops_end)?;
        }
    }
    if compares_end != txn.compares.len() as u64 || ops_end != txn.ops.len() as u64 {
        return Err(CommandError::Damaged);
    }
    Ok(())
}

fn claim_branches(
    branches: &ArchivedBranches,
    compares_end: &mut u64,
    ops_end: &mut u64,
) -> Result<(), CommandError> {
    claim(&branches.compares, compares_end)?;
    claim(&branches.success, ops_end)?;
    claim(&branches.failure, ops_end)
}

fn claim(span: &ArchivedSpan, end: &mut u64) -> Result<(), CommandError> {
    if u64::from(span.from.to_native()) != *end {
        return Err(CommandError::Damaged);
    }
    *end += u64::from(span.len.to_native());
    Ok(())
}
