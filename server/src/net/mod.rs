//! Net cores: connections, calls, reads.
//!
//! One put, in this folder: [`core`] accepts and reads the socket, [`connection`] takes the bytes
//! through TLS and the protocol its first bytes chose, [`calls`] is told of the complete message and
//! hands it to its service, which checks it and proposes it; [`proposals`] remembers who waits;
//! the answer comes back through [`core`] and leaves through the connection. A linearizable read
//! waits in [`reads`] until its index is applied, and a long one goes on in slices. [`books`] counts.
//!
//! Always true here: a net core shares nothing with other cores but the rings, the read view of the
//! store and the words of [`crate::pipeline::Shared`]; nothing waits inside a callback.

mod books;
mod calls;
mod connection;
pub mod core;
pub mod health;
mod long_reads;
mod proposals;
mod reads;
mod table;

pub use calls::{CallSettings, NetState};
