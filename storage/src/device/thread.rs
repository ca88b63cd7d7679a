//! Durable writes by a thread of our own, one blocking `pwritev2(RWF_DSYNC)` after the other.
//!
//! For hosts that forbid io_uring, and for disks with a volatile cache and no forced unit access:
//! there the kernel ends a ring's durable write with a flush from a worker thread of its own, which
//! costs more than a thread that waits (`docs/decisions`).
//!
//! What is always true here
//! - The thread owns a write from the channel until its completion is in the list; the log core
//!   never blocks on either.
//! - The thread ends with the queue, after the write it is in. A process that is killed keeps its
//!   files, and so the folder's lock, until the kernel has ended that write.
//!
//! Never retries a write.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::buffer::AlignedBuffer;
use super::directory::DirectoryLock;
use super::queue::{
    Completion, FileSlot, GroupFile, QueueOptions, QueueReport, Waker, WriteOp, WriteQueue,
};

/// A [`WriteQueue`] without a ring.
pub struct ThreadQueue {
    jobs: Option<SyncSender<Job>>,
    ended: Arc<Ended>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
    files: Vec<Option<Arc<GroupFile>>>,
    buffers: Vec<AlignedBuffer>,
    in_flight: usize,
    depth_max: usize,
    notes: Vec<String>,
    _lock: Option<DirectoryLock>,
}

/// A write on its way to the thread.
struct Job {
    op: WriteOp,
    file: Arc<GroupFile>,
}

/// Writes on their way back.
#[derive(Default)]
struct Ended {
    list: Mutex<Vec<Completion>>,
    arrived: Condvar,
}

impl Ended {
    /// The list is whole whatever a thread did while it held it: it only pushes.
    fn list(&self) -> MutexGuard<'_, Vec<Completion>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ThreadQueue {
    /// Starts the thread. `notes` say why there is no ring.
    ///
    /// # Errors
    /// No thread or no descriptor is left.
    pub fn new(options: &QueueOptions, notes: Vec<String>) -> io::Result<ThreadQueue> {
        let depth_max = usize::from(options.depth_max.max(1));
        let waker = Waker::new()?;
        let ended = Arc::<Ended>::default();
        let (jobs, jobs_in) = mpsc::sync_channel(depth_max);
        let (list, bell) = (ended.clone(), waker.clone());
        let thread = std::thread::Builder::new()
            .name("wal-writer".to_owned())
            .spawn(move || write_all(&jobs_in, &list, &bell))?;
        Ok(ThreadQueue {
            jobs: Some(jobs),
            ended,
            waker,
            thread: Some(thread),
            files: (0..options.files_max).map(|_| None).collect(),
            buffers: (0..options.buffers)
                .map(|_| AlignedBuffer::new(options.buffer_bytes))
                .collect(),
            in_flight: 0,
            depth_max,
            notes,
            _lock: None,
        })
    }
}

/// The thread.
fn write_all(jobs: &Receiver<Job>, ended: &Ended, bell: &Waker) {
    while let Ok(Job { op, file }) = jobs.recv() {
        let result = write(&file, &op);
        drop(file);
        ended.list().push(Completion { op, result });
        ended.arrived.notify_one();
        bell.wake();
    }
}

fn write(file: &GroupFile, op: &WriteOp) -> io::Result<usize> {
    let Some(fd) = &file.fd else {
        return Err(io::Error::other("not a file of a real disk"));
    };
    let bytes = &op.buffer[..op.bytes];
    let piece = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let offset = libc::off64_t::try_from(op.offset).map_err(io::Error::other)?;
    // SAFETY: `piece` names memory of `op.buffer`, which is borrowed for the call and only read.
    let wrote = unsafe { libc::pwritev2(fd.as_raw_fd(), &piece, 1, offset, libc::RWF_DSYNC) };
    usize::try_from(wrote).map_err(|_| io::Error::last_os_error())
}

impl WriteQueue for ThreadQueue {
    fn attach(&mut self, slot: FileSlot, file: GroupFile) -> io::Result<()> {
        let place = usize::from(slot.0);
        assert!(
            place < self.files.len(),
            "{slot:?} is beyond a table of {}",
            self.files.len()
        );
        if file.fd.is_none() {
            return Err(io::Error::other("not a file of a real disk"));
        }
        self.files[place] = Some(Arc::new(file));
        Ok(())
    }

    fn take_buffers(&mut self) -> Vec<AlignedBuffer> {
        std::mem::take(&mut self.buffers)
    }

    fn guard(&mut self, lock: DirectoryLock) -> io::Result<()> {
        self._lock = Some(lock);
        Ok(())
    }

    fn submit_write(&mut self, op: WriteOp) -> Result<(), (io::Error, WriteOp)> {
        assert!(
            op.bytes <= op.buffer.len(),
            "write of {} bytes from {:?}",
            op.bytes,
            op.buffer
        );
        assert!(
            self.in_flight < self.depth_max,
            "more writes in flight than the queue holds"
        );
        let file = self.files.get(usize::from(op.slot.0)).cloned().flatten();
        let Some(file) = file else {
            let error = io::Error::other(format!("nothing is attached as {:?}", op.slot));
            return Err((error, op));
        };
        let jobs = self.jobs.as_ref().expect("taken only by drop");
        match jobs.try_send(Job { op, file }) {
            Ok(()) => {
                self.in_flight += 1;
                Ok(())
            }
            Err(mpsc::TrySendError::Full(job) | mpsc::TrySendError::Disconnected(job)) => Err((
                io::Error::other("the log's writing thread has ended"),
                job.op,
            )),
        }
    }

    fn poll_completions(&mut self, out: &mut Vec<Completion>) -> usize {
        let before = out.len();
        out.append(&mut self.ended.list());
        let ended = out.len() - before;
        self.in_flight -= ended;
        ended
    }

    fn wait(&mut self) -> io::Result<()> {
        if self.in_flight == 0 {
            return Ok(());
        }
        let mut list = self.ended.list();
        while list.is_empty() {
            list = self
                .ended
                .arrived
                .wait(list)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
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
        self.waker.replace(event);
        Ok(())
    }

    fn report(&self) -> QueueReport {
        QueueReport {
            driver: "thread",
            notes: self.notes.clone(),
            ..QueueReport::default()
        }
    }
}

impl Drop for ThreadQueue {
    fn drop(&mut self) {
        // The channel's end is the thread's; it finishes the write it is in, with its buffer.
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            // It panicked, and said so; nothing of it runs any more.
        }
    }
}
