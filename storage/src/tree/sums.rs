//! The side file of page sums: its bytes, its table in memory, and the mark that ties it to the tree file.
//!
//! Always true here
//! - The entry of a page in use never changes; a commit changes entries of pages that were free. So every sector is
//!   right for the last published state both before and after it is rewritten, and needs no journal.
//! - The side file belongs to the tree file only if a header and the mark in the meta page say so alike.
//!
//! Layout: sectors 0 and 1 hold the headers of even and odd transactions; then 126 page sums a sector, each sector
//! closed by a checksum that also covers its position. `docs/format-sums.md` has the byte map and the crash cases.
//!
//! Pure: bytes in, bytes out. The files are [`super::writer`]'s and [`super::open`]'s affair.

use super::format::{Meta, PageNumber, TxId, get_u32, get_u64};

/// What the side file is written in: the largest piece a disk writes whole or not at all.
pub(crate) const SECTOR_BYTES: usize = 512;
/// Page sums in a sector; the last two words are the sector's number and its checksum.
pub(crate) const SUMS_PER_SECTOR: u64 = 126;
/// Sectors before the sums.
pub(crate) const HEADER_SECTORS: u64 = 2;

const HEADER_MAGIC: u64 = u64::from_le_bytes(*b"PILASUMS");
const HEADER_VERSION: u32 = 1;
const MARK_MAGIC: u64 = u64::from_le_bytes(*b"PILAMARK");
/// Where the mark lies in a meta page, right behind page header and meta. bbolt writes zeros there.
pub(crate) const MARK_AT: usize = 80;
pub(crate) const MARK_BYTES: usize = 16;

const _: () = assert!(SUMS_PER_SECTOR as usize * 4 + 8 == SECTOR_BYTES);
const _: () = assert!(
    MARK_AT + MARK_BYTES <= SECTOR_BYTES,
    "meta and mark share one sector"
);

/// CRC-32C of a page, started from its number so that a page written to another's place does not match.
pub(crate) fn page_sum(page: PageNumber, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&page.0.to_le_bytes()), bytes)
}

/// Bytes of the side file that cover pages below `high_water`.
pub(crate) fn file_bytes(high_water: u64) -> u64 {
    (HEADER_SECTORS + high_water.div_ceil(SUMS_PER_SECTOR)) * SECTOR_BYTES as u64
}

/// A running hash of every sum ever written: two files whose chains are equal hold the same pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Chain(pub(crate) u32);

impl Chain {
    pub(crate) fn add(self, page: PageNumber, sum: u32) -> Chain {
        let with_page = crc32c::crc32c_append(self.0, &page.0.to_le_bytes());
        Chain(crc32c::crc32c_append(with_page, &sum.to_le_bytes()))
    }
}

/// What we leave in a meta page so that a later start knows that we, and nobody else, wrote it.
pub(crate) fn encode_mark(meta: &[u8], chain: Chain) -> [u8; MARK_BYTES] {
    let mut out = [0; MARK_BYTES];
    out[0..8].copy_from_slice(&MARK_MAGIC.to_le_bytes());
    out[8..12].copy_from_slice(&chain.0.to_le_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(meta), &out[..12]);
    out[12..16].copy_from_slice(&sum.to_le_bytes());
    out
}

pub(crate) fn decode_mark(meta: &[u8], mark: &[u8]) -> Option<Chain> {
    let chain = Chain(get_u32(mark, 8)?);
    (mark.get(..MARK_BYTES)? == encode_mark(meta, chain)).then_some(chain)
}

/// Ties the side file to one transaction of the tree file, and to the one before it: a header is durable before
/// the meta page it speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) page_bytes: u32,
    pub(crate) txid: TxId,
    pub(crate) now: Root,
    pub(crate) before: Root,
}

/// What identifies a state of the tree file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Root {
    /// The meta page's own checksum.
    pub(crate) meta_sum: u64,
    pub(crate) chain: Chain,
}

impl Header {
    /// The sector this header is written to.
    pub(crate) fn sector(&self) -> u64 {
        self.txid.0 % HEADER_SECTORS
    }

    pub(crate) fn encode(&self) -> [u8; SECTOR_BYTES] {
        let mut out = [0; SECTOR_BYTES];
        out[0..8].copy_from_slice(&HEADER_MAGIC.to_le_bytes());
        out[8..12].copy_from_slice(&HEADER_VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.page_bytes.to_le_bytes());
        out[16..24].copy_from_slice(&self.txid.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.now.meta_sum.to_le_bytes());
        out[32..40].copy_from_slice(&self.before.meta_sum.to_le_bytes());
        out[40..44].copy_from_slice(&self.now.chain.0.to_le_bytes());
        out[44..48].copy_from_slice(&self.before.chain.0.to_le_bytes());
        seal(self.sector(), &mut out);
        out
    }

    pub(crate) fn decode(sector: u64, bytes: &[u8]) -> Option<Header> {
        let bytes = bytes.get(..SECTOR_BYTES)?;
        if !is_sealed(sector, bytes)
            || get_u64(bytes, 0)? != HEADER_MAGIC
            || get_u32(bytes, 8)? != HEADER_VERSION
        {
            return None;
        }
        let root = |at: usize, chain: usize| {
            Some(Root {
                meta_sum: get_u64(bytes, at)?,
                chain: Chain(get_u32(bytes, chain)?),
            })
        };
        Some(Header {
            page_bytes: get_u32(bytes, 12)?,
            txid: TxId(get_u64(bytes, 16)?),
            now: root(24, 40)?,
            before: root(32, 44)?,
        })
    }

