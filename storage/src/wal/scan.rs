//! Reading a log back: finds its end, and tells a torn last write from damage.
//!
//! What is always true here
//! - Nothing is written; the verdict follows from the bytes alone.
//! - Records are believed only as part of a whole group that continues number and chain.
//! - One write is in flight at a time, so only the last group can be torn. Whatever lies after the
//!   first unreadable group and carries a whole header proves that group was acknowledged: that is
//!   damage, not a torn tail. The full case analysis is in `docs/format-log.md`.
//!
//! Called at startup with one segment's bytes at a time. Does not repair; see [`super::recover`].

use bytes::Bytes;

use super::format::{
    GROUP_HEADER_BYTES, GroupHeader, GroupKind, RecordHeader, RecordType, SegmentHeader,
};
use super::group::{Record, State, read_records};
use super::types::{
    Entry, HardState, LogIndex, MarkKind, SegmentSequence, SnapshotMark, Term, Vote,
};
use crate::device::{AlignedBuffer, BLOCK_BYTES, SECTOR_BYTES};

/// First group of every segment.
pub(super) const FIRST_OFFSET: u64 = BLOCK_BYTES as u64;

/// Bytes that cannot be what was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) offset: u64,
    pub(super) what: String,
}

/// How a place where no whole group follows looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nothing was written there in this life of the segment, as far as can be seen.
    Clean,
    /// A write was under way; so many bytes from there on may hold parts of it.
    Torn(u64),
}

/// What has been read so far.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) log_id: u64,
    /// Number of the next group and the chain before it; `None` before the first group.
    pub(super) next: Option<(u64, u32)>,
    pub(super) state: State,
    pub(super) metadata: Option<Bytes>,
    pub(super) entries: Vec<Entry>,
    /// Lowest index of the unbroken run of entries that ends at `state.last_index`.
    pub(super) first_index: Option<LogIndex>,
    pub(super) groups: u64,
    pub(super) last_kind: GroupKind,
    entries_from: LogIndex,
    records: Vec<Record>,
}

/// A segment's bytes with its header.
pub(super) struct Segment<'a> {
    pub(super) header: SegmentHeader,
    pub(super) bytes: &'a [u8],
}

impl Segment<'_> {
    /// The group header at `offset`, if one was written there in this life of this segment.
    pub(super) fn group_header(&self, offset: u64) -> Option<GroupHeader> {
        let header = GroupHeader::decode(self.bytes.get(offset as usize..)?)?;
        let is_ours = header.log_id == self.header.log_id
            && header.segment == self.header.sequence
            && header.offset == offset
            && header.padded_bytes() <= self.bytes.len() as u64 - offset;
        is_ours.then_some(header)
    }

    /// The first block from `offset` on where a group of this segment starts.
    pub(super) fn later_header(&self, offset: u64) -> Option<(u64, GroupHeader)> {
        let blocks = (offset..self.bytes.len() as u64).step_by(BLOCK_BYTES);
        blocks
            .into_iter()
            .find_map(|at| Some((at, self.group_header(at)?)))
    }

    /// Blocks from `offset` on that are not all zero, as ranges of bytes.
    pub(super) fn used_blocks(&self, offset: u64) -> impl Iterator<Item = u64> + '_ {
        let tail = &self.bytes[self.bytes.len().min(offset as usize)..];
        tail.chunks(BLOCK_BYTES)
            .enumerate()
            .filter(|(_, block)| !is_zero(block))
            .map(move |(slot, _)| offset + (slot * BLOCK_BYTES) as u64)
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    // Comparing memory is the fastest test there is: a start may look at 64 MiB of zeros.
    static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
    bytes
        .chunks(BLOCK_BYTES)
        .all(|piece| *piece == ZEROS[..piece.len()])
}

impl Scan {
    pub(super) fn new(log_id: u64, entries_from: LogIndex) -> Scan {
        Scan {
            log_id,
            next: None,
            state: State::default(),
            metadata: None,
            entries: Vec::new(),
            first_index: None,
            groups: 0,
            last_kind: GroupKind::Records,
            entries_from,
            records: Vec::new(),
        }
    }

