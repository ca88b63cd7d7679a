//! The end of a member that must not go on.
//!
//! A half-alive member is worse than a dead one: after a failed write nothing may be acknowledged,
//! and after a broken invariant nothing may be believed. The reason is logged with what to do, the
//! log line is given time to leave, and the process exits with [`EXIT_CODE`].

use std::fmt::Display;

/// Exit status of a member that stopped itself.
pub const EXIT_CODE: i32 = 1;

const REMEDY: &str = "this member stops so that nothing is acknowledged that is not durable; mend the cause, then start it again";

/// Logs and ends the process.
pub fn fatal(what: &str, error: &dyn Display) -> ! {
    crate::logging::fatal(what, &[("error", &error.to_string()), ("remedy", REMEDY)]);
    std::process::exit(EXIT_CODE)
}
