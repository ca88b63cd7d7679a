//! The log as the log core uses it: the writer, the ring and the segment helper put together.
//!
//! What is always true here
//! - A [`Synced`] is returned only after the disk has said that its bytes are durable.
//! - The first failure is latched and returned by every later call; nothing is written after it.
//! - No call waits for a disk, except [`Log::close`].
//! - A full disk is not a failure: no acknowledged byte is involved. What needs the next segment
//!   waits, and its preparation is tried again until there is space; see [`Log::lacks_room`].
//!
//! Owned by the log core; one loop: append, `submit`, wait for `event_fd`, `poll`. Time is passed
//! in by the caller. Does not know what an entry means or who waits for it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::{AppendError, LogError, remedy_for};
use super::group::State;
use super::segments::{Chore, Done, Helpers, Plan};
use super::types::{
    Entry, HardState, Helper, LogIndex, Options, Position, SegmentSequence, SnapshotMark, Synced,
    Term,
};
use super::writer::{Resume, Write, Writer, WriterStats};
use crate::device::{
    Completion, Directory, DirectoryLock, FileSlot, GroupFile, QueueOptions, QueueReport, WriteOp,
    WriteQueue,
};

/// Files attached at once: the segment being written, and the one after it while both are known.
const FILES_MAX: u16 = 2;

/// Pause between two tries to prepare a segment on a full disk.
const NO_SPACE_PAUSE_NS: u64 = 1_000_000_000;

/// Counts for the metrics page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// What the writer counted.
    pub writer: WriterStats,
    /// Longest write so far.
    pub latency_ns_max: u64,
    /// Sum over all writes; with the count it gives the mean. Histograms belong to the caller, who
    /// gets each latency with its [`Synced`].
    pub latency_ns_sum: u64,
    /// Preparations of a segment that failed and will be tried again.
    pub prepare_failures: u64,
}

/// An open write-ahead log.
pub struct Log {
    path: PathBuf,
    writer: Writer,
    queue: Box<dyn WriteQueue>,
    helpers: Helpers,
    attached: SegmentSequence,
    /// Opened and not attached yet, in order.
    ready: VecDeque<(SegmentSequence, GroupFile)>,
    /// Released by the writer, not yet taken by the helper.
    to_release: VecDeque<SegmentSequence>,
    prepare_error: Option<(SegmentSequence, io::Error)>,
    /// On a full disk: not before then.
    prepare_again_ns: u64,
    /// As the caller said last.
    now_ns: u64,
    submitted_ns: u64,
    completions: Vec<Completion>,
    failure: Option<LogError>,
    stats: LogStats,
}

impl Log {
    pub(super) fn start(
        directory: Arc<dyn Directory>,
        options: &Options,
        resume: Resume,
        lock: DirectoryLock,
        mut files: VecDeque<(SegmentSequence, GroupFile)>,
    ) -> io::Result<Log> {
        let mut queue = directory.write_queue(&QueueOptions {
            depth_max: 1,
            files_max: FILES_MAX,
            buffers: options.buffers,
            buffer_bytes: options.group_bytes,
        })?;
        queue.guard(lock)?;
        let (active, file) = files.pop_front().expect("a log has a segment");
        queue.attach(slot(active), file)?;
        let plan = Plan {
            log_id: resume.log_id,
            segment_bytes: options.segment_bytes,
            spares_max: options.spares_max,
        };
        let helpers = match options.helper {
            Helper::Thread => Helpers::thread(directory.clone(), plan, queue.waker())?,
            Helper::Caller => Helpers::caller(directory.clone(), plan),
        };
        let path = directory.path().to_owned();
        let writer = Writer::new(options.clone(), resume, queue.take_buffers());
        let mut log = Log {
            path,
            writer,
            queue,
            helpers,
            attached: active,
            ready: files,
            to_release: VecDeque::new(),
            prepare_error: None,
            prepare_again_ns: 0,
            now_ns: 0,
            submitted_ns: 0,
            completions: Vec::with_capacity(2),
            failure: None,
            stats: LogStats::default(),
        };
        log.give_chores();
        Ok(log)
    }

    /// Adds an entry; see [`Writer::append_entry`]. Nothing is written before [`Log::submit`].
    pub fn append_entry(
        &mut self,
        term: Term,
        index: LogIndex,
        kind: u8,
        payload: &[u8],
    ) -> Result<Position, AppendError> {
        self.writer.append_entry(term, index, kind, payload)
    }

    /// Adds an entry.
    pub fn append(&mut self, entry: &Entry) -> Result<Position, AppendError> {
        self.writer.append(entry)
    }

    /// Adds a hard state; see [`Writer::append_hard_state`].
    pub fn append_hard_state(&mut self, hard_state: HardState) -> Result<Position, AppendError> {
        self.writer.append_hard_state(hard_state)
    }

