//! Reading a whole log: which segments belong to it, where it ends, what must be cut.
//!
//! What is always true here
//! - Nothing is changed; a log that is refused stays as it was.
//! - Memory for one segment at a time, whatever the log's length, plus the entries handed back.
//!
//! Called by [`super::recover`] at startup; blocking. The judgement of bytes is in [`super::scan`].

use std::io;

use super::error::{OpenError, remedy_for};
use super::format::{GroupHeader, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentHeaderError};
use super::scan::{Damage, FIRST_OFFSET, Scan, Segment, Tail, check_headers};
use super::segments::{FileKind, classify, segment_name};
use super::types::{Evidence, LogIndex, SegmentSequence, TornTail};
use crate::device::{AlignedBuffer, BLOCK_BYTES, BlockFile, Directory, DirectoryLock};

/// The folder's files by kind, in order.
pub(super) struct Files {
    pub(super) segments: Vec<SegmentSequence>,
    pub(super) spares: Vec<String>,
    pub(super) preparing: Vec<String>,
}

impl Files {
    pub(super) fn list(directory: &dyn Directory) -> Result<Files, OpenError> {
        let io = Io { directory };
        let listed = io.run(|| "list the log's folder".to_owned(), || directory.list())?;
        let mut files = Files {
            segments: Vec::new(),
            spares: Vec::new(),
            preparing: Vec::new(),
        };
        for file in listed {
            // Every ext4 file system has this folder at its root, and a log may have a file system
            // of its own.
            if file.name == "lost+found" && !file.is_file {
                continue;
            }
            // A start of etcd that was cut short while it tried to write leaves an empty one.
            if file.name == ".touch" && file.bytes == 0 {
                continue;
            }
            match classify(&file.name, file.is_file) {
                FileKind::Segment(sequence) => files.segments.push(sequence),
                FileKind::Spare => files.spares.push(file.name),
                FileKind::Preparing => files.preparing.push(file.name),
                FileKind::Foreign(what) => {
                    let path = directory.path().to_owned();
                    return Err(OpenError::Foreign {
                        path,
                        name: file.name,
                        what,
                    });
                }
            }
        }
        files.segments.sort_unstable();
        Ok(files)
    }
}

/// What reading found, before anything is changed.
pub(super) struct Reading {
    pub(super) scan: Scan,
    pub(super) segment_bytes: u64,
    /// Segments with groups and the highest entry index in each; the last is the tail.
    pub(super) retained: Vec<(SegmentSequence, LogIndex)>,
    /// Prepared segments after the tail.
    pub(super) ready: Vec<SegmentSequence>,
    pub(super) offset: u64,
    pub(super) torn: Option<TornTail>,
    /// Blocks to overwrite with zeros, by segment, as start and end.
    pub(super) remains: Vec<(SegmentSequence, Vec<u64>)>,
}

/// A folder, with errors that name it.
pub(super) struct Io<'a> {
    pub(super) directory: &'a dyn Directory,
}

