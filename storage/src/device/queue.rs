//! Asynchronous durable writes: the only part of the device a serving core touches.
//!
//! What is always true here
//! - A [`WriteOp`] owns its buffer; the buffer comes back in the [`Completion`] or, if the
//!   operation could not be started, in the error. Dropping the queue waits for what is in flight.
//! - A completion with `Ok(bytes)` means those bytes are durable, not merely written.
//! - Completions carry the operation's token; their order is not promised beyond depth 1.
//!
//! Called by the log driver on the log core. Does not decide what to write or when to stop.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use super::buffer::AlignedBuffer;
use super::directory::DirectoryLock;

/// Position in the queue's table of attached files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSlot(pub u16);

/// A file opened for group writes.
#[derive(Debug)]
pub struct GroupFile {
    /// Its name in the folder.
    pub name: String,
    /// Whether writes to it bypass the page cache.
    pub is_direct: bool,
    /// The descriptor; `None` on simulated disks.
    pub(super) fd: Option<OwnedFd>,
}

/// One durable write.
#[derive(Debug)]
pub struct WriteOp {
    /// Chosen by the caller, returned with the completion.
    pub token: u64,
    /// Which attached file.
    pub slot: FileSlot,
    /// Block-aligned position in the file.
    pub offset: u64,
    /// How much of the buffer to write, a block multiple.
    pub bytes: usize,
    /// Owned by the operation until it completes.
    pub buffer: AlignedBuffer,
}

/// The end of one [`WriteOp`].
#[derive(Debug)]
pub struct Completion {
    /// The operation as it was submitted, with its buffer.
    pub op: WriteOp,
    /// Durable bytes; fewer than `op.bytes` is a failed write.
    pub result: io::Result<usize>,
}

/// How to build a queue.
#[derive(Clone, Debug)]
pub struct QueueOptions {
    /// Operations in flight at once, at most. The log uses 1.
    pub depth_max: u16,
    /// Files attached at once, at most.
    pub files_max: u16,
    /// Buffers to allocate and register; they count against the locked-memory limit.
    pub buffers: u16,
    /// Size of each, rounded up to whole blocks.
    pub buffer_bytes: usize,
}

/// What a queue turned out to be, for the start-up report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueReport {
    /// Which driver.
    pub driver: &'static str,
    /// Whether files are registered with the kernel.
    pub has_registered_files: bool,
    /// Whether buffers are registered with the kernel.
    pub has_registered_buffers: bool,
    /// Why something fell back, with the remedy, one sentence each.
    pub notes: Vec<String>,
}

/// Submits durable writes and reports their ends.
///
/// `poll_completions` can change its answer only after a `submit_write`, or once the descriptor of
/// `event_fd` has become readable.
pub trait WriteQueue: Send {
    /// Puts a file into the table, replacing what the slot held. No write may be in flight there.
    fn attach(&mut self, slot: FileSlot, file: GroupFile) -> io::Result<()>;

    /// Hands out the registered buffers; the second call returns none.
    fn take_buffers(&mut self) -> Vec<AlignedBuffer>;

    /// Keeps `lock` until every operation in flight has ended, also if the process dies.
    fn guard(&mut self, lock: DirectoryLock) -> io::Result<()>;

    /// Starts a write. On error nothing was started and the operation comes back.
    fn submit_write(&mut self, op: WriteOp) -> Result<(), (io::Error, WriteOp)>;

    /// Moves ended operations to `out`, without waiting; returns how many.
    fn poll_completions(&mut self, out: &mut Vec<Completion>) -> usize;

    /// Waits until at least one operation has ended, if any is in flight. For startup, shutdown
    /// and measurements; a serving core waits on `event_fd` instead.
    fn wait(&mut self) -> io::Result<()>;

    /// Becomes readable when an operation ends or a [`Waker`] is rung. `None` on simulated disks.
    fn event_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Clears the readable state of `event_fd`.
    fn clear_event(&mut self);

    /// Makes `event_fd` readable from another thread.
    fn waker(&self) -> Waker;

    /// From now on ends of operations and rings of a [`Waker`] are edges of `event`, an eventfd
    /// that a core watches for changes and nobody reads, in place of `event_fd`. Call once.
    /// Simulated disks ignore it.
    fn wake_through(&mut self, event: BorrowedFd<'_>) -> io::Result<()>;

    /// What this queue turned out to be.
    fn report(&self) -> QueueReport;
}

/// Rings a queue's event descriptor from another thread. The default has none, for simulated disks.
#[derive(Clone, Default)]
pub struct Waker {
    event: Option<Arc<OwnedFd>>,
    /// Set by [`WriteQueue::wake_through`].
    through: Arc<OnceLock<OwnedFd>>,
}

impl Waker {
    /// # Errors
    /// The process is out of descriptors.
    pub(super) fn new() -> io::Result<Waker> {
        // SAFETY: plain system call; a non-negative result is a descriptor nobody else owns.
        let event = unsafe {
            match libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) {
                fd if 0 <= fd => OwnedFd::from_raw_fd(fd),
                _ => return Err(io::Error::last_os_error()),
            }
        };
        Ok(Waker {
            event: Some(Arc::new(event)),
            through: Arc::default(),
        })
    }

    pub(super) fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.event.as_ref().map(|event| event.as_fd())
    }

    /// Makes the event descriptor readable. Safe to call any number of times.
    pub fn wake(&self) {
        let Some(own) = &self.event else { return };
        let event = self.through.get().unwrap_or(own);
        let one = 1u64.to_ne_bytes();
        // SAFETY: writes 8 bytes from `one` to an open descriptor. A full counter refuses, and is
        // readable already.
        let _refused = unsafe { libc::write(event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Clears the readable state, unless another descriptor is watched for edges instead.
    pub(super) fn clear(&self) {
        let Some(own) = &self.event else { return };
        if self.through.get().is_some() {
            return;
        }
        let mut count = [0u8; 8];
        // SAFETY: reads at most 8 bytes into `count` from an open, non-blocking descriptor.
        let _nothing_to_clear =
            unsafe { libc::read(own.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    /// From now on `event` is rung instead. Once.
    pub(super) fn replace(&self, event: OwnedFd) {
        assert!(
            self.through.set(event).is_ok(),
            "the event descriptor is replaced once"
        );
    }
}
