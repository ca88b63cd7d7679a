//! The bytes of the log: layout of segment header, group header and record header, and the chained
//! checksum. `docs/format-log.md` explains them; the constants here are the only statement of them.
//!
//! What is always true here
//! - Little-endian, fixed widths. Everything starts on a 16-byte boundary of the file, so an
//!   entry's payload can be read in place.
//! - Decoding takes any bytes and never panics.
//! - The chain covers every byte of every record, its padding included; a group header has a
//!   checksum of its own, so it can be believed even when what lies before it is unreadable.
//!
//! Pure. Called by writer, recovery and inspector on any core. Does not decide what is torn.

use super::types::SegmentSequence;
use crate::device::{BLOCK_BYTES, SECTOR_BYTES};

/// First bytes of every segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"PILASWAL";
/// Version this program writes; others are refused.
pub const VERSION: u32 = 1;
/// Encoded size of a segment header; it has block 0 for itself.
pub const SEGMENT_HEADER_BYTES: usize = 48;
/// First bytes of every group.
pub const GROUP_MAGIC: [u8; 4] = *b"GRUP";
/// Encoded size of a group header.
pub const GROUP_HEADER_BYTES: usize = 64;
/// Encoded size of a record header.
pub const RECORD_HEADER_BYTES: usize = 32;
/// Records and payloads start on multiples of this.
pub const RECORD_ALIGN: usize = 16;
/// Fills a group up to its block. Not zero: a sector of zeros inside a group proves, in a segment
/// that was zero-filled, that the sector was never written.
pub const FILL: u8 = 0xa5;

const _: () = assert!(SEGMENT_HEADER_BYTES <= SECTOR_BYTES);
const _: () = assert!(GROUP_HEADER_BYTES + RECORD_HEADER_BYTES <= SECTOR_BYTES);
const _: () = assert!(GROUP_HEADER_BYTES.is_multiple_of(RECORD_ALIGN));
const _: () = assert!(RECORD_HEADER_BYTES.is_multiple_of(RECORD_ALIGN));
const _: () = assert!(BLOCK_BYTES.is_multiple_of(RECORD_ALIGN));
const _: () = assert!(FILL != 0);

mod segment_at {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 8;
    pub(super) const BLOCK: usize = 12;
    pub(super) const BYTES: usize = 16;
    pub(super) const LOG_ID: usize = 24;
    pub(super) const SEQUENCE: usize = 32;
    pub(super) const FLAGS: usize = 40;
    pub(super) const CHECKSUM: usize = 44;
    const _: () = assert!(CHECKSUM + 4 == super::SEGMENT_HEADER_BYTES);
}

mod group_at {
    pub(super) const MAGIC: usize = 0;
    pub(super) const CHECKSUM: usize = 4;
    pub(super) const LOG_ID: usize = 8;
    pub(super) const SEGMENT: usize = 16;
    pub(super) const NUMBER: usize = 24;
    pub(super) const OFFSET: usize = 32;
    pub(super) const BODY_BYTES: usize = 40;
    pub(super) const RECORDS: usize = 44;
    pub(super) const CHAIN_BEFORE: usize = 48;
    pub(super) const CHAIN_AFTER: usize = 52;
    pub(super) const KIND: usize = 56;
    pub(super) const RESERVED: usize = 60;
    const _: () = assert!(RESERVED + 4 == super::GROUP_HEADER_BYTES);
}

mod record_at {
    pub(super) const TYPE: usize = 0;
    pub(super) const KIND: usize = 1;
    pub(super) const RESERVED: usize = 2;
    pub(super) const LENGTH: usize = 4;
    pub(super) const CHAIN: usize = 8;
    pub(super) const RESERVED_TOO: usize = 12;
    pub(super) const TERM: usize = 16;
    pub(super) const INDEX: usize = 24;
    const _: () = assert!(INDEX + 8 == super::RECORD_HEADER_BYTES);
}

/// Block 0 of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Random, drawn when the log was created.
    pub log_id: u64,
    /// Which segment.
    pub sequence: SegmentSequence,
    /// Length of the file.
    pub segment_bytes: u64,
    /// Whether everything after block 0 was zero when the segment came into use. False for a
    /// recycled file, whose blocks hold remains of an earlier life.
    pub is_zeroed: bool,
}

/// Why block 0 is not a segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentHeaderError {
    /// Not our magic.
    Magic,
    /// A version this program does not know.
    Version(u32),
    /// Ours, but the checksum or a field is wrong.
    Checksum,
}