    /// Adds a snapshot mark; see [`Writer::append_snapshot_mark`].
    pub fn append_snapshot_mark(&mut self, mark: SnapshotMark) -> Result<Position, AppendError> {
        self.writer.append_snapshot_mark(mark)
    }

    /// Starts a write of all that waits, if none is in flight. Says whether one was started.
    pub fn submit(&mut self, now_ns: u64) -> Result<bool, LogError> {
        self.check()?;
        self.now_ns = now_ns;
        let write = self.writer.next_write();
        self.give_chores();
        let Some(write) = write else { return Ok(false) };
        self.attach(write.segment)?;
        self.submitted_ns = now_ns;
        let Write {
            segment,
            offset,
            bytes,
            number,
            buffer,
        } = write;
        let op = WriteOp {
            token: number,
            slot: slot(segment),
            offset,
            bytes,
            buffer,
        };
        match self.queue.submit_write(op) {
            Ok(()) => Ok(true),
            Err((error, op)) => Err(self.write_failed(op, &error.to_string())),
        }
    }

    /// Takes what has ended. Call when `event_fd` is readable, then `submit` again.
    pub fn poll(&mut self, now_ns: u64) -> Result<Option<Synced>, LogError> {
        self.check()?;
        self.now_ns = now_ns;
        self.queue.clear_event();
        self.take_chores()?;
        self.queue.poll_completions(&mut self.completions);
        let Some(Completion { op, result }) = self.completions.pop() else {
            return Ok(None);
        };
        assert!(
            self.completions.is_empty(),
            "one write is in flight at a time"
        );
        match result {
            Ok(bytes) if bytes == op.bytes => {}
            Ok(bytes) => {
                let cause = format!("the disk took only {bytes} bytes");
                return Err(self.write_failed(op, &cause));
            }
            Err(error) => return Err(self.write_failed(op, &error.to_string())),
        }
        let latency_ns = now_ns.saturating_sub(self.submitted_ns);
        self.stats.latency_ns_max = self.stats.latency_ns_max.max(latency_ns);
        self.stats.latency_ns_sum += latency_ns;
        let bytes = op.bytes as u64;
        let Some(state) = self.writer.on_written(op.buffer, true) else {
            return Ok(None);
        };
        let State {
            position,
            last_index,
            last_term,
            hard_state,
            ..
        } = state;
        Ok(Some(Synced {
            position,
            through_index: last_index,
            through_term: last_term,
            hard_state,
            bytes,
            latency_ns,
        }))
    }

