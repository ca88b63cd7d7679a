//! What a server does at its limits and with wrong input: exact errors, refusals to start, and service that goes on.
//!
//! - [`quota`]: a full database refuses writes, keeps reading, and comes back by compaction, more room and disarming;
//! - [`requests`]: limits set by flags, malformed calls, and a txn on which a real etcd stops;
//! - [`connections`]: more clients than there is room for;
//! - [`http`]: the plain endpoints on the same port;
//! - [`metrics`]: the same calls count as in etcd;
//! - [`ports`]: garbage, TLS where none is spoken, none where TLS is;
//! - [`host`]: what the host allows, such as open files;
//! - [`slow_readers`]: clients that ask for much and take nothing;
//! - [`logs`]: logs that are not the member's own;
//! - [`etcd_directories`]: the data directory of an etcd, and the way out of it;
//! - [`starting`]: flags, data directories that cannot be used, the end by SIGTERM.

mod connections;
mod etcd_directories;
mod host;
mod http;
mod logs;
mod metrics;
mod ports;
mod quota;
mod requests;
mod slow_readers;
mod starting;
