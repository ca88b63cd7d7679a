//! Calls that want a whole state of the tree file: `Snapshot` streams and `Hash`.
//!
//! The apply core commits what is applied and gives the state, the backup thread reads it, and this sends it at its client's pace:
//! one piece is with the client and the next is read ahead, never more. A client that takes nothing costs two pieces of memory and
//! its state's pages, until its stream is reset as any other that stalls.
//!
//! Always true here: a call is in the table from its request until nothing of it is under way any more, also when its client has
//! gone; there are [`JOBS_MAX`] at most.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use storage::tree::{ContentHash, Snapshot};
use wire::error::EtcdError;
use wire::grpc::{Call, Code, MethodId, Responder};
use wire::messages::etcdserverpb::{HashRequest, SnapshotRequest};

use crate::backup::{BackupThread, Copying, DIGEST_BYTES, Done, JOBS_MAX, Job, Work as Task};
use crate::pipeline::Watcher;
use crate::services::methods::id;
use crate::services::status;
use crate::watch::StreamKey;

use super::books::{Ended, Work};
use super::calls::{Calls, Handled};
use super::connection::ConnectionKey;
use super::core::{NetCore, fail};

/// etcd's length of one message's part of the file.
const BLOB_BYTES: usize = 32 << 10;

/// A net core's backups and hashes.
pub struct Backups {
    to_apply: Watcher<StreamKey>,
    thread: BackupThread,
    // Clients choose stream ids, so no map whose hash they could aim at.
    calls: BTreeMap<StreamKey, BackupCall>,
}

struct BackupCall {
    method: MethodId,
    started_ns: u64,
    /// The client has gone; what is under way is the last.
    is_over: bool,
    /// Its state, read or being handed over; `None` while another stage has it.
    copying: Option<Box<Copying>>,
    /// Of the file, for every message.
    storage_version: String,
}

impl Backups {
    pub fn new(to_apply: Watcher<StreamKey>, thread: BackupThread) -> Backups {
        Backups {
            to_apply,
            thread,
            calls: BTreeMap::new(),
        }
    }

    /// Calls under way.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// The client has gone or its call was ended.
    pub(super) fn cancel(&mut self, caller: StreamKey) {
        let Some(call) = self.calls.get_mut(&caller) else {
            return;
        };
        call.is_over = true;
        if call.copying.is_some() {
            // Nothing of it is under way: with this its pages are free.
            self.calls.remove(&caller);
        }
    }
}

impl Calls<'_> {
    pub(super) fn snapshot(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        SnapshotRequest::decode(message)?;
        self.require_root(call)?;
        self.ask_state(call)
    }

    pub(super) fn hash(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        HashRequest::decode(message)?;
        self.require_root(call)?;
        self.ask_state(call)
    }

    /// Asks the apply core for a state with everything that is applied.
    fn ask_state(&mut self, call: &Call<'_>) -> Handled {
        let caller = StreamKey {
            connection: self.connection,
            stream: call.stream,
        };
        let state = &mut *self.state;
        let backups = &mut state.backups;
        if backups.calls.len() == JOBS_MAX || backups.to_apply.push(caller).is_err() {
            return Err(EtcdError::TooManyRequests.into());
        }
        backups.to_apply.flush();
        let cluster = state.shared.cluster.load();
        let call = BackupCall {
            method: call.method,
            started_ns: state.now_ns,
            is_over: false,
            copying: None,
            storage_version: cluster.storage_version.clone(),
        };
        backups.calls.insert(caller, call);
        Ok(())
    }
}

impl NetCore {
    /// The apply core gives a state, or says why not.
    pub(super) fn on_state(&self, caller: StreamKey, result: Result<Box<Snapshot>, EtcdError>) {
        let state = &mut *self.state.borrow_mut();
        let backups = &mut state.backups;
        let Some(call) = backups.calls.get(&caller) else {
            return;
        };
        let snapshot = match result {
            Ok(snapshot) if !call.is_over => *snapshot,
            Ok(_) => {
                backups.calls.remove(&caller);
                return;
            }
            Err(error) => {
                self.end_backup(state, caller);
                return self.respond(caller.connection, |out| fail(out, caller.stream, error));
            }
        };
        let work = if call.method == id::MAINTENANCE_HASH {
            Task::Hash(Box::new(ContentHash::new(snapshot, is_left_out)))
        } else {
            let copying = Box::new(Copying::new(snapshot));
            tracing::info!(
                "total-bytes" = copying.total_bytes(),
                "storage-version" = call.storage_version.as_str(),
                "sending database snapshot to client"
            );
            Task::Copy(copying)
        };
        let net = self.id;
        backups.thread.push(Job { net, caller, work });
    }

    /// The backup thread has done what it was asked.
    pub(super) fn on_backup(&self, caller: StreamKey, done: Done) {
        let state = &mut *self.state.borrow_mut();
        let backups = &mut state.backups;
        let Some(call) = backups.calls.get_mut(&caller) else {
            return;
        };
        match done {
            Done::Copied(copying) => {
                call.copying = Some(copying);
                if call.is_over {
                    return backups.cancel(caller);
                }
                self.send_piece(state, caller);
            }
            Done::Hashed { hash, took } => {
                self.end_backup(state, caller);
                state.metrics.histograms.mvcc_hash.observe(took);
                let header = status::header(&state.shared, state.reader.revision());
                self.respond(caller.connection, |out| {
                    out.unary(caller.stream, |buffer| {
                        status::put_hash(buffer, header, hash);
                    });
                });
            }
            Done::Failed(text) => {
                tracing::error!(error = text.as_str(), "a backup was given up");
                self.end_backup(state, caller);
                self.respond(caller.connection, |out| {
                    out.error(caller.stream, Code::Internal, &text);
                });
            }
        }
    }