    /// Becomes readable when `poll` may have something new. `None` on simulated disks.
    pub fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.queue.event_fd()
    }

    /// From now on `event`, an eventfd watched for edges, tells when `poll` may have something new.
    /// Call once.
    pub fn wake_through(&mut self, event: BorrowedFd<'_>) -> io::Result<()> {
        self.queue.wake_through(event)
    }

    /// Waits for the write in flight, if any. For shutdown and measurements, not for a core that
    /// serves.
    pub fn wait(&mut self) -> Result<(), LogError> {
        self.check()?;
        match self.queue.wait() {
            Ok(()) => Ok(()),
            Err(error) => Err(self.latch(LogError::Queue {
                path: self.path.clone(),
                cause: error.to_string(),
            })),
        }
    }

    /// Entries below `first_kept` are no longer needed; whole segments of them are given back.
    /// Only what a durable snapshot mark covers is given up, whatever `first_kept` says.
    pub fn trim(&mut self, first_kept: LogIndex) {
        self.to_release.extend(self.writer.trim(first_kept));
        self.give_chores();
    }

    /// Whether the disk is too full for the next segment and less than `reserve_bytes` are left in
    /// those there are, beside what waits to be written. The caller then accepts nothing more from
    /// others; what it accepted before still has its place. Ends by itself when space comes back.
    pub fn lacks_room(&self, reserve_bytes: u64) -> bool {
        self.has_no_space() && self.writer.room_bytes() < reserve_bytes
    }

    /// Does the preparations and releases that wait, where [`Helper::Caller`] was chosen.
    pub fn run_chores(&mut self) {
        self.prepare_again_ns = 0;
        self.give_chores();
        self.helpers.run_all();
    }

    /// Writes what waits and a last group saying that the log was closed in good order. With it on
    /// disk, later damage to the group before it cannot pass for a torn write.
    ///
    /// # Errors
    /// Besides failed writes, a disk too full for the segment that this needs.
    pub fn close(mut self, mut now_ns: impl FnMut() -> u64) -> Result<(), LogError> {
        self.writer.seal();
        while self.writer.has_pending() || self.writer.has_write_in_flight() {
            self.submit(now_ns())?;
            self.wait()?;
            self.poll(now_ns())?;
            if self.writer.is_waiting_for_segment() {
                if self.has_no_space()
                    && let Some((segment, error)) = self.prepare_error.take()
                {
                    return Err(self.prepare_failed(segment, &error));
                }
                self.run_chores();
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// Whether a write is in flight.
    pub fn has_write_in_flight(&self) -> bool {
        self.writer.has_write_in_flight()
    }

    /// Whether anything waits to be written.
    pub fn has_pending(&self) -> bool {
        self.writer.has_pending()
    }

    /// The writer, for its positions and segments.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Counts.
    pub fn stats(&self) -> LogStats {
        LogStats {
            writer: self.writer.stats(),
            ..self.stats
        }
    }

    /// How the ring was set up.
    pub fn queue_report(&self) -> QueueReport {
        self.queue.report()
    }

    fn attach(&mut self, segment: SegmentSequence) -> Result<(), LogError> {
        if self.attached == segment {
            return Ok(());
        }
        let (sequence, file) = self.ready.pop_front().expect("a segment in use was opened");
        assert_eq!(sequence, segment, "segments are used in order");
        if let Err(error) = self.queue.attach(slot(segment), file) {
            let cause = error.to_string();
            return Err(self.latch(LogError::Queue {
                path: self.path.clone(),
                cause,
            }));
        }
        self.attached = segment;
        Ok(())
    }

    fn give_chores(&mut self) {
        while let Some(segment) = self.to_release.pop_front() {
            if self.helpers.give(Chore::Release(segment)).is_err() {
                self.to_release.push_front(segment);
                break;
            }
        }
        // A full disk is asked again at a steady pace. After other failures the next attempt waits
        // until a group needs the segment: the log goes on while the one in use has room.
        let is_early = match &self.prepare_error {
            None => false,
            Some((_, error)) if is_no_space(error) => self.now_ns < self.prepare_again_ns,
            Some(_) => !self.writer.is_waiting_for_segment(),
        };
        if is_early {
            return;
        }
        if let Some(segment) = self.writer.wants_segment()
            && self.helpers.give(Chore::Prepare(segment)).is_err()
        {
            self.writer.on_prepare_failed();
        }
    }

    fn take_chores(&mut self) -> Result<(), LogError> {
        while let Some(done) = self.helpers.done() {
            match done {
                Done::Prepared(segment, Ok(file)) => {
                    self.prepare_error = None;
                    self.ready.push_back((segment, file));
                    self.writer.on_prepared(segment);
                }
                Done::Prepared(segment, Err(error)) => {
                    self.stats.prepare_failures += 1;
                    self.writer.on_prepare_failed();
                    if self.writer.is_waiting_for_segment() && !is_no_space(&error) {
                        return Err(self.prepare_failed(segment, &error));
                    }
                    self.prepare_again_ns = self.now_ns + NO_SPACE_PAUSE_NS;
                    self.prepare_error = Some((segment, error));
                }
                Done::Released(_, Ok(())) => {}
                Done::Released(segment, Err(error)) => {
                    let path = self.path.clone();
                    let (cause, remedy) = (error.to_string(), remedy_for(&error));
                    return Err(self.latch(LogError::Release {
                        path,
                        segment,
                        cause,
                        remedy,
                    }));
                }
            }
        }
        Ok(())
    }

    /// The last preparation's failure, until one succeeds; for a warning.
    pub fn preparation_failure(&self) -> Option<&io::Error> {
        self.prepare_error.as_ref().map(|(_, error)| error)
    }

    fn has_no_space(&self) -> bool {
        self.preparation_failure().is_some_and(is_no_space)
    }

    fn prepare_failed(&mut self, segment: SegmentSequence, error: &io::Error) -> LogError {
        let path = self.path.clone();
        let (cause, remedy) = (error.to_string(), remedy_for(error));
        self.latch(LogError::Prepare {
            path,
            segment,
            cause,
            remedy,
        })
    }

    fn write_failed(&mut self, op: WriteOp, cause: &str) -> LogError {
        let segment = self.attached;
        let (offset, bytes) = (op.offset, op.bytes);
        let nothing = self.writer.on_written(op.buffer, false);
        assert!(nothing.is_none(), "a failed write acknowledges nothing");
        let (path, cause) = (self.path.clone(), cause.to_owned());
        self.latch(LogError::Write {
            path,
            segment,
            offset,
            bytes,
            cause,
        })
    }

    fn check(&self) -> Result<(), LogError> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn latch(&mut self, failure: LogError) -> LogError {
        self.writer.stop();
        self.failure.get_or_insert(failure).clone()
    }
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn slot(segment: SegmentSequence) -> FileSlot {
    FileSlot((segment.0 % u64::from(FILES_MAX)) as u16)
}
