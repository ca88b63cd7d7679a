//! The hot path of the key-value and watch services: requests decoded by borrowing, replies encoded straight into the output buffer.
//!
//! Always true: decoding allocates nothing and copies no key or value; every decoder accepts exactly what the protobuf
//! rules accept (unknown fields skipped, last scalar wins, repeated singular messages merge); encoders write the bytes
//! another protobuf library would write for the same message, fields in number order and zero fields left out.
//! Called by the net cores (decode, frame) and the apply core (encode). Does not check what a request means.

mod decode;
mod encode;
mod field;
mod key_value;
mod lease;
mod request;
mod size;
mod txn;
mod watch;

pub use decode::DecodeError;
pub use encode::{
    ReplyKind, ResponseHeader, TxnReply, put_compaction_response, put_delete_range_response,
    put_deleted_prev_kv, put_put_response, put_range_end, put_range_header, put_range_kv,
    put_range_kv_parts, put_range_stream_response, range_kv_len,
};
pub use key_value::{KeyValueParts, KeyValueRef};
pub use lease::{
    put_lease_grant_response, put_lease_keep_alive_response, put_lease_leases_response,
    put_lease_revoke_response, put_lease_time_to_live_response,
};
pub use request::{CompactionRequestRef, DeleteRangeRequestRef, PutRequestRef, RangeRequestRef};
pub use size::{RequestEnvelope, etcd_request_bytes};
pub use txn::{CompareRef, CompareUnion, OpRef, TXN_DEPTH_MAX, TxnLens, TxnRequestRef};
pub use watch::{
    WatchControl, WatchCreateRef, WatchEvent, WatchRequestRef, put_watch_control, put_watch_event,
    put_watch_fragment, put_watch_id, put_watch_verdict, record_key,
};
