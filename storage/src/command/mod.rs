//! The payload of a log entry: what the state machine is to do, as an archive that is read in place.
//!
//! Always true: the same bytes are written to the log, sent to other members and interpreted by apply; nothing decodes
//! them into owned values. An archive is checked in full before it is used, so damaged bytes are an error and never a
//! crash, and its transactions are flat tables, so checking and walking them needs no unbounded stack. The layout
//! changes only by additions (see [`Body`]); a golden file pins it. Encoded by the net cores, read by the apply core.
//! Does not know protobuf, and does not interpret.

mod access;
mod arena;
mod auth;
mod layout;

pub use access::{CommandError, access};
pub use arena::{BLOCK_BYTES, CommandArena};
pub use auth::{ArchivedAuth, Auth};
pub use layout::{
    Alarm, ArchivedAlarm, ArchivedBody, ArchivedBranches, ArchivedClusterVersionSet,
    ArchivedCommand, ArchivedCompact, ArchivedCompare, ArchivedDeleteRange,
    ArchivedDowngradeInfoSet, ArchivedHeader, ArchivedLeaseCheckpoint, ArchivedLeaseGrant,
    ArchivedLeaseRemaining, ArchivedLeaseRevoke, ArchivedMemberAttrSet, ArchivedMemberPeerUrlsSet,
    ArchivedOp, ArchivedPut, ArchivedRange, ArchivedSpan, ArchivedTxn, ArchivedUrl, Body, Branches,
    ClusterVersionSet, Command, CommandView, Compact, Compare, DeleteRange, DowngradeInfoSet,
    Header, LAYOUT_VERSION, LeaseCheckpoint, LeaseGrant, LeaseRemaining, LeaseRevoke,
    MemberAttrSet, MemberPeerUrlsSet, Op, Put, Range, Span, TXN_DEPTH_MAX, Txn, Url,
};
