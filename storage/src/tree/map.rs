//! The read-only memory map of the tree file: the only unsafe code of the tree.
//!
//! A map reserves address space far beyond the end of the file, so that the file can grow without a new map. Bytes
//! beyond the end fault, so every access is bounded by a length that the caller knows the file has.
//!
//! Invariants
//! - The file is never shortened below a byte that some live snapshot may read; its exclusive lock keeps other programs away.
//! - No byte that a live reference covers is written: published pages never are, and free pages are handed out for
//!   writing only when no snapshot can reach them.
//!
//! Made by the tree thread, read on every core. Does not know what a page is.

use std::fs::File;
use std::io;

use memmap2::{Advice, Mmap, MmapOptions};

/// A mapped file and the address space reserved behind it.
#[derive(Debug)]
pub struct Mapping {
    map: Mmap,
}

impl Mapping {
    /// Maps `reserve` bytes of `file`, which may be shorter.
    pub fn new(file: &File, reserve: usize) -> io::Result<Mapping> {
        // SAFETY: the map is read-only and shared. Its bytes change only by our own writes to pages that no live
        // reference covers (module invariants); `slice` keeps every access inside the file's known length.
        let map = unsafe { MmapOptions::new().len(reserve).map(file)? };
        Ok(Mapping { map })
    }

    /// Bytes of address space reserved: the file may grow to this without a new map.
    pub fn reserved(&self) -> u64 {
        self.map.len() as u64
    }

    /// `len` bytes at `offset`, or `None` if they do not lie below `file_bytes`, a length the file is known to have.
    pub fn slice(&self, offset: u64, len: usize, file_bytes: u64) -> Option<&[u8]> {
        let end = offset.checked_add(len as u64)?;
        if end > file_bytes.min(self.reserved()) {
            return None;
        }
        // Both fit usize: they are at most the length of the map.
        self.map.get(offset as usize..end as usize)
    }

    /// Brings a range into memory and maps it, so that reading it takes no page fault.
    pub fn populate(&self, offset: u64, len: u64) -> io::Result<()> {
        let Some((offset, len)) = self.page_aligned(offset, len) else {
            return Ok(());
        };
        match self.map.advise_range(Advice::PopulateRead, offset, len) {
            // Kernels before 5.14 do not know this advice; they are asked to read ahead, and the walk that follows at
            // open does the rest.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                self.map.advise_range(Advice::WillNeed, offset, len)
            }
            result => result,
        }
    }

    /// Starts reading a range from the disk and does not wait for it.
    pub fn read_ahead(&self, offset: u64, len: u64) -> io::Result<()> {
        // The kernel cuts a request to the device's read-ahead size, 128 KiB unless somebody raised it.
        const PIECE_BYTES: usize = 128 << 10;
        let Some((mut offset, mut len)) = self.page_aligned(offset, len) else {
            return Ok(());
        };
        while len > 0 {
            let piece = len.min(PIECE_BYTES);
            self.map.advise_range(Advice::WillNeed, offset, piece)?;
            (offset, len) = (offset + piece, len - piece);
        }
        Ok(())
    }

    /// Keeps a range in memory until the map goes.
    pub fn lock(&self, offset: u64, len: u64) -> io::Result<()> {
        let Some((offset, len)) = self.page_aligned(offset, len) else {
            return Ok(());
        };
        let range = &self.map[offset..offset + len];
        // SAFETY: the range lies inside the map (the slice above checked it), which outlives the call; locking
        // changes residency only.
        match unsafe { libc::mlock(range.as_ptr().cast(), range.len()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Whether reading the range would take no disk access now. The answer may be stale as soon as it is given.
    pub fn is_resident(&self, offset: u64, len: u64) -> io::Result<bool> {
        // Ranges are probed in pieces so that the answer needs no allocation.
        const PIECE_PAGES: usize = 1024;
        let Some((mut offset, mut len)) = self.page_aligned(offset, len) else {
            return Ok(true);
        };
        let page = os_page_bytes();
        let mut present = [0u8; PIECE_PAGES];
        while len > 0 {
            let piece = len.min(PIECE_PAGES * page);
            let range = &self.map[offset..offset + piece];
            // SAFETY: the range lies inside the map and starts at a page boundary; `present` has a byte for each of
            // its at most PIECE_PAGES pages.
            let done = unsafe {
                libc::mincore(
                    range.as_ptr().cast_mut().cast(),
                    range.len(),
                    present.as_mut_ptr(),
                )
            };
            if done != 0 {
                return Err(io::Error::last_os_error());
            }
            if present[..piece.div_ceil(page)].iter().any(|p| p & 1 == 0) {
                return Ok(false);
            }
            offset += piece;
            len -= piece;
        }
        Ok(true)
    }

    /// The range widened to the pages of the operating system and cut to the map; `None` if nothing is left.
    fn page_aligned(&self, offset: u64, len: u64) -> Option<(usize, usize)> {
        let page = os_page_bytes() as u64;
        let end = offset.saturating_add(len).min(self.reserved());
        let start = offset - offset % page;
        (start < end).then(|| (start as usize, (end - start) as usize))
    }
}

fn os_page_bytes() -> usize {
    // SAFETY: asks for a constant of the system and touches no memory.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).expect("every Linux has a page size")
}
