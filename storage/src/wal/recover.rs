//! Creating and opening a log.
//!
//! What is always true here
//! - Everything is read and judged before anything is changed; a refused log is left as it was.
//! - Creation is atomic: the first segment gets its name only when it is whole and durable.
//! - What was read counts as durable only after a sync, because the process may have died with
//!   the page cache ahead of the disk.
//! - Remains of a torn write are overwritten with zeros, durably, before the log goes on, so they
//!   cannot come back; blocks of whole groups are never touched. Doing it again after another
//!   crash leads to the same log.
//!
//! Called once at startup; blocking. Does not decide what to do about a refusal.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::error::{OpenError, remedy_for};
use super::format::{GroupKind, chain_seed};
use super::group::{Group, Place, State};
use super::log::Log;
use super::reading::{Files, Io, Reading};
use super::scan::FIRST_OFFSET;
use super::segments::{Plan, create_zeroed, preparing_name, segment_name, write_header};
use super::types::{
    Entry, Evidence, HardState, LogIndex, MARK_BYTES_MAX, METADATA_BYTES_MAX, OpenReport, Options,
    Recovered, SegmentSequence, SnapshotMark,
};
use super::writer::{Resume, push_first};
use crate::device::{AlignedBuffer, BLOCK_BYTES, Directory, DirectoryLock, RealDirectory};

/// Opens the folder of a log on a real disk.
pub fn open_folder(path: &Path) -> Result<Arc<dyn Directory>, OpenError> {
    let folder = RealDirectory::open(path).map_err(|source| OpenError::Io {
        path: path.to_owned(),
        doing: "open the log's folder".to_owned(),
        remedy: remedy_for(&source),
        source,
    })?;
    Ok(Arc::new(folder))
}

/// Creates the folder of a log on a real disk if it is missing, durably. Its parent must exist.
pub fn create_folder(path: &Path) -> Result<Arc<dyn Directory>, OpenError> {
    let folder = RealDirectory::create(path).map_err(|source| OpenError::Io {
        path: path.to_owned(),
        doing: "create the log's folder".to_owned(),
        remedy: remedy_for(&source),
        source,
    })?;
    Ok(Arc::new(folder))
}

/// Whether the folder holds a log. One whose creation was cut short does not count.
pub fn exists(directory: &dyn Directory) -> Result<bool, OpenError> {
    Ok(!Files::list(directory)?.segments.is_empty())
}

/// Creates an empty log. `log_id` must be random: it keeps records of other logs, and bytes that
/// clients send, from ever passing for records of this one.
pub fn create(
    directory: &dyn Directory,
    options: &Options,
    metadata: &[u8],
    log_id: u64,
) -> Result<(), OpenError> {
    create_with(directory, options, metadata, log_id, &State::default())
}

/// Creates an empty log that begins behind `mark`, for a member whose tree holds everything up to
/// it. Log and mark appear together: a log without the mark would be refused beside such a tree,
/// because it ends before what was applied.
pub fn create_behind(
    directory: &dyn Directory,
    options: &Options,
    metadata: &[u8],
    log_id: u64,
    mark: SnapshotMark,
) -> Result<(), OpenError> {
    if MARK_BYTES_MAX < mark.data.len() {
        return Err(OpenError::MarkTooLarge {
            bytes: mark.data.len(),
        });
    }
    let state = State {
        mark: Some(mark),
        ..State::default()
    };
    create_with(directory, options, metadata, log_id, &state)
}

fn create_with(
    directory: &dyn Directory,
    options: &Options,
    metadata: &[u8],
    log_id: u64,
    state: &State,
) -> Result<(), OpenError> {
    options.check()?;
    if METADATA_BYTES_MAX < metadata.len() {
        return Err(OpenError::MetadataTooLarge {
            bytes: metadata.len(),
        });
    }
    let io = Io { directory };
    let _lock = io.lock()?;
    let files = Files::list(directory)?;
    if let Some(&sequence) = files.segments.first() {
        let path = directory.path().to_owned();
        return Err(OpenError::AlreadyExists {
            path,
            name: segment_name(sequence),
        });
    }
    for name in files.preparing.iter().chain(&files.spares) {
        io.run(|| format!("remove {name}"), || directory.remove(name))?;
    }
    let sequence = SegmentSequence(1);
    let doing = || "create the first segment".to_owned();
    io.run(doing, || {
        let segment_bytes = options.segment_bytes;
        let plan = Plan {
            log_id,
            segment_bytes,
            spares_max: options.spares_max,
        };
        let from = preparing_name(sequence);
        let file = create_zeroed(directory, &from, segment_bytes)?;
        write_header(&*file, &plan, sequence, true)?;
        let mark_bytes = state.mark.as_ref().map_or(0, |mark| mark.data.len());
        let bytes_max = METADATA_BYTES_MAX + BLOCK_BYTES + mark_bytes.next_multiple_of(BLOCK_BYTES);
        let mut group = Group::new(AlignedBuffer::new(bytes_max));
        let chain = chain_seed(log_id);
        push_first(&mut group, chain, 1, metadata, state);
        let kind = GroupKind::First;
        group.seal(
            Place {
                log_id,
                segment: sequence,
                offset: FIRST_OFFSET,
                number: 1,
                kind,
            },
            chain,
        );
        file.write_at(FIRST_OFFSET, &group.buffer[..group.padded_bytes()])?;
        file.sync()?;
        directory.rename(&from, &segment_name(sequence))?;
        directory.sync()
    })
}

/// Opens a log: reads it, refuses it if it is damaged, cuts a torn last write off, and gets ready
/// to go on.
pub fn open(
    directory: Arc<dyn Directory>,
    options: &Options,
    evidence: Evidence,
) -> Result<(Log, Recovered), OpenError> {
    read(directory, options, evidence)?.open()
}

