//! Durable writes on an io_uring ring of our own.
//!
//! What is always true here
//! - One write is one submission: `RWF_DSYNC` makes its completion mean "durable". With direct I/O
//!   the kernel turns that into a forced-unit-access write or one flush.
//! - Files sit in the ring's fixed table and the log's buffers are registered, so a submission
//!   takes no file reference and pins no page. Where registration is refused the ring works without
//!   and [`QueueReport::notes`] says why and what to do.
//! - Buffers in flight live in `in_flight`. They leave it only with their completion; dropping the
//!   ring first waits for them, and leaks them if even that fails.
//! - Once the kernel refuses a submission the ring is broken and never entered again, because an
//!   entry left behind in the queue would be submitted by the next call.
//!
//! Owned by the log core. Never retries a write.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::{IoUring, opcode, types};

use super::buffer::AlignedBuffer;
use super::directory::{DirectoryLock, LockHeld};
use super::queue::{
    Completion, FileSlot, GroupFile, QueueOptions, QueueReport, Waker, WriteOp, WriteQueue,
};

/// The real [`WriteQueue`].
pub struct UringQueue {
    ring: IoUring,
    waker: Waker,
    files: Vec<Option<GroupFile>>,
    buffers: Vec<AlignedBuffer>,
    in_flight: Vec<WriteOp>,
    depth_max: usize,
    is_broken: bool,
    report: QueueReport,
    // Declared after the ring: fields drop in this order, so the lock outlives the ring here, and
    // the ring's own table keeps it when the process dies with a write in flight.
    _lock: Option<DirectoryLock>,
}

impl UringQueue {
    /// Sets a ring up, registers its event descriptor, file table and buffers.
    pub fn new(options: &QueueOptions) -> io::Result<UringQueue> {
        let depth_max = options.depth_max.max(1);
        let ring = IoUring::builder()
            .dontfork()
            .build(u32::from(depth_max).next_power_of_two())
            .map_err(explain_setup)?;
        let waker = Waker::new()?;
        if let Some(event) = waker.event_fd() {
            ring.submitter().register_eventfd(event.as_raw_fd())?;
        }

        let mut report = QueueReport {
            driver: "io_uring",
            ..QueueReport::default()
        };
        // One slot more than the caller asked for: the folder's lock.
        match ring
            .submitter()
            .register_files_sparse(u32::from(options.files_max) + 1)
        {
            Ok(()) => report.has_registered_files = true,
            Err(error) => report.notes.push(format!(
                "the kernel refused a fixed file table ({error}); each write takes a file \
                 reference instead, which costs a little and is safe; kernel 5.19 or later has it"
            )),
        }
        let mut buffers: Vec<AlignedBuffer> = (0..options.buffers)
            .map(|_| AlignedBuffer::new(options.buffer_bytes))
            .collect();
        match register_buffers(&ring, &mut buffers) {
            Ok(()) => report.has_registered_buffers = true,
            Err(error) => report.notes.push(explain_buffers(&error, &buffers)),
        }
        Ok(UringQueue {
            ring,
            waker,
            files: (0..options.files_max).map(|_| None).collect(),
            buffers,
            in_flight: Vec::with_capacity(usize::from(depth_max)),
            depth_max: usize::from(depth_max),
            is_broken: false,
            report,
            _lock: None,
        })
    }

    fn entry(&self, op: &WriteOp) -> Option<io_uring::squeue::Entry> {
        let file = self.files.get(usize::from(op.slot.0))?.as_ref()?;
        let fd = file.fd.as_ref()?.as_raw_fd();
        let bytes = u32::try_from(op.bytes).ok()?;
        let start = op.buffer.as_ptr();
        // The four forms differ only in how the kernel finds file and memory.
        macro_rules! build {
            ($opcode:expr) => {
                $opcode
                    .offset(op.offset)
                    .rw_flags(libc::RWF_DSYNC)
                    .build()
                    .user_data(op.token)
            };
        }
        let fixed = types::Fixed(u32::from(op.slot.0));
        Some(match (self.report.has_registered_files, op.buffer.slot()) {
            (true, Some(slot)) => build!(opcode::WriteFixed::new(fixed, start, bytes, slot)),
            (true, None) => build!(opcode::Write::new(fixed, start, bytes)),
            (false, Some(slot)) => {
                build!(opcode::WriteFixed::new(types::Fd(fd), start, bytes, slot))
            }
            (false, None) => build!(opcode::Write::new(types::Fd(fd), start, bytes)),
        })
    }

