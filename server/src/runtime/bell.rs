//! Doorbell: how another thread, or the log's ring, wakes a core.
//!
//! A doorbell is an eventfd whose edges the core's executor watches with its sockets. Nobody reads
//! it: each write is an edge of its own, and its counter has room for centuries of them.
//!
//! Always true here: the waiter takes the `rung` flag down *before* it looks at the queue behind
//! the bell, and a ringer puts its item into the queue *before* it raises the flag. So either the
//! waiter sees the item or the ringer sees the flag down and writes; no wake-up is lost:
//!
//! ```text
//! ringer: push item; if !rung.swap(true) { write }
//! waiter: woken; rung.store(false); drain queue
//! ```
//!
//! The cost is one `write` for each time the waiter had gone to look, however many items are pushed.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::executor::current;
use super::readiness::Readiness;

/// The waiting end before its core has started: made anywhere, turned into a [`BellWaiter`] there.
pub struct Bell(Arc<Shared>);

struct Shared {
    rung: AtomicBool,
    event: OwnedFd,
}

/// The ringing end; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct BellRinger(Arc<Shared>);

/// The waiting end, bound to the executor of the core that waits.
pub struct BellWaiter {
    shared: Arc<Shared>,
    readiness: Rc<Readiness>,
    key: usize,
}

impl Bell {
    /// # Errors
    /// The process is out of file descriptors.
    pub fn new() -> io::Result<Bell> {
        // SAFETY: plain system call; a non-negative result is a descriptor nobody else owns.
        let event = unsafe {
            match libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) {
                fd if 0 <= fd => OwnedFd::from_raw_fd(fd),
                _ => return Err(io::Error::last_os_error()),
            }
        };
        let rung = AtomicBool::new(false);
        Ok(Bell(Arc::new(Shared { rung, event })))
    }

    pub fn ringer(&self) -> BellRinger {
        BellRinger(self.0.clone())
    }

    /// Binds the waiting end to the executor of the current core.
    ///
    /// # Errors
    /// The kernel cannot watch one more descriptor.
    pub fn listen(self) -> io::Result<BellWaiter> {
        let (key, readiness) = current().poller.add(self.0.event.as_raw_fd())?;
        Ok(BellWaiter {
            shared: self.0,
            readiness,
            key,
        })
    }
}

#[cfg(test)]
impl Bell {
    /// As [`BellWaiter::wait`], on a thread without an executor.
    pub fn wait_blocking(&self) {
        let mut count = [0u8; 8];
        let event = self.0.event.as_raw_fd();
        let mut ready = libc::pollfd {
            fd: event,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: the descriptor is open while `self` lives; both calls write into locals of the sizes given.
        unsafe {
            libc::poll(&mut ready, 1, -1);
            libc::read(event, count.as_mut_ptr().cast(), count.len());
        }
        self.0.rung.store(false, Ordering::SeqCst);
    }
}

impl BellRinger {
    /// Wakes the waiter; call after the item is in the queue.
    pub fn ring(&self) {
        if self.0.rung.swap(true, Ordering::SeqCst) {
            return;
        }
        let one = 1u64.to_ne_bytes();
        // SAFETY: writes 8 bytes from `one` to a descriptor that is open while `self` lives. It can
        // only refuse when its counter is full, at 2^64.
        unsafe {
            libc::write(self.0.event.as_raw_fd(), one.as_ptr().cast(), one.len());
        }
    }

    /// The eventfd, for a ring that signals its completions through it. The waiter cannot miss
    /// one: it looks at everything it watches each time it wakes.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

impl BellWaiter {
    /// Returns when the bell was rung since the last return. Look at the queues afterwards.
    pub async fn wait(&mut self) {
        poll_fn(|cx| self.readiness.reading.poll(cx)).await;
        self.readiness.reading.lower();
        self.shared.rung.store(false, Ordering::SeqCst);
    }
}

impl Drop for BellWaiter {
    fn drop(&mut self) {
        current()
            .poller
            .remove(self.key, self.shared.event.as_raw_fd());
    }
}