/// Locks and reads a log, refuses it if it is damaged, and changes nothing. Whoever has to judge
/// whether this is the right log does so before [`ReadLog::open`].
pub fn read(
    directory: Arc<dyn Directory>,
    options: &Options,
    evidence: Evidence,
) -> Result<ReadLog, OpenError> {
    options.check()?;
    let io = Io {
        directory: &*directory,
    };
    let lock = io.lock()?;
    let files = Files::list(&*directory)?;
    let reading = io.read_log(&files, evidence)?;
    io.check_start(&reading)?;
    Ok(ReadLog {
        directory,
        options: options.clone(),
        evidence,
        lock,
        files,
        reading,
    })
}

/// A log as it lies on the disk: read, locked, and not changed.
pub struct ReadLog {
    directory: Arc<dyn Directory>,
    options: Options,
    evidence: Evidence,
    lock: DirectoryLock,
    files: Files,
    reading: Reading,
}

impl ReadLog {
    /// As given to [`create`].
    pub fn metadata(&self) -> &[u8] {
        self.reading.scan.metadata.as_deref().unwrap_or_default()
    }

    /// The newest hard state; zeros if none was ever written.
    pub fn hard_state(&self) -> HardState {
        self.reading.scan.state.hard_state
    }

    /// The newest snapshot mark, if any.
    pub fn mark(&self) -> Option<&SnapshotMark> {
        self.reading.scan.state.mark.as_ref()
    }

    /// Retained entries from [`Evidence::entries_from`] on, each index once, without gaps.
    pub fn entries(&self) -> &[Entry] {
        &self.reading.scan.entries
    }

    /// Last index of the log: the last entry, or the mark if nothing follows it.
    pub fn last_index(&self) -> LogIndex {
        self.reading.scan.state.last_index
    }

    /// Refuses a log that ends too early.
    pub fn check_end(&self) -> Result<(), OpenError> {
        let io = Io {
            directory: &*self.directory,
        };
        io.check_end(&self.reading, self.evidence)
    }

    /// As [`ReadLog::check_end`]; then cuts a torn last write off, and gets ready to go on.
    pub fn open(self) -> Result<(Log, Recovered), OpenError> {
        self.check_end()?;
        let io = Io {
            directory: &*self.directory,
        };
        io.repair(&self.files, &self.reading)?;
        io.start(&self.directory, &self.options, self.reading, self.lock)
    }
}

impl Io<'_> {
    /// Makes what was read durable and what was torn unreadable.
    fn repair(&self, files: &Files, reading: &Reading) -> Result<(), OpenError> {
        let zeros = vec![0; BLOCK_BYTES];
        for (sequence, blocks) in &reading.remains {
            let file = self.open_segment(*sequence)?;
            self.run(
                || format!("cut the torn write off {}", segment_name(*sequence)),
                || {
                    for &block in blocks {
                        file.write_at(block, &zeros)?;
                    }
                    file.sync()
                },
            )?;
        }
        let &(tail, _) = reading.retained.last().expect("a log has a segment");
        let file = self.open_segment(tail)?;
        self.run(|| format!("sync {}", segment_name(tail)), || file.sync())?;
        for name in &files.preparing {
            self.run(|| format!("remove {name}"), || self.directory.remove(name))?;
        }
        self.run(
            || "sync the log's folder".to_owned(),
            || self.directory.sync(),
        )
    }

    fn start(
        &self,
        directory: &Arc<dyn Directory>,
        options: &Options,
        reading: Reading,
        lock: DirectoryLock,
    ) -> Result<(Log, Recovered), OpenError> {
        let Reading {
            scan,
            segment_bytes,
            retained,
            ready,
            offset,
            torn,
            ..
        } = reading;
        let &(tail, _) = retained.last().expect("a log has a segment");
        let mut files = VecDeque::new();
        for &sequence in [tail].iter().chain(&ready) {
            let name = segment_name(sequence);
            let doing = || format!("open {name} for writing");
            files.push_back((
                sequence,
                self.run(doing, || directory.open_group_file(&name))?,
            ));
        }
        let is_direct = files.iter().all(|(_, file)| file.is_direct);
        let (number, chain) = scan.next.expect("a log has a group");
        let metadata = scan.metadata.unwrap_or_else(Bytes::new);
        let mut report = OpenReport {
            segments: retained.len(),
            groups: scan.groups,
            tail: (tail, offset),
            torn,
            was_closed: scan.last_kind == GroupKind::Seal && torn.is_none(),
            is_direct,
            ..OpenReport::default()
        };
        let resume = Resume {
            log_id: scan.log_id,
            metadata: metadata.clone(),
            retained,
            offset,
            number,
            chain,
            state: scan.state.clone(),
            ready,
        };
        let options = Options {
            segment_bytes,
            ..options.clone()
        };
        options.check()?;
        let doing = || "set the log's ring up".to_owned();
        let log = self.run(doing, || {
            Log::start(directory.clone(), &options, resume, lock, files)
        })?;
        let queue = log.queue_report();
        report.driver = queue.driver;
        report.notes = queue.notes;
        if !is_direct {
            report.notes.push(
                "this file system refuses direct I/O; groups are written through the page cache \
                 and synced, which is as safe and slower"
                    .to_owned(),
            );
        }
        let State {
            last_index,
            last_term,
            hard_state,
            mark,
            ..
        } = scan.state;
        let entries = scan.entries;
        let recovered = Recovered {
            metadata,
            hard_state,
            mark,
            entries,
            last_index,
            last_term,
            report,
        };
        Ok((log, recovered))
    }
}
