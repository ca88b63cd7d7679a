//! Replies of the key-value service, written straight into the output buffer.
//!
//! Always true: fields go out in number order, zero fields and only those are left out, lengths are in their shortest
//! form: the bytes are those any protobuf library would write. Records are copied as stored, never encoded again. Called
//! by the net cores (ranges, read-only transactions) and the apply core (everything else). Does not frame: the gRPC
//! prefix is written by the caller.

use super::field::{
    put_bool, put_i64, put_message_key, put_present_bytes, put_u64, put_varint, varint_len,
};
use super::key_value::KeyValueParts;

/// `etcdserverpb.ResponseHeader`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ResponseHeader {
    pub cluster_id: u64,
    pub member_id: u64,
    pub revision: i64,
    pub raft_term: u64,
}

/// Four keys and four numbers of at most ten bytes, the key and the length of the message itself.
const HEADER_BYTES_MAX: usize = 2 + 4 * 11;

impl ResponseHeader {
    /// The header of an operation inside a transaction, where nothing but the revision is set.
    pub fn of_operation(revision: i64) -> Self {
        ResponseHeader {
            revision,
            ..ResponseHeader::default()
        }
    }

    /// Appends the header as field 1 of a reply; every reply has it there.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_message_key(out, 1);
        let len_at = out.len();
        out.push(0);
        put_u64(out, 1, self.cluster_id);
        put_u64(out, 2, self.member_id);
        put_i64(out, 3, self.revision);
        put_u64(out, 4, self.raft_term);
        // At most 44 bytes, so the length fits in its one byte.
        out[len_at] = (out.len() - len_at - 1) as u8;
    }
}

/// Appends a `PutResponse`; `prev_kv` is an encoded record.
pub fn put_put_response(out: &mut Vec<u8>, header: &ResponseHeader, prev_kv: Option<&[u8]>) {
    header.put(out);
    if let Some(prev_kv) = prev_kv {
        put_present_bytes(out, 2, prev_kv);
    }
}

/// Appends a `DeleteRangeResponse`; `framed_prev_kvs` was filled by [`put_deleted_prev_kv`].
pub fn put_delete_range_response(
    out: &mut Vec<u8>,
    header: &ResponseHeader,
    deleted: i64,
    framed_prev_kvs: &[u8],
) {
    header.put(out);
    put_i64(out, 2, deleted);
    out.extend_from_slice(framed_prev_kvs);
}

/// Appends an encoded record as one `prev_kvs` entry. They are collected beside the reply because the number of deleted
/// keys precedes them in it.
pub fn put_deleted_prev_kv(framed_prev_kvs: &mut Vec<u8>, kv: &[u8]) {
    put_present_bytes(framed_prev_kvs, 3, kv);
}

/// Appends a `CompactionResponse`.
pub fn put_compaction_response(out: &mut Vec<u8>, header: &ResponseHeader) {
    header.put(out);
}

/// Appends the header of a `RangeResponse`; its records follow, then [`put_range_end`].
pub fn put_range_header(out: &mut Vec<u8>, header: &ResponseHeader) {
    header.put(out);
}

/// Appends an encoded record to a `RangeResponse`.
#[inline]
pub fn put_range_kv(out: &mut Vec<u8>, kv: &[u8]) {
    put_present_bytes(out, 2, kv);
}

/// Appends a record given by its parts to a `RangeResponse`: for answers from the index, and for values left out.
pub fn put_range_kv_parts(out: &mut Vec<u8>, kv: &KeyValueParts<'_>) {
    put_message_key(out, 2);
    put_varint(out, kv.encoded_len() as u64);
    kv.encode(out);
}

/// Appends what follows the records of a `RangeResponse`.
pub fn put_range_end(out: &mut Vec<u8>, more: bool, count: i64) {
    put_bool(out, 3, more);
    put_i64(out, 4, count);
}

/// Bytes a `RangeResponse` takes for one encoded record of `kv_len` bytes.
pub fn range_kv_len(kv_len: usize) -> usize {
    1 + varint_len(kv_len as u64) + kv_len
}

/// Appends a `RangeStreamResponse` around an encoded `RangeResponse`.
pub fn put_range_stream_response(out: &mut Vec<u8>, range_response: &[u8]) {
    put_present_bytes(out, 1, range_response);
}

