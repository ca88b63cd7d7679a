//! The runtime seam: what a core needs from the world, and nothing else.
//!
//! A core is one pinned thread with one executor. On it run cooperative tasks, timers, sockets and
//! doorbells. Always true here: only [`driver`] names the executor library; nothing runs on a
//! blocking pool; a pending socket read is owned by the one task that reads the connection and is
//! never raced against a timer (a connection is ended by shutting its socket down).
//!
//! Called by every stage, on its own core. Does not know what a stage does.

mod bell;
mod driver;
mod signal;

pub use bell::{Bell, BellRinger};
pub use driver::{Class, Listener, Sender, Socket, run_on_core, sleep, spawn, yield_now};
pub use signal::Signal;