impl SegmentHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut to = [0; SEGMENT_HEADER_BYTES];
        to[segment_at::MAGIC..][..8].copy_from_slice(&SEGMENT_MAGIC);
        put_u32(&mut to, segment_at::VERSION, VERSION);
        put_u32(&mut to, segment_at::BLOCK, BLOCK_BYTES as u32);
        put_u64(&mut to, segment_at::BYTES, self.segment_bytes);
        put_u64(&mut to, segment_at::LOG_ID, self.log_id);
        put_u64(&mut to, segment_at::SEQUENCE, self.sequence.0);
        put_u32(&mut to, segment_at::FLAGS, u32::from(self.is_zeroed));
        let checksum = crc32c::crc32c(&to[..segment_at::CHECKSUM]);
        put_u32(&mut to, segment_at::CHECKSUM, checksum);
        to
    }

    /// Reads a header. The version is looked at before the checksum, because a later version may
    /// place its checksum elsewhere.
    pub fn decode(from: &[u8]) -> Result<SegmentHeader, SegmentHeaderError> {
        if from.len() < SEGMENT_HEADER_BYTES || from[..8] != SEGMENT_MAGIC {
            return Err(SegmentHeaderError::Magic);
        }
        let is_whole =
            get_u32(from, segment_at::CHECKSUM) == crc32c::crc32c(&from[..segment_at::CHECKSUM]);
        let version = get_u32(from, segment_at::VERSION);
        if version != VERSION && is_whole {
            return Err(SegmentHeaderError::Version(version));
        }
        let flags = get_u32(from, segment_at::FLAGS);
        let block = get_u32(from, segment_at::BLOCK);
        if !is_whole || block != BLOCK_BYTES as u32 || 1 < flags {
            return Err(SegmentHeaderError::Checksum);
        }
        Ok(SegmentHeader {
            log_id: get_u64(from, segment_at::LOG_ID),
            sequence: SegmentSequence(get_u64(from, segment_at::SEQUENCE)),
            segment_bytes: get_u64(from, segment_at::BYTES),
            is_zeroed: flags == 1,
        })
    }
}

/// What a group is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum GroupKind {
    /// Records as they were appended.
    Records = 0,
    /// First of a segment: checksum, metadata, hard state, snapshot mark.
    First = 1,
    /// Last before the log was closed in good order.
    Seal = 2,
}

/// Start of every group: enough to believe the group on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// As in the segment header.
    pub log_id: u64,
    /// As in the segment header; tells remains of an earlier life of the file.
    pub segment: SegmentSequence,
    /// Counts groups from 1 through the whole log.
    pub number: u64,
    /// Where the group starts in its segment; tells a misdirected write.
    pub offset: u64,
    /// Bytes of records after this header, without the fill.
    pub body_bytes: u32,
    /// How many records.
    pub records: u32,
    /// The chain before the first record.
    pub chain_before: u32,
    /// The chain after the last record.
    pub chain_after: u32,
    /// What the group is for.
    pub kind: GroupKind,
}

impl GroupHeader {
    /// Writes the header to the start of `to`.
    pub fn encode(&self, to: &mut [u8]) {
        let to = &mut to[..GROUP_HEADER_BYTES];
        to[group_at::MAGIC..][..4].copy_from_slice(&GROUP_MAGIC);
        put_u64(to, group_at::LOG_ID, self.log_id);
        put_u64(to, group_at::SEGMENT, self.segment.0);
        put_u64(to, group_at::NUMBER, self.number);
        put_u64(to, group_at::OFFSET, self.offset);
        put_u32(to, group_at::BODY_BYTES, self.body_bytes);
        put_u32(to, group_at::RECORDS, self.records);
        put_u32(to, group_at::CHAIN_BEFORE, self.chain_before);
        put_u32(to, group_at::CHAIN_AFTER, self.chain_after);
        put_u32(to, group_at::KIND, self.kind as u32);
        put_u32(to, group_at::RESERVED, 0);
        let checksum = crc32c::crc32c(&to[group_at::LOG_ID..]);
        put_u32(to, group_at::CHECKSUM, checksum);
    }