    /// Whether the sums beside this header are those of the state `meta` with that root.
    ///
    /// A header is written before its meta page, so after a crash it may be one transaction ahead; the sums of the
    /// state before are then still whole.
    pub(crate) fn speaks_of(&self, meta: &Meta, root: Root) -> bool {
        self.page_bytes == meta.page_bytes
            && (self.txid == meta.txid && self.now == root
                || self.txid.0 == meta.txid.0.wrapping_add(1) && self.before == root)
    }
}

/// Puts number and checksum at the end of a sector.
fn seal(sector: u64, bytes: &mut [u8; SECTOR_BYTES]) {
    bytes[504..508].copy_from_slice(&(sector as u32).to_le_bytes());
    let sum = crc32c::crc32c(&bytes[..508]);
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
}

fn is_sealed(sector: u64, bytes: &[u8]) -> bool {
    get_u32(bytes, 504) == Some(sector as u32)
        && get_u32(bytes, 508) == Some(crc32c::crc32c(&bytes[..508]))
}

/// The sum of every page, in memory.
#[derive(Debug, Default)]
pub(crate) struct SumTable {
    sums: Vec<u32>,
}

impl SumTable {
    /// Decodes the sums of the pages below `high_water` and names the sectors that are damaged or missing.
    pub(crate) fn decode(high_water: u64, file: &[u8]) -> (SumTable, Vec<u64>) {
        let mut table = SumTable {
            sums: vec![0; high_water as usize],
        };
        let mut bad = Vec::new();
        for (slot, sums) in table.sums.chunks_mut(SUMS_PER_SECTOR as usize).enumerate() {
            let sector = HEADER_SECTORS + slot as u64;
            let at = sector as usize * SECTOR_BYTES;
            match file.get(at..at + SECTOR_BYTES) {
                Some(bytes) if is_sealed(sector, bytes) => {
                    for (sum, word) in sums.iter_mut().zip(bytes.as_chunks::<4>().0) {
                        *sum = u32::from_le_bytes(*word);
                    }
                }
                _ => bad.push(sector),
            }
        }
        (table, bad)
    }

    pub(crate) fn get(&self, page: PageNumber) -> u32 {
        self.sums.get(page.0 as usize).copied().unwrap_or(0)
    }

    pub(crate) fn set(&mut self, page: PageNumber, sum: u32) {
        let at = page.0 as usize;
        if at >= self.sums.len() {
            self.sums.resize(at + 1, 0);
        }
        self.sums[at] = sum;
    }

    /// The sector that holds the sum of `page`.
    pub(crate) fn sector_of(page: PageNumber) -> u64 {
        HEADER_SECTORS + page.0 / SUMS_PER_SECTOR
    }

    /// Sectors that cover all pages in the table.
    pub(crate) fn sectors(&self) -> std::ops::Range<u64> {
        HEADER_SECTORS..HEADER_SECTORS + (self.sums.len() as u64).div_ceil(SUMS_PER_SECTOR)
    }

    /// Appends the bytes of a sector to `out`.
    pub(crate) fn encode_sector(&self, sector: u64, out: &mut Vec<u8>) {
        let first = ((sector - HEADER_SECTORS) * SUMS_PER_SECTOR) as usize;
        let mut bytes = [0; SECTOR_BYTES];
        for (slot, sum) in self
            .sums
            .iter()
            .skip(first)
            .take(SUMS_PER_SECTOR as usize)
            .enumerate()
        {
            bytes[slot * 4..slot * 4 + 4].copy_from_slice(&sum.to_le_bytes());
        }
        seal(sector, &mut bytes);
        out.extend_from_slice(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_comes_back_and_damage_is_confined_to_its_sector() {
        let mut table = SumTable::default();
        for page in 0..300 {
            table.set(PageNumber(page), page as u32 * 7);
        }
        let mut file = vec![0; 2 * SECTOR_BYTES];
        for sector in table.sectors() {
            table.encode_sector(sector, &mut file);
        }
        assert_eq!(file.len() as u64, file_bytes(300));
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x40;
            let (read, bad) = SumTable::decode(300, &damaged);
            let sector = (at / SECTOR_BYTES) as u64;
            let expected = if sector < HEADER_SECTORS {
                vec![]
            } else {
                vec![sector]
            };
            assert_eq!(bad, expected);
            for page in (0..300).map(PageNumber) {
                if !bad.contains(&SumTable::sector_of(page)) {
                    assert_eq!(read.get(page), table.get(page));
                }
            }
        }
    }

    #[test]
    fn header_speaks_of_its_state_and_the_one_before() {
        let meta = |txid| Meta {
            page_bytes: 4096,
            flags: 0,
            root: PageNumber(2),
            sequence: 0,
            freelist: u64::MAX,
            high_water: PageNumber(9),
            txid: TxId(txid),
        };
        let root = |n| Root {
            meta_sum: n,
            chain: Chain(n as u32 + 5),
        };
        let header = Header {
            page_bytes: 4096,
            txid: TxId(8),
            now: root(8),
            before: root(7),
        };
        let read = Header::decode(0, &header.encode()).expect("sealed");
        assert_eq!(read, header);
        assert!(Header::decode(1, &header.encode()).is_none());
        assert!(read.speaks_of(&meta(8), root(8)));
        assert!(read.speaks_of(&meta(7), root(7)));
        assert!(!read.speaks_of(&meta(9), root(9)));
        assert!(!read.speaks_of(&meta(8), root(7)));
    }
}