/// Kind of a reply inside a transaction: its field number in `ResponseOp`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyKind {
    Range = 1,
    Put = 2,
    DeleteRange = 3,
    Txn = 4,
}

/// Builds a `TxnResponse` in place, nested ones included. Reusable: keeps its memory between transactions.
///
/// Lengths come before contents and are known after them. Each message leaves room for the longest length; `finish`
/// then walks the whole reply once, writes the lengths and closes the gaps. So the cost is one move of the reply's bytes,
/// however deep it nests.
#[derive(Default, Debug)]
pub struct TxnReply {
    base: usize,
    /// In order of `start`, so a message comes before those inside it.
    messages: Vec<Message>,
    /// Slots in `messages` of those begun and not ended.
    open: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    /// Where the room for the length begins.
    start: usize,
    end: usize,
    /// Bytes that `finish` takes out of the content.
    gaps: usize,
    /// Slot of the message around this one.
    parent: Option<usize>,
}

/// Room for a length: enough for 2^35 bytes.
const LENGTH_ROOM: usize = 5;

impl TxnReply {
    /// Starts the outermost reply at the end of `out`.
    pub fn begin(&mut self, out: &mut Vec<u8>, succeeded: bool) {
        self.messages.clear();
        self.open.clear();
        self.base = out.len();
        out.resize(self.base + HEADER_BYTES_MAX, 0);
        put_bool(out, 2, succeeded);
    }

    /// Starts the reply of the next operation; the caller appends its bytes and calls [`TxnReply::end_op`].
    pub fn begin_op(&mut self, out: &mut Vec<u8>, kind: ReplyKind) {
        self.begin_message(out, 3);
        self.begin_message(out, kind as u32);
    }

    /// Starts a nested transaction as the next operation; ends with [`TxnReply::end_op`] too.
    pub fn begin_nested(&mut self, out: &mut Vec<u8>, succeeded: bool) {
        self.begin_op(out, ReplyKind::Txn);
        // Only the outermost transaction gets its revision; a nested one has an empty header.
        ResponseHeader::default().put(out);
        put_bool(out, 2, succeeded);
    }

    /// Ends the operation begun last.
    pub fn end_op(&mut self, out: &[u8]) {
        self.end_message(out);
        self.end_message(out);
    }

    /// Completes the reply with its header.
    pub fn finish(&mut self, out: &mut Vec<u8>, header: &ResponseHeader) {
        assert!(
            self.open.is_empty(),
            "an operation of the reply was not ended"
        );
        // Inner messages come later, so going backwards every length is final when its parent needs it.
        for slot in (0..self.messages.len()).rev() {
            let message = self.messages[slot];
            let len = message.end - message.start - LENGTH_ROOM - message.gaps;
            if let Some(parent) = message.parent {
                self.messages[parent].gaps += message.gaps + LENGTH_ROOM - varint_len(len as u64);
            }
        }
        // The header is written behind the reply and copied into its place.
        let end = out.len();
        header.put(out);
        let header_len = out.len() - end;
        out.copy_within(end.., self.base);
        out.truncate(end);
        let mut to = self.base + header_len;
        let mut from = self.base + HEADER_BYTES_MAX;
        for message in &self.messages {
            out.copy_within(from..message.start, to);
            to += message.start - from;
            let mut len = message.end - message.start - LENGTH_ROOM - message.gaps;
            while len >= 0x80 {
                out[to] = len as u8 | 0x80;
                len >>= 7;
                to += 1;
            }
            out[to] = len as u8;
            to += 1;
            from = message.start + LENGTH_ROOM;
        }
        out.copy_within(from..end, to);
        out.truncate(to + end - from);
    }

    fn begin_message(&mut self, out: &mut Vec<u8>, field: u32) {
        put_message_key(out, field);
        let start = out.len();
        out.resize(start + LENGTH_ROOM, 0);
        let parent = self.open.last().copied();
        self.open.push(self.messages.len());
        self.messages.push(Message {
            start,
            end: start,
            gaps: 0,
            parent,
        });
    }

    fn end_message(&mut self, out: &[u8]) {
        let slot = self.open.pop().expect("ends pair with begins");
        self.messages[slot].end = out.len();
    }
}