    /// Reads a header that is whole; `None` for anything else.
    pub fn decode(from: &[u8]) -> Option<GroupHeader> {
        let from = from.get(..GROUP_HEADER_BYTES)?;
        if from[..4] != GROUP_MAGIC
            || get_u32(from, group_at::CHECKSUM) != crc32c::crc32c(&from[group_at::LOG_ID..])
        {
            return None;
        }
        let kind = match get_u32(from, group_at::KIND) {
            0 => GroupKind::Records,
            1 => GroupKind::First,
            2 => GroupKind::Seal,
            _ => return None,
        };
        Some(GroupHeader {
            log_id: get_u64(from, group_at::LOG_ID),
            segment: SegmentSequence(get_u64(from, group_at::SEGMENT)),
            number: get_u64(from, group_at::NUMBER),
            offset: get_u64(from, group_at::OFFSET),
            body_bytes: get_u32(from, group_at::BODY_BYTES),
            records: get_u32(from, group_at::RECORDS),
            chain_before: get_u32(from, group_at::CHAIN_BEFORE),
            chain_after: get_u32(from, group_at::CHAIN_AFTER),
            kind,
        })
    }

    /// Bytes the group takes in the file.
    pub fn padded_bytes(&self) -> u64 {
        (GROUP_HEADER_BYTES as u64 + u64::from(self.body_bytes))
            .next_multiple_of(BLOCK_BYTES as u64)
    }
}

/// The five types of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordType {
    /// Who this member is; opaque bytes.
    Metadata = 1,
    /// One log entry.
    Entry = 2,
    /// Term, vote, commit.
    HardState = 3,
    /// The chain's value at this point; `term` holds it and `index` the group's number.
    Checksum = 4,
    /// A snapshot mark.
    Snapshot = 5,
}

/// Start of every record. Its meaning for each type is in `docs/format-log.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Which of the five.
    pub kind_of_record: RecordType,
    /// An entry's kind, or a snapshot mark's.
    pub kind: u8,
    /// Payload bytes, without padding.
    pub length: u32,
    /// The chain after this record.
    pub chain: u32,
    /// An entry's, hard state's or mark's term.
    pub term: u64,
    /// An entry's or mark's index, a hard state's commit index.
    pub index: u64,
}

impl RecordHeader {
    /// Writes the header to the start of `to`, with the chain still open.
    pub fn encode(&self, to: &mut [u8]) {
        let to = &mut to[..RECORD_HEADER_BYTES];
        to[record_at::TYPE] = self.kind_of_record as u8;
        to[record_at::KIND] = self.kind;
        to[record_at::RESERVED..record_at::LENGTH].fill(0);
        put_u32(to, record_at::LENGTH, self.length);
        put_u32(to, record_at::CHAIN, self.chain);
        put_u32(to, record_at::RESERVED_TOO, 0);
        put_u64(to, record_at::TERM, self.term);
        put_u64(to, record_at::INDEX, self.index);
    }

    /// Reads a header; `None` if it cannot be one.
    pub fn decode(from: &[u8]) -> Option<RecordHeader> {
        let from = from.get(..RECORD_HEADER_BYTES)?;
        let kind_of_record = match from[record_at::TYPE] {
            1 => RecordType::Metadata,
            2 => RecordType::Entry,
            3 => RecordType::HardState,
            4 => RecordType::Checksum,
            5 => RecordType::Snapshot,
            _ => return None,
        };
        Some(RecordHeader {
            kind_of_record,
            kind: from[record_at::KIND],
            length: get_u32(from, record_at::LENGTH),
            chain: get_u32(from, record_at::CHAIN),
            term: get_u64(from, record_at::TERM),
            index: get_u64(from, record_at::INDEX),
        })
    }
}

/// Bytes a record with this payload takes.
pub fn record_bytes(payload_bytes: usize) -> usize {
    RECORD_HEADER_BYTES + payload_bytes.next_multiple_of(RECORD_ALIGN)
}

/// The chain before the first record of a log.
pub fn chain_seed(log_id: u64) -> u32 {
    crc32c::crc32c(&log_id.to_le_bytes())
}

/// The chain after `record` (header, payload and padding), whatever its chain field holds.
pub fn chain_over(before: u32, record: &[u8]) -> u32 {
    let chain = crc32c::crc32c_append(before, &record[..record_at::CHAIN]);
    crc32c::crc32c_append(chain, &record[record_at::RESERVED_TOO..])
}

/// Puts the chain into a record's header.
pub fn set_chain(record: &mut [u8], chain: u32) {
    put_u32(record, record_at::CHAIN, chain);
}

fn put_u32(to: &mut [u8], at: usize, value: u32) {
    to[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(to: &mut [u8], at: usize, value: u64) {
    to[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn get_u32(from: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&from[at..at + 4]);
    u32::from_le_bytes(bytes)
}

fn get_u64(from: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&from[at..at + 8]);
    u64::from_le_bytes(bytes)
}