    fn start(&mut self, op: &WriteOp) -> io::Result<()> {
        if self.is_broken {
            return Err(io::Error::other("the ring refused an earlier submission"));
        }
        assert!(
            op.bytes <= op.buffer.len(),
            "write of {} bytes from {:?}",
            op.bytes,
            op.buffer
        );
        assert!(
            self.in_flight.len() < self.depth_max,
            "more writes in flight than the ring holds"
        );
        let entry = self
            .entry(op)
            .ok_or_else(|| io::Error::other(format!("nothing is attached as {:?}", op.slot)))?;
        // SAFETY: the memory the entry points to belongs to `op.buffer`, which the caller moves into
        // `in_flight` once we return `Ok` and which stays there until the completion (moving the
        // owner does not move the heap memory). The file stays open in `files` or the table.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            return Err(io::Error::other("the submission queue is full"));
        }
        loop {
            match self.ring.submit() {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.is_broken = true;
                    return Err(error);
                }
            }
        }
        if self.ring.submission().is_empty() {
            return Ok(());
        }
        self.is_broken = true;
        Err(io::Error::other(
            "the kernel left the write in the submission queue",
        ))
    }
}

impl WriteQueue for UringQueue {
    fn attach(&mut self, slot: FileSlot, file: GroupFile) -> io::Result<()> {
        let place = usize::from(slot.0);
        assert!(
            place < self.files.len(),
            "{slot:?} is beyond a table of {}",
            self.files.len()
        );
        assert!(
            self.in_flight.iter().all(|op| op.slot != slot),
            "{slot:?} is replaced while a write to it is in flight"
        );
        let fd = file
            .fd
            .as_ref()
            .ok_or_else(|| io::Error::other("not a file of a real disk"))?;
        if self.report.has_registered_files {
            self.ring
                .submitter()
                .register_files_update(u32::from(slot.0), &[fd.as_raw_fd()])?;
        }
        self.files[place] = Some(file);
        Ok(())
    }

    fn take_buffers(&mut self) -> Vec<AlignedBuffer> {
        std::mem::take(&mut self.buffers)
    }

    fn guard(&mut self, lock: DirectoryLock) -> io::Result<()> {
        if let LockHeld::Descriptor(fd) = &lock.held
            && self.report.has_registered_files
        {
            let last = self.files.len() as u32;
            self.ring
                .submitter()
                .register_files_update(last, &[fd.as_raw_fd()])?;
        }
        self._lock = Some(lock);
        Ok(())
    }

    fn submit_write(&mut self, op: WriteOp) -> Result<(), (io::Error, WriteOp)> {
        match self.start(&op) {
            Ok(()) => {
                self.in_flight.push(op);
                Ok(())
            }
            // Nothing of it reached the kernel: the entry is unsent and the ring is never entered
            // again, so the buffer may go back to its owner.
            Err(error) => Err((error, op)),
        }
    }

    fn poll_completions(&mut self, out: &mut Vec<Completion>) -> usize {
        let before = out.len();
        for ended in self.ring.completion() {
            let place = self
                .in_flight
                .iter()
                .position(|op| op.token == ended.user_data());
            let place = place.expect("every completion belongs to an operation in flight");
            let op = self.in_flight.swap_remove(place);
            let result = match ended.result() {
                bytes if 0 <= bytes => Ok(bytes as usize),
                errno => Err(io::Error::from_raw_os_error(-errno)),
            };
            out.push(Completion { op, result });
        }
        out.len() - before
    }

