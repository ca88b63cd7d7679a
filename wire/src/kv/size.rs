//! How long etcd's raft entry for a request would be.
//!
//! Always true: the result is the length of the marshalled `InternalRaftRequest` with its header, because that length
//! and no other decides `etcdserver: request is too large`. Called by the net cores before a request is proposed. Our own
//! log entry has another layout and another length; it plays no part here.

use super::field::{bytes_len, present_bytes_len, u64_len};
use super::request::{CompactionRequestRef, DeleteRangeRequestRef, PutRequestRef};
use super::txn::TxnRequestRef;

/// Field number of the header in `InternalRaftRequest`.
const HEADER_FIELD: u32 = 100;

/// A request that becomes a raft entry.
#[derive(Clone, Copy, Debug)]
pub enum RequestEnvelope<'a> {
    Put(&'a PutRequestRef<'a>),
    DeleteRange(&'a DeleteRangeRequestRef<'a>),
    Txn(&'a TxnRequestRef<'a>),
    Compaction(&'a CompactionRequestRef),
    /// Any other message: its field number in `InternalRaftRequest` and its encoded length.
    Other {
        field: u32,
        len: usize,
    },
}

/// Length of etcd's entry for `request`, proposed under `request_id` by `username` at `auth_revision` (empty and 0 while
/// authentication is off).
pub fn etcd_request_bytes(
    request: RequestEnvelope<'_>,
    request_id: u64,
    username: &str,
    auth_revision: u64,
) -> usize {
    let (field, len) = match request {
        RequestEnvelope::Put(request) => (4, request.encoded_len()),
        RequestEnvelope::DeleteRange(request) => (5, request.encoded_len()),
        RequestEnvelope::Txn(request) => (6, request.encoded_len()),
        RequestEnvelope::Compaction(request) => (7, request.encoded_len()),
        RequestEnvelope::Other { field, len } => (field, len),
    };
    let header_len =
        u64_len(1, request_id) + bytes_len(2, username.len()) + u64_len(3, auth_revision);
    present_bytes_len(field, len) + present_bytes_len(HEADER_FIELD, header_len)
}