    /// A connection's client has taken what waited for it.
    pub(super) fn on_backup_room(&self, state: &mut super::state::NetState, key: ConnectionKey) {
        let has_piece = |call: &BackupCall| call.copying.is_some();
        let calls = state.backups.calls.iter();
        let waiting: Vec<StreamKey> = calls
            .filter(|(caller, call)| caller.connection == key && has_piece(call))
            .map(|(caller, _)| *caller)
            .collect();
        for caller in waiting {
            self.send_piece(state, caller);
        }
    }

    /// Sends a piece that was read, if the client has taken the one before it, and asks for the next.
    fn send_piece(&self, state: &mut super::state::NetState, caller: StreamKey) {
        let backups = &mut state.backups;
        let connections = self.connections.borrow();
        let (Some(call), Some(connection)) = (
            backups.calls.get_mut(&caller),
            connections.get(caller.connection),
        ) else {
            return;
        };
        let mut backlog = None;
        connection.respond(|out| {
            let is_open = out.is_open(caller.stream);
            backlog = is_open.then(|| out.backlog_bytes(caller.stream));
        });
        match backlog {
            // It was ended, by a limit for example; the table is told as of any other cancelled call.
            None => return backups.cancel(caller),
            Some(0) if connection.takes_output() => {}
            Some(_) => return connection.tell_when_drained(self.drained.clone()),
        }
        let Some(copying) = call.copying.take() else {
            return;
        };
        let mut messages = 0;
        let digest = copying.digest();
        connection.respond(|out| {
            messages = put_piece(out, caller, &copying, &call.storage_version);
            if let Some(digest) = digest {
                put_blob(out, caller, &digest, 0, &call.storage_version);
                out.finish(caller.stream, Code::Ok, "");
                messages += 1;
            }
        });
        connection.book_if_grown();
        self.mark_dirty(connection);
        state
            .metrics
            .grpc
            .sent_many(id::MAINTENANCE_SNAPSHOT, messages);
        let is_done = digest.is_some();
        let total_bytes = copying.total_bytes();
        if !is_done {
            let (net, work) = (self.id, Task::Copy(copying));
            return backups.thread.push(Job { net, caller, work });
        }
        drop(copying);
        if let Some(took) = self.end_backup(state, caller) {
            state.metrics.histograms.disk_backend_snapshot.observe(took);
            tracing::info!(
                "total-bytes" = total_bytes,
                took = ?took,
                "successfully sent database snapshot to client"
            );
        }
    }

    /// Takes a call off the table and books it; how long it took.
    fn end_backup(
        &self,
        state: &mut super::state::NetState,
        caller: StreamKey,
    ) -> Option<Duration> {
        let call = state.backups.calls.remove(&caller)?;
        state.books.ended(Ended {
            connection: caller.connection,
            method: call.method,
            work: Work::Other,
            started_ns: call.started_ns,
        });
        let now_ns = self.clock.now_ns();
        Some(Duration::from_nanos(now_ns.saturating_sub(call.started_ns)))
    }
}

/// Answers with the messages of one piece; how many there were.
fn put_piece(
    out: &mut Responder<'_>,
    caller: StreamKey,
    copying: &Copying,
    storage_version: &str,
) -> u64 {
    let mut remaining = copying.remaining_before;
    let mut messages = 0;
    for blob in copying.piece.chunks(BLOB_BYTES) {
        remaining -= blob.len() as u64;
        put_blob(out, caller, blob, remaining, storage_version);
        messages += 1;
    }
    messages
}

/// One `SnapshotResponse`, written field by field: its blob is copied once.
fn put_blob(
    out: &mut Responder<'_>,
    caller: StreamKey,
    blob: &[u8],
    remaining: u64,
    storage_version: &str,
) {
    use prost::encoding::{self, WireType};
    out.message(caller.stream, |buffer| {
        if remaining > 0 {
            encoding::uint64::encode(2, &remaining, buffer);
        }
        encoding::encode_key(3, WireType::LengthDelimited, buffer);
        encoding::encode_varint(blob.len() as u64, buffer);
        buffer.extend_from_slice(blob);
        if !storage_version.is_empty() {
            encoding::encode_key(4, WireType::LengthDelimited, buffer);
            encoding::encode_varint(storage_version.len() as u64, buffer);
            buffer.extend_from_slice(storage_version.as_bytes());
        }
    });
}

const _: () = assert!(
    DIGEST_BYTES <= BLOB_BYTES,
    "the digest is a message like any other"
);

/// What etcd leaves out of `Hash`, and the name of this member's log: what differs between members that hold the same.
fn is_left_out(bucket: &[u8], key: &[u8]) -> bool {
    const LEFT_OUT: [&[u8]; 4] = [
        b"consistent_index",
        b"term",
        b"storageVersion",
        b"pilasterLog",
    ];
    bucket == b"meta" && LEFT_OUT.contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::encoding;
    use wire::messages::etcdserverpb::SnapshotResponse;

    #[test]
    fn the_fields_are_those_of_the_message() {
        let expected = SnapshotResponse {
            header: None,
            remaining_bytes: 7,
            blob: vec![1, 2, 3],
            version: "3.7.0".to_owned(),
        };
        let mut bytes = Vec::new();
        encoding::uint64::encode(2, &7, &mut bytes);
        encoding::bytes::encode(3, &expected.blob, &mut bytes);
        encoding::string::encode(4, &expected.version, &mut bytes);
        assert_eq!(bytes, expected.encode_to_vec());
    }
}