    fn wait(&mut self) -> io::Result<()> {
        if self.in_flight.is_empty() || self.is_broken {
            return Ok(());
        }
        loop {
            if !self.ring.completion().is_empty() {
                return Ok(());
            }
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.waker.event_fd()
    }

    fn clear_event(&mut self) {
        self.waker.clear();
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn wake_through(&mut self, event: BorrowedFd<'_>) -> io::Result<()> {
        let event = event.try_clone_to_owned()?;
        self.ring.submitter().unregister_eventfd()?;
        self.ring.submitter().register_eventfd(event.as_raw_fd())?;
        self.waker.replace(event);
        Ok(())
    }

    fn report(&self) -> QueueReport {
        self.report.clone()
    }
}

impl Drop for UringQueue {
    fn drop(&mut self) {
        let mut ended = Vec::new();
        while !self.in_flight.is_empty() {
            if self.is_broken || self.wait().is_err() {
                // The kernel may still read these buffers. Memory that stays is the lesser evil.
                self.in_flight.drain(..).for_each(std::mem::forget);
                return;
            }
            self.poll_completions(&mut ended);
        }
        if self.report.has_registered_files {
            // The kernel takes a ring apart some time after it was closed. Nothing is in flight, so
            // the lock need not wait for that; if this fails it is merely released later.
            let last = self.files.len() as u32;
            let _released_later = self.ring.submitter().register_files_update(last, &[-1]);
        }
    }
}

fn register_buffers(ring: &IoUring, buffers: &mut [AlignedBuffer]) -> io::Result<()> {
    if buffers.is_empty() {
        return Ok(());
    }
    let pieces: Vec<libc::iovec> = buffers
        .iter_mut()
        .map(|buffer| libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        })
        .collect();
    // SAFETY: the pages stay pinned by the ring until it is dropped. A buffer freed before that
    // leaves its pages to the kernel; nothing writes through a slot whose owner is gone, because a
    // slot number can only be read from the live buffer that carries it.
    unsafe { ring.submitter().register_buffers(&pieces)? };
    for (slot, buffer) in buffers.iter_mut().enumerate() {
        buffer.set_slot(slot as u16);
    }
    Ok(())
}

fn explain_setup(error: io::Error) -> io::Error {
    let remedy = match error.raw_os_error() {
        Some(libc::ENOSYS) => "the kernel has no io_uring; Linux 5.15 or later is needed",
        Some(libc::EPERM) => {
            "io_uring is forbidden here; set kernel.io_uring_disabled=0 and use a container \
             profile that allows io_uring_setup, io_uring_enter and io_uring_register"
        }
        Some(libc::ENOMEM) => "locked memory is used up; raise LimitMEMLOCK (ulimit -l)",
        Some(libc::EMFILE | libc::ENFILE) => "no descriptor is left; raise LimitNOFILE (ulimit -n)",
        _ => "see the kernel log",
    };
    io::Error::new(
        error.kind(),
        format!("io_uring could not be set up: {error}; {remedy}"),
    )
}

/// Whether the host forbids io_uring or does not have it, so that another way must do.
pub(super) fn is_ring_refused(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported
    )
}

/// The start-up note for buffers that could not be registered.
fn explain_buffers(error: &io::Error, buffers: &[AlignedBuffer]) -> String {
    let wanted: usize = buffers.iter().map(|buffer| buffer.len()).sum();
    let remedy = match error.raw_os_error() {
        Some(libc::ENOMEM) => format!(
            "they count against the locked-memory limit, now {}; raise LimitMEMLOCK (ulimit -l) \
             by {} KiB",
            memlock_limit().map_or("unknown".to_owned(), |bytes| format!(
                "{} KiB",
                bytes / 1024
            )),
            wanted / 1024
        ),
        _ => "writes use them unregistered".to_owned(),
    };
    format!(
        "log buffers of {} KiB could not be registered ({error}): {remedy}",
        wanted / 1024
    )
}

/// The soft limit on locked memory in bytes; `None` where unlimited or unknown.
pub fn memlock_limit() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is writable memory of the right type for the length of the call.
    let refused = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    (refused == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_remedy() {
        let cases = [
            (libc::EPERM, "kernel.io_uring_disabled"),
            (libc::ENOMEM, "LimitMEMLOCK"),
            (libc::ENOSYS, "5.15"),
        ];
        for (errno, remedy) in cases {
            let text = explain_setup(io::Error::from_raw_os_error(errno)).to_string();
            assert!(text.contains(remedy), "{text}");
        }
        for (errno, is_refused) in [
            (libc::EPERM, true),
            (libc::ENOSYS, true),
            (libc::ENOMEM, false),
        ] {
            let error = explain_setup(io::Error::from_raw_os_error(errno));
            assert_eq!(is_ring_refused(&error), is_refused, "{error}");
        }
        let buffers = [AlignedBuffer::new(1 << 20)];
        let note = explain_buffers(&io::Error::from_raw_os_error(libc::ENOMEM), &buffers);
        assert!(
            note.contains("LimitMEMLOCK") && note.contains("1024 KiB"),
            "{note}"
        );
    }
}