impl Io<'_> {
    pub(super) fn run<T>(
        &self,
        doing: impl FnOnce() -> String,
        call: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, OpenError> {
        call().map_err(|source| OpenError::Io {
            path: self.directory.path().to_owned(),
            doing: doing(),
            remedy: remedy_for(&source),
            source,
        })
    }

    pub(super) fn lock(&self) -> Result<DirectoryLock, OpenError> {
        match self.directory.lock() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(OpenError::Locked {
                path: self.directory.path().to_owned(),
            }),
            other => self.run(|| "lock the log's folder".to_owned(), || other),
        }
    }

    fn damaged(&self, segment: SegmentSequence, damage: Damage) -> OpenError {
        let Damage { offset, what } = damage;
        OpenError::Damaged {
            path: self.directory.path().to_owned(),
            segment,
            offset,
            what,
        }
    }

    pub(super) fn open_segment(
        &self,
        segment: SegmentSequence,
    ) -> Result<Box<dyn BlockFile>, OpenError> {
        let name = segment_name(segment);
        self.run(|| format!("open {name}"), || self.directory.open(&name))
    }

    fn read_header(&self, segment: SegmentSequence) -> Result<SegmentHeader, OpenError> {
        let file = self.open_segment(segment)?;
        let mut block = [0; SEGMENT_HEADER_BYTES];
        let doing = || format!("read {}", segment_name(segment));
        let (read, length) = self.run(doing, || Ok((file.read_at(0, &mut block)?, file.len()?)))?;
        let damaged = |offset, what: String| self.damaged(segment, Damage { offset, what });
        let header = SegmentHeader::decode(&block[..read]).map_err(|error| match error {
            SegmentHeaderError::Version(version) => OpenError::Version {
                path: self.directory.path().to_owned(),
                segment,
                version,
            },
            SegmentHeaderError::Magic => damaged(0, "the segment header is not one".to_owned()),
            SegmentHeaderError::Checksum => {
                damaged(0, "the segment header fails its checksum".to_owned())
            }
        })?;
        if length != header.segment_bytes {
            let what = format!(
                "the file ends, it should have {} bytes",
                header.segment_bytes
            );
            return Err(damaged(length, what));
        }
        Ok(header)
    }

    pub(super) fn read_log(&self, files: &Files, evidence: Evidence) -> Result<Reading, OpenError> {
        let sequences = &files.segments;
        let path = || self.directory.path().to_owned();
        let Some(&first) = sequences.first() else {
            return Err(OpenError::Missing { path: path() });
        };
        for pair in sequences.windows(2) {
            if pair[0].next() != pair[1] {
                return Err(OpenError::Gap {
                    path: path(),
                    segment: pair[0].next(),
                });
            }
        }
        let mut headers = Vec::new();
        for &sequence in sequences {
            headers.push((sequence, self.read_header(sequence)?));
        }
        check_headers(&headers).map_err(|(segment, damage)| self.damaged(segment, damage))?;

        let header = headers[0].1;
        let mut scan = Scan::new(header.log_id, evidence.entries_from);
        let mut buffer = AlignedBuffer::new(header.segment_bytes as usize);
        let mut retained = Vec::new();
        // How the newest segment read so far ends; the tail's is what counts.
        let mut end = FIRST_OFFSET;
        let mut ending = Ok((Tail::Clean, Vec::new()));
        let mut slot = 0;
        // Read segment after segment as long as each continues the log with a whole first group.
        while let Some(&(sequence, header)) = headers.get(slot) {
            let segment = self.load(header, &mut buffer)?;
            let damaged = |damage| self.damaged(sequence, damage);
            if scan.whole_group(&segment, FIRST_OFFSET).is_none() {
                break;
            }
            let (offset, index_max) = scan.read_groups(&segment, FIRST_OFFSET).map_err(damaged)?;
            if let Some(later) = segment.later_header(offset + BLOCK_BYTES as u64) {
                return Err(damaged(unreadable_before(offset, later)));
            }
            retained.push((sequence, index_max));
            end = offset;
            ending = end_of(&scan, &segment, offset);
            slot += 1;
        }
        let Some(&(tail, _)) = retained.last() else {
            let what = "the first group of the log is unreadable".to_owned();
            return Err(self.damaged(
                first,
                Damage {
                    offset: FIRST_OFFSET,
                    what,
                },
            ));
        };

        // Everything after must be unused, or hold nothing but a torn first group.
        let mut torn = None;
        let mut remains = Vec::new();
        let mut note = |sequence, offset, (verdict, blocks): (Tail, Vec<u64>)| {
            if let Tail::Torn(bytes) = verdict {
                torn.get_or_insert(TornTail {
                    segment: sequence,
                    offset,
                    bytes,
                });
            }
            if !blocks.is_empty() {
                remains.push((sequence, blocks));
            }
        };
        let mut later_endings = Vec::new();
        for &(sequence, header) in &headers[slot..] {
            let segment = self.load(header, &mut buffer)?;
            self.check_unused(&scan, &segment, (tail, end))?;
            let ending = end_of(&scan, &segment, FIRST_OFFSET);
            later_endings.push((
                sequence,
                ending.map_err(|damage| self.damaged(sequence, damage))?,
            ));
        }
        note(
            tail,
            end,
            ending.map_err(|damage| self.damaged(tail, damage))?,
        );
        for (sequence, ending) in later_endings {
            note(sequence, FIRST_OFFSET, ending);
        }
        let ready = headers[slot..]
            .iter()
            .map(|&(sequence, _)| sequence)
            .collect();
        let segment_bytes = header.segment_bytes;
        Ok(Reading {
            scan,
            segment_bytes,
            retained,
            ready,
            offset: end,
            torn,
            remains,
        })
    }

    /// A segment after the tail may hold no group that proves an earlier one was acknowledged.
    fn check_unused(
        &self,
        scan: &Scan,
        segment: &Segment<'_>,
        tail: (SegmentSequence, u64),
    ) -> Result<(), OpenError> {
        let Some((at, group)) = segment.later_header(FIRST_OFFSET) else {
            return Ok(());
        };
        let (number, _) = scan.next.expect("a tail follows a group");
        let sequence = segment.header.sequence;
        if at == FIRST_OFFSET && group.number == number {
            // The first group that continues the log, and not whole: torn, or judged damaged.
            return match segment.later_header(FIRST_OFFSET + BLOCK_BYTES as u64) {
                None => Ok(()),
                Some(later) => Err(self.damaged(sequence, unreadable_before(at, later))),
            };
        }
        let what = format!(
            "the log ends, though group {} at byte {at} of segment {sequence} was written after it",
            group.number
        );
        // With one group missing it is the one at the tail; otherwise the next segment's first.
        if at == FIRST_OFFSET {
            Err(self.damaged(
                tail.0,
                Damage {
                    offset: tail.1,
                    what,
                },
            ))
        } else {
            Err(self.damaged(
                sequence,
                Damage {
                    offset: FIRST_OFFSET,
                    what,
                },
            ))
        }
    }

    fn load<'b>(
        &self,
        header: SegmentHeader,
        buffer: &'b mut AlignedBuffer,
    ) -> Result<Segment<'b>, OpenError> {
        let file = self.open_segment(header.sequence)?;
        let bytes = &mut buffer[..header.segment_bytes as usize];
        let doing = || format!("read {}", segment_name(header.sequence));
        self.run(doing, || file.read_exact_at(0, bytes))?;
        file.drop_cache();
        Ok(Segment { header, bytes })
    }

    /// Refuses a log whose beginning is missing.
    pub(super) fn check_start(&self, reading: &Reading) -> Result<(), OpenError> {
        let scan = &reading.scan;
        let refuse = |what: String| {
            let (segment, _) = reading.retained[0];
            let offset = FIRST_OFFSET;
            Err(self.damaged(segment, Damage { offset, what }))
        };
        if let Some(first) = scan.missing_before() {
            return refuse(format!(
                "the log begins with entry {first}, and no snapshot covers those before"
            ));
        }
        if scan.metadata.is_none() {
            return refuse("the first group holds no metadata".to_owned());
        }
        Ok(())
    }

    /// Compares the log's end with what is known to have been acknowledged.
    pub(super) fn check_end(&self, reading: &Reading, evidence: Evidence) -> Result<(), OpenError> {
        let scan = &reading.scan;
        let &(segment, _) = reading.retained.last().expect("a log has a segment");
        let last = scan.state.last_index;
        let needs = [
            (
                scan.state.hard_state.commit,
                "its own hard state commits it",
            ),
            (evidence.applied_index_min, "the tree file has applied it"),
        ];
        for (wanted, source_of_truth) in needs {
            if last < wanted {
                let path = self.directory.path().to_owned();
                let offset = reading.offset;
                return Err(OpenError::EndsTooEarly {
                    path,
                    segment,
                    offset,
                    last,
                    wanted,
                    source_of_truth,
                });
            }
        }
        Ok(())
    }
}

/// How a segment looks from the end of its groups on, and which blocks must be zeroed before the
/// log goes on there.
fn end_of(scan: &Scan, segment: &Segment<'_>, offset: u64) -> Result<(Tail, Vec<u64>), Damage> {
    let verdict = scan.judge(segment, offset)?;
    let blocks = match (verdict, segment.header.is_zeroed) {
        (_, true) => segment.used_blocks(offset).collect(),
        // Without its first block the group can never be taken for whole.
        (Tail::Torn(_), false) => vec![offset],
        (Tail::Clean, false) => Vec::new(),
    };
    Ok((verdict, blocks))
}

fn unreadable_before(offset: u64, (later, group): (u64, GroupHeader)) -> Damage {
    let number = group.number;
    let what = format!(
        "a group is unreadable, though group {number} at byte {later} was written after it"
    );
    Damage { offset, what }
}
