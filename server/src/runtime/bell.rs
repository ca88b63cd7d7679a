//! Doorbell: how another thread, or the log's ring, wakes a core.
//!
//! A doorbell is a socket pair whose reading end the core's executor polls with its other sockets,
//! so a ring is an ordinary readiness event and depends on nothing but the kernel.
//!
//! Always true here: the waiter takes the `rung` flag down *before* it looks at the queue behind
//! the bell, and a ringer puts its item into the queue *before* it raises the flag. So either the
//! waiter sees the item or the ringer sees the flag down and sends a byte; no wake-up is lost:
//!
//! ```text
//! ringer: push item; if !rung.swap(true) { send byte }
//! waiter: receive bytes; rung.store(false); drain queue
//! ```
//!
//! The cost is one `send` for each time the waiter had gone to look, however many items are pushed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::driver::Wakeable;

/// The waiting end before its core has started: made anywhere, turned into a [`BellWaiter`] there.
pub struct Bell {
    reader: OwnedFd,
    shared: Arc<Shared>,
}

struct Shared {
    rung: AtomicBool,
    writer: OwnedFd,
}

/// The ringing end; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct BellRinger(Arc<Shared>);

/// The waiting end, bound to the executor of the core that waits.
pub struct BellWaiter {
    wakeable: Wakeable,
    shared: Arc<Shared>,
}

impl Bell {
    /// # Errors
    /// The process is out of file descriptors.
    pub fn new() -> io::Result<Bell> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        // SAFETY: `into_raw_fd` gives up ownership of a valid descriptor that nobody else holds.
        let (reader, writer) = unsafe {
            (
                OwnedFd::from_raw_fd(reader.into_raw_fd()),
                OwnedFd::from_raw_fd(writer.into_raw_fd()),
            )
        };
        Ok(Bell {
            reader,
            shared: Arc::new(Shared {
                rung: AtomicBool::new(false),
                writer,
            }),
        })
    }

    pub fn ringer(&self) -> BellRinger {
        BellRinger(self.shared.clone())
    }

    /// Binds the waiting end to the executor of the current core.
    pub fn listen(self) -> BellWaiter {
        BellWaiter {
            wakeable: Wakeable::new(self.reader),
            shared: self.shared,
        }
    }
}

impl BellRinger {
    /// Wakes the waiter; call after the item is in the queue.
    pub fn ring(&self) {
        if self.0.rung.swap(true, Ordering::SeqCst) {
            return;
        }
        // A full socket buffer means bytes the waiter has not taken yet: it will wake anyway.
        // SAFETY: the descriptor is open while `self` lives; one byte is read from a static.
        unsafe {
            libc::send(
                self.0.writer.as_raw_fd(),
                [1u8].as_ptr().cast(),
                1,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            );
        }
    }

    /// A descriptor to which a ring operation may send a byte to wake the waiter. The waiter cannot
    /// miss such a byte: it looks at everything it watches each time it wakes.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.0.writer.as_fd()
    }
}

impl BellWaiter {
    /// Returns when the bell was rung since the last return. Look at the queues afterwards.
    pub async fn wait(&mut self) {
        self.wakeable.drained().await;
        self.shared.rung.store(false, Ordering::SeqCst);
    }
}
