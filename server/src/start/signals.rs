//! SIGTERM and SIGINT: the operator asks for a stop.
//!
//! Always true here: both are blocked in every thread and taken by the main thread alone, so no code
//! of ours ever runs inside a signal handler. A second signal ends the process at once.

use std::io;

/// Blocks the signals in this thread and every thread it starts. Call first.
pub fn block() -> io::Result<()> {
    let set = stop_signals();
    // SAFETY: the set is initialised and outlives the call; the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Waits for the first of them and returns its name.
pub fn wait() -> &'static str {
    let set = stop_signals();
    let mut signal = 0;
    loop {
        // SAFETY: both pointers are to initialised locals.
        if unsafe { libc::sigwait(&set, &mut signal) } == 0 {
            return if signal == libc::SIGINT {
                "interrupt"
            } else {
                "terminated"
            };
        }
    }
}

fn stop_signals() -> libc::sigset_t {
    // SAFETY: `sigemptyset` initialises the set before it is used.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::sigaddset(&mut set, libc::SIGINT);
        set
    }
}