    /// Reads whole groups from `offset` until one is not there. Returns where that is, and the
    /// highest entry index met.
    pub(super) fn read_groups(
        &mut self,
        segment: &Segment<'_>,
        mut offset: u64,
    ) -> Result<(u64, LogIndex), Damage> {
        let mut index_max = LogIndex(0);
        while let Some(header) = self.whole_group(segment, offset) {
            self.take_group(segment, offset, &header, &mut index_max)?;
            offset += header.padded_bytes();
        }
        Ok((offset, index_max))
    }

    /// The header of the group at `offset` if that group is whole and continues the log; leaves
    /// its records in `self.records`.
    pub(super) fn whole_group(
        &mut self,
        segment: &Segment<'_>,
        offset: u64,
    ) -> Option<GroupHeader> {
        let header = segment.group_header(offset)?;
        if !self.continues(&header) {
            return None;
        }
        if (header.kind == GroupKind::First) != (offset == FIRST_OFFSET) {
            return None;
        }
        read_records(
            &header,
            &segment.bytes[offset as usize..],
            &mut self.records,
        )
        .ok()?;
        Some(header)
    }

    fn continues(&self, header: &GroupHeader) -> bool {
        self.next
            .is_none_or(|next| next == (header.number, header.chain_before))
    }

    /// Judges a place where no whole group follows, and nothing proves one was acknowledged.
    ///
    /// In a zero-filled segment a 512-byte sector is either zero or as it was written, so a sector
    /// that is neither, or a bad group without a single zero sector, cannot come from a torn write.
    /// In a recycled segment the old content hides that difference, and the milder verdict stands.
    pub(super) fn judge(&self, segment: &Segment<'_>, offset: u64) -> Result<Tail, Damage> {
        let bytes = segment.bytes;
        let Some(first) = bytes.get(offset as usize..offset as usize + SECTOR_BYTES) else {
            return Ok(Tail::Clean);
        };
        let Some(header) = segment.group_header(offset) else {
            if !segment.header.is_zeroed {
                return Ok(Tail::Clean);
            }
            if !is_zero(first) {
                let what = "a group header fails its checksum in a sector that was written whole";
                return Err(Damage {
                    offset,
                    what: what.to_owned(),
                });
            }
            let last = segment.used_blocks(offset).last();
            return Ok(last.map_or(Tail::Clean, |last| {
                Tail::Torn(last + BLOCK_BYTES as u64 - offset)
            }));
        };
        if !self.continues(&header) {
            let what = format!("group {} does not continue the log", header.number);
            return Err(Damage { offset, what });
        }
        let padded = header.padded_bytes();
        let group = &bytes[offset as usize..(offset + padded) as usize];
        let may_be_torn = !segment.header.is_zeroed || group.chunks(SECTOR_BYTES).any(is_zero);
        if may_be_torn {
            return Ok(Tail::Torn(padded));
        }
        let mut records = Vec::new();
        let (at, what) = match read_records(&header, group, &mut records) {
            Err(bad) => (bad.at as u64, bad.what),
            Ok(()) => (0, "a group of the wrong kind"),
        };
        let what = format!("{what}, and every sector of its group was written");
        Err(Damage {
            offset: offset + at,
            what,
        })
    }

    fn take_group(
        &mut self,
        segment: &Segment<'_>,
        offset: u64,
        header: &GroupHeader,
        index_max: &mut LogIndex,
    ) -> Result<(), Damage> {
        let records = std::mem::take(&mut self.records);
        let used = GROUP_HEADER_BYTES + header.body_bytes as usize;
        let group = &segment.bytes[offset as usize..][..used];
        let is_wanted = |record: &Record| {
            let kind = record.header.kind_of_record;
            match kind {
                RecordType::Entry => self.entries_from.0 <= record.header.index,
                RecordType::Metadata | RecordType::Snapshot => true,
                RecordType::HardState | RecordType::Checksum => false,
            }
        };
        // What outlives the scan gets memory of its own, so that entries handed to Raft do not
        // pin whole segments.
        let kept = if records.iter().any(is_wanted) {
            let mut copy = AlignedBuffer::new(used);
            copy[..used].copy_from_slice(group);
            Bytes::from_owner(copy)
        } else {
            Bytes::new()
        };
        for record in &records {
            let at = record.payload_at;
            let bad = |what: String| Damage {
                offset: offset + at as u64,
                what,
            };
            let length = record.header.length as usize;
            let payload = &group[at..at + length];
            let shared = || kept.slice(at..at + length);
            self.take_record(&record.header, payload, shared, index_max)
                .map_err(bad)?;
            if record.header.kind_of_record == RecordType::Checksum
                && header.kind == GroupKind::First
                && (record.header.term, record.header.index)
                    != (u64::from(header.chain_before), header.number)
            {
                return Err(bad("a checksum record contradicts its group".to_owned()));
            }
        }
        self.records = records;
        self.groups += 1;
        self.last_kind = header.kind;
        self.next = Some((header.number + 1, header.chain_after));
        Ok(())
    }

