//! What travels: HTTP/2 and gRPC framing, the etcd v3 messages, and their error table. Bytes in, typed requests out, and
//! back.
//!
//! In reading order: [`h2`] (frames, header compression, windows), [`grpc`] (a connection and its calls), [`messages`]
//! (the API as owned types), [`kv`] (the hot path of the key-value service), [`json`] (messages as JSON), [`error`] (every
//! text and code).
//!
//! Nothing in this crate reads a clock, opens a socket or starts a thread: every part is a plain value that its owner, one
//! core, feeds. It does not know keys, pages or Raft.
#![forbid(unsafe_code)]

pub mod error;
pub mod grpc;
pub mod h2;
pub mod json;
pub mod kv;
pub mod messages;
