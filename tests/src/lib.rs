//! Harness for whole-program tests: starts a server, speaks to it as strangers do, kills it, starts it again.
//!
//! Read in this order: [`kind`] (which program is under test), [`server`] (one running server and its whole life),
//! [`raw`] (raw gRPC calls that show every status), [`pb`] (messages, described apart from the server's own),
//! [`auth`] (the Auth service), [`lease`] (the lease service), [`election`] (locks and elections), [`maintenance`] (snapshots, hashes, downgrades, members), [`watch`] (watch streams), [`plain`] (HTTP/1.1 and bare bytes), [`tls`] (throw-away certificates), [`tool`] (command-line peers),
//! [`content`] (all a client can see of a store), [`random`] (repeatable choices).
//!
//! Always true: every wait ends on an event or at a named bound, never on a sleep; a server ends with the guard that owns it,
//! also when the test panics or the test program is killed; a test uses only ports and folders of its own.
//! Called by the files in `tests/tests`. Knows nothing of the server's insides: it links none of its crates.

pub mod auth;
pub mod content;
pub mod election;
pub mod kind;
pub mod lease;
pub mod maintenance;
pub mod pb;
pub mod plain;
pub mod random;
pub mod raw;
pub mod server;
pub mod tls;
pub mod tool;
pub mod watch;

pub use kind::Kind;
pub use raw::{Answer, Client};
pub use server::{Options, Server};
