//! The `pilaster` program: a metadata store that speaks the etcd v3 API.
//!
//! In reading order: [`config`] (flags, environment, file), [`start`] (from files to running cores),
//! [`runtime`] (what a core needs from the world), [`pipeline`] (the rings between stages), [`net`],
//! [`log`], [`apply`] (the stages), [`backup`] (the thread that reads the file for clients), [`kv`], [`watch`] and [`services`] (what calls mean), [`store`] (how [`kv`]
//! reaches the MVCC store), [`auth`] (who calls, and what he may do), [`http1`] and [`gateway`] (plain HTTP and the API as JSON),
//! [`tls`], [`metrics`], [`logging`].

mod apply;
mod auth;
mod backup;
mod config;
mod fatal;
mod gateway;
mod http1;
mod identity;
mod kv;
mod log;
mod logging;
mod metrics;
mod net;
mod pipeline;
mod runtime;
mod services;
mod start;
mod store;
mod tls;
mod version;
mod watch;

use std::process::ExitCode;

fn main() -> ExitCode {
    start::run()
}
