//! The bytes of a bbolt file: headers, elements and meta pages, stated once.
//!
//! Pure functions over byte slices. Little-endian, as bbolt writes on every CPU we run on. Decoders check lengths and
//! return `None` rather than panic; whether the values make sense is for [`super::page`] and [`super::open`] to say.

use std::fmt;

/// Which page of the file; its byte offset is this times the page size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PageNumber(pub u64);

impl fmt::Display for PageNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which commit a state of the file belongs to; rises by one with every commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TxId(pub u64);

impl fmt::Display for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

pub const PAGE_HEADER_BYTES: usize = 16;
pub const ELEMENT_BYTES: usize = 16;
pub const META_BYTES: usize = 64;
/// Bytes of a bucket's value: root page and sequence. An inline bucket's page follows them.
pub const BUCKET_BYTES: usize = 16;

pub const PAGE_BYTES_MIN: usize = 1 << 10;
pub const PAGE_BYTES_MAX: usize = 1 << 24;
/// Longest key bbolt takes.
pub const KEY_BYTES_MAX: usize = 32_768;
/// Longest value bbolt takes, less one byte of its own bound.
pub const VALUE_BYTES_MAX: usize = (1 << 31) - 2;
/// Most elements we write to one page; the count field has 16 bits and bbolt keeps the largest value apart.
pub const ELEMENTS_MAX: usize = 0xFFFE;
/// Levels of one tree, and of buckets in buckets, that we follow. A tree of this depth with two children a branch
/// has more leaves than any file; a deeper one is damaged or hostile.
pub const DEPTH_MAX: usize = 32;

pub const FLAG_BRANCH: u16 = 0x01;
pub const FLAG_LEAF: u16 = 0x02;
pub const FLAG_META: u16 = 0x04;
pub const FLAG_FREELIST: u16 = 0x10;
/// A leaf element whose value is a bucket.
pub const ELEMENT_BUCKET: u32 = 0x01;

pub const MAGIC: u32 = 0xED0C_DAED;
pub const VERSION: u32 = 2;
/// In the freelist field of a meta page: this file stores no freelist.
pub const NO_FREELIST: u64 = u64::MAX;

const _: () = assert!(META_BYTES == 4 * 4 + 6 * 8);

pub(crate) fn get_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn get_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn get_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The 16 bytes every page (but not its overflow pages) begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    pub id: PageNumber,
    pub flags: u16,
    pub count: u16,
    /// Pages that follow this one and continue its data.
    pub overflow: u32,
}

impl PageHeader {
    pub fn decode(bytes: &[u8]) -> Option<PageHeader> {
        Some(PageHeader {
            id: PageNumber(get_u64(bytes, 0)?),
            flags: get_u16(bytes, 8)?,
            count: get_u16(bytes, 10)?,
            overflow: get_u32(bytes, 12)?,
        })
    }

    pub fn encode(&self) -> [u8; PAGE_HEADER_BYTES] {
        let mut out = [0; PAGE_HEADER_BYTES];
        out[0..8].copy_from_slice(&self.id.0.to_le_bytes());
        out[8..10].copy_from_slice(&self.flags.to_le_bytes());
        out[10..12].copy_from_slice(&self.count.to_le_bytes());
        out[12..16].copy_from_slice(&self.overflow.to_le_bytes());
        out
    }
}

/// A root of the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    pub page_bytes: u32,
    /// bbolt writes 0 and ignores it; carried over as found.
    pub flags: u32,
    pub root: PageNumber,
    pub sequence: u64,
    /// [`NO_FREELIST`] or a page.
    pub freelist: u64,
    /// First page never used.
    pub high_water: PageNumber,
    pub txid: TxId,
}

impl Meta {
    /// Decodes the meta at the start of `bytes` if its magic, version and checksum hold.
    pub fn decode(bytes: &[u8]) -> Option<Meta> {
        let bytes = bytes.get(..META_BYTES)?;
        if get_u32(bytes, 0)? != MAGIC || get_u32(bytes, 4)? != VERSION {
            return None;
        }
        if get_u64(bytes, 56)? != fnv1a(&bytes[..56]) {
            return None;
        }
        Some(Meta {
            page_bytes: get_u32(bytes, 8)?,
            flags: get_u32(bytes, 12)?,
            root: PageNumber(get_u64(bytes, 16)?),
            sequence: get_u64(bytes, 24)?,
            freelist: get_u64(bytes, 32)?,
            high_water: PageNumber(get_u64(bytes, 40)?),
            txid: TxId(get_u64(bytes, 48)?),
        })
    }

    pub fn encode(&self) -> [u8; META_BYTES] {
        let mut out = [0; META_BYTES];
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&VERSION.to_le_bytes());
        out[8..12].copy_from_slice(&self.page_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.flags.to_le_bytes());
        out[16..24].copy_from_slice(&self.root.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        out[32..40].copy_from_slice(&self.freelist.to_le_bytes());
        out[40..48].copy_from_slice(&self.high_water.0.to_le_bytes());
        out[48..56].copy_from_slice(&self.txid.0.to_le_bytes());
        let sum = fnv1a(&out[..56]);
        out[56..64].copy_from_slice(&sum.to_le_bytes());
        out
    }
}

/// FNV-1a, 64 bit: the checksum of meta pages.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| {
        (hash ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)
    })
}

/// What a bucket's value begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketHeader {
    /// 0: the bucket is inline, its leaf page follows in the value.
    pub root: PageNumber,
    pub sequence: u64,
}

impl BucketHeader {
    pub fn decode(bytes: &[u8]) -> Option<BucketHeader> {
        Some(BucketHeader {
            root: PageNumber(get_u64(bytes, 0)?),
            sequence: get_u64(bytes, 8)?,
        })
    }

    pub fn encode(&self) -> [u8; BUCKET_BYTES] {
        let mut out = [0; BUCKET_BYTES];
        out[0..8].copy_from_slice(&self.root.0.to_le_bytes());
        out[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        out
    }
}
