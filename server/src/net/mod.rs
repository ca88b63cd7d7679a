//! Net cores: connections, calls, reads.
//!
//! One put, in this folder: [`sockets`] accepts and reads the socket, [`connection`] takes the bytes
//! through TLS and the protocol its first bytes chose ([`stack`]), [`calls`] is told of the complete message and
//! finds its method, [`writes`] checks it and proposes it; [`proposals`] remembers who waits;
//! the answer comes back through [`core`] and leaves through the connection. A linearizable read
//! waits in [`reads`] until its index is applied, is served by [`state`], and a long one goes on in
//! slices. [`watching`] serves watch streams, [`auth_calls`] the Auth service, [`backups`] copies of the tree file, [`errands`]
//! what takes several steps: [`locks`], [`elections`]. [`http_client`] answers what is not gRPC, and
//! [`gateway_calls`] makes calls of JSON. [`books`] counts; [`timers`] ends what took too long.
//!
//! Always true here: a net core shares nothing with other cores but the rings, the read view of the
//! store and the words of [`crate::pipeline::Shared`]; nothing waits inside a callback.

mod admission;
mod auth_calls;
mod backups;
mod barrier;
mod books;
mod calls;
mod cluster_calls;
mod connection;
pub mod core;
mod counts;
mod defrag_calls;
mod elections;
mod errands;
mod gateway_calls;
pub mod health;
mod health_calls;
mod held;
mod http_client;
mod lease_calls;
mod lease_streams;
mod locks;
mod long_reads;
mod maintenance_calls;
mod plain_http;
mod proposals;
mod reads;
mod rejections;
mod sockets;
mod stack;
mod state;
mod table;
mod timers;
mod watching;
mod writes;

pub use connection::ConnectionKey;
pub use http_client::{HttpSettings, Serves};
pub use lease_calls::{LEASE_ASK_BATCHES, LeaseCallSettings};
pub use state::{CallSettings, NetRings, NetState};