    fn take_record(
        &mut self,
        header: &RecordHeader,
        payload: &[u8],
        shared: impl Fn() -> Bytes,
        index_max: &mut LogIndex,
    ) -> Result<(), String> {
        let (term, index) = (Term(header.term), LogIndex(header.index));
        match header.kind_of_record {
            RecordType::Checksum => Ok(()),
            RecordType::Metadata => match &self.metadata {
                Some(known) if *known != payload => {
                    Err("metadata differs from that of an earlier segment".to_owned())
                }
                Some(_) => Ok(()),
                None => {
                    self.metadata = Some(shared());
                    Ok(())
                }
            },
            RecordType::HardState => {
                let vote: [u8; 8] = payload
                    .try_into()
                    .map_err(|_| "a hard state has the wrong size".to_owned())?;
                let vote = Vote(u64::from_le_bytes(vote));
                self.state.hard_state = HardState {
                    term,
                    vote,
                    commit: index,
                };
                Ok(())
            }
            RecordType::Snapshot => {
                let kind = match header.kind {
                    0 => MarkKind::Compaction,
                    1 => MarkKind::Install,
                    other => return Err(format!("a snapshot mark has unknown kind {other}")),
                };
                // A compaction mark beyond the end only occurs where the log begins, and there it
                // stands for the entries before it.
                if kind == MarkKind::Install || self.state.last_index < index {
                    self.entries.clear();
                    self.first_index = None;
                    self.state.last_index = index;
                    self.state.last_term = term;
                }
                self.state.mark = Some(SnapshotMark {
                    index,
                    term,
                    kind,
                    data: shared(),
                });
                Ok(())
            }
            RecordType::Entry => {
                self.take_entry(term, index, header.kind, shared)?;
                *index_max = index.max(*index_max);
                Ok(())
            }
        }
    }

    fn take_entry(
        &mut self,
        term: Term,
        index: LogIndex,
        kind: u8,
        shared: impl Fn() -> Bytes,
    ) -> Result<(), String> {
        let last = self.state.last_index;
        let covered = self
            .state
            .mark
            .as_ref()
            .map_or(LogIndex(0), |mark| mark.index);
        if index <= covered {
            return Err(format!(
                "entry {index} is covered by the snapshot mark at {covered}"
            ));
        }
        // Where the log begins, entries may start anywhere; the mark that allowed the ones before
        // to be released comes later in the log, and is checked against when all is read.
        if last.next() < index && self.first_index.is_some() {
            return Err(format!("entry {index} leaves a gap after {last}"));
        }
        if self.first_index.is_none_or(|first| index <= first) {
            self.first_index = Some(index);
        }
        while self
            .entries
            .last()
            .is_some_and(|entry| index <= entry.index)
        {
            self.entries.pop();
        }
        if self.entries_from <= index {
            self.entries.push(Entry {
                term,
                index,
                kind,
                payload: shared(),
            });
        }
        self.state.last_index = index;
        self.state.last_term = term;
        Ok(())
    }

    /// Whether entries are missing between the snapshot mark and the first retained entry.
    pub(super) fn missing_before(&self) -> Option<LogIndex> {
        let covered = self
            .state
            .mark
            .as_ref()
            .map_or(LogIndex(0), |mark| mark.index);
        self.first_index.filter(|first| covered.next() < *first)
    }
}

/// The segments' headers must name the same log and count up without gaps.
pub(super) fn check_headers(
    headers: &[(SegmentSequence, SegmentHeader)],
) -> Result<(), (SegmentSequence, Damage)> {
    let first = headers[0].1;
    for (named, header) in headers {
        let what = if header.sequence != *named {
            format!("the header says it is segment {}", header.sequence)
        } else if header.log_id != first.log_id {
            "the header belongs to another log".to_owned()
        } else if header.segment_bytes != first.segment_bytes {
            "the header names another size than its neighbours".to_owned()
        } else {
            continue;
        };
        return Err((*named, Damage { offset: 0, what }));
    }
    Ok(())
}
