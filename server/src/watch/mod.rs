//! Watchers of one net core: who watches what, from which revision, and what is sent to whom.
//!
//! The store's own buffers are the log of events that all cores read (`storage::mvcc::history`), so a watcher is a place
//! in that log and nothing else. There are three kinds of places:
//!
//! - *live*: one place for all watchers that have everything. When the apply core has published revisions it rings;
//!   the new part of the log is read once, matched against all live watchers, and what matches is encoded once for each
//!   group that asks the same.
//! - *behind*: one cursor for each revision that some watchers have come to. Cursors read history in slices in the
//!   background, a slice each in turn; one that comes to where another stands joins it, and one that comes to the
//!   live place joins that, at an exact revision: there is nothing to miss and nothing to get twice.
//! - *stalled*: the client does not take what it was sent. Such a watcher is a number, its next revision. When there is
//!   room again it goes on as a cursor.
//!
//! In reading order: [`slots`], [`interval`], [`matcher`] (who watches a key), [`round`] (a part of the log and whom it
//! goes to), [`hub`] (watchers and streams, what clients ask), [`places`] (live, future, behind, stalled), [`progress`].
//!
//! Invariants
//! - A watcher gets each event that it asked for once, in the order of revisions; those of one revision in one message.
//! - What a watcher costs does not grow while it lags, whoever is slow.
//! - A progress message names no revision whose events are not all sent.
//!
//! A state machine without I/O: time, the output of streams ([`Sink`]) and the store are given to it. Runs on a net core.

mod hub;
mod interval;
mod matcher;
mod places;
mod progress;
mod round;
#[cfg(test)]
mod simulation;
mod slots;

pub use hub::{Created, Hub, HubSettings, STREAM_STOPPED};

use wire::grpc::StreamId;
use wire::kv::ResponseHeader;

use crate::net::ConnectionKey;

/// Names a watch stream: a call on one connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct StreamKey {
    pub connection: ConnectionKey,
    pub stream: StreamId,
}

/// What can be done with a stream's output now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    Ready,
    /// The client has not taken what it was sent before.
    Blocked,
    /// The stream is over.
    Gone,
}

/// The output of watch streams.
pub trait Sink {
    fn output(&mut self, stream: StreamKey) -> Output;

    /// Sends one message, made of `parts`. The stream's output was found ready, or this continues what was begun then.
    fn put(&mut self, stream: StreamKey, parts: &[&[u8]]);

    /// Asks for one call of [`Hub::on_room`] once the connection's client has taken its output.
    fn await_room(&mut self, stream: StreamKey);

    /// The header of a response at `revision`.
    fn header(&self, revision: i64) -> ResponseHeader;
}
