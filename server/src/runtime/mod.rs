//! The runtime seam: what a core needs from the world, and nothing else.
//!
//! A core is one pinned thread with one executor. On it run cooperative tasks, timers, sockets and
//! doorbells. In reading order: [`executor`] runs tasks in two classes, [`timers`] holds who sleeps,
//! [`readiness`] asks the kernel which descriptors have news, [`socket`] and [`bell`] wait for
//! them, [`signal`] wakes a task of the same core.
//!
//! Always true here: nothing runs on a blocking pool; a pending socket read is owned by the one
//! task that reads the connection and is never raced against a timer (a connection is ended by
//! shutting its socket down); a waker never leaves its core.
//!
//! Called by every stage, on its own core. Does not know what a stage does.

mod bell;
mod executor;
mod readiness;
mod signal;
mod socket;
#[cfg(test)]
mod tests;
mod timers;

pub use bell::{Bell, BellRinger};
pub use executor::{Class, run_on_core, sleep, spawn, yield_now};
pub use signal::Signal;
pub use socket::{Listener, Sender, Socket};
