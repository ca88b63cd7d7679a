//! Where the bytes of a snapshot's pages come from: a memory map of the file, or an image in memory.
//!
//! The image serves files that cannot be mapped (the simulated ones). It is a base read at open with the later
//! commits' runs laid over it; each snapshot holds its own version, so nothing a reader borrows is ever changed.
//! Both kinds answer alike: a slice of the bytes asked for, or `None` if the file does not have them.
//!
//! Made by the tree thread, one for each published snapshot; read on any core.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::format::PageNumber;
use super::map::Mapping;

/// The bytes one snapshot sees.
#[derive(Debug, Clone)]
pub struct PageSource {
    kind: Kind,
    /// Bytes the file is known to have.
    file_bytes: u64,
}

#[derive(Debug, Clone)]
enum Kind {
    Map(Arc<Mapping>),
    Image(Image),
}

impl PageSource {
    pub fn from_map(map: Arc<Mapping>, file_bytes: u64) -> PageSource {
        PageSource {
            kind: Kind::Map(map),
            file_bytes,
        }
    }

    pub fn from_image(image: Image) -> PageSource {
        let file_bytes = image.file_bytes;
        PageSource {
            kind: Kind::Image(image),
            file_bytes,
        }
    }

    /// `pages` pages from `first` on.
    pub fn pages(&self, first: PageNumber, pages: u64, page_bytes: usize) -> Option<&[u8]> {
        let offset = first.0.checked_mul(page_bytes as u64)?;
        let len = usize::try_from(pages.checked_mul(page_bytes as u64)?).ok()?;
        match &self.kind {
            Kind::Map(map) => map.slice(offset, len, self.file_bytes),
            Kind::Image(image) => image.slice(offset, len),
        }
    }

    /// See [`Mapping::populate`]; an image is always in memory.
    pub fn populate(&self, offset: u64, len: u64) -> io::Result<()> {
        match &self.kind {
            Kind::Map(map) => map.populate(offset, len.min(self.file_bytes.saturating_sub(offset))),
            Kind::Image(_) => Ok(()),
        }
    }

    /// See [`Mapping::read_ahead`]; an image is always in memory.
    pub fn read_ahead(&self, offset: u64, len: u64) -> io::Result<()> {
        match &self.kind {
            Kind::Map(map) => {
                map.read_ahead(offset, len.min(self.file_bytes.saturating_sub(offset)))
            }
            Kind::Image(_) => Ok(()),
        }
    }

    /// See [`Mapping::lock`]; an image is always in memory.
    pub fn lock(&self, offset: u64, len: u64) -> io::Result<()> {
        match &self.kind {
            Kind::Map(map) => map.lock(offset, len.min(self.file_bytes.saturating_sub(offset))),
            Kind::Image(_) => Ok(()),
        }
    }

    /// See [`Mapping::is_resident`]; an image is always in memory.
    pub fn is_resident(&self, offset: u64, len: u64) -> io::Result<bool> {
        match &self.kind {
            Kind::Map(map) => {
                map.is_resident(offset, len.min(self.file_bytes.saturating_sub(offset)))
            }
            Kind::Image(_) => Ok(true),
        }
    }
}

/// A file's bytes in memory. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Image {
    base: Arc<[u8]>,
    /// Runs written since, by byte offset. A run lies over the base, and over every run that began inside it.
    over: BTreeMap<u64, Arc<[u8]>>,
    file_bytes: u64,
}

impl Image {
    pub fn new(base: Vec<u8>) -> Image {
        let file_bytes = base.len() as u64;
        Image {
            base: base.into(),
            over: BTreeMap::new(),
            file_bytes,
        }
    }

    /// Lays a run over what was there. Runs are pages of one allocation: readers ask for them as a whole.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        let stale: Vec<u64> = self.over.range(offset..end).map(|(at, _)| *at).collect();
        for at in stale {
            self.over.remove(&at);
        }
        self.over.insert(offset, bytes.into());
        self.file_bytes = self.file_bytes.max(end);
    }

    /// The file became longer, or lost its end.
    pub fn set_len(&mut self, file_bytes: u64) {
        self.file_bytes = file_bytes;
        self.over.split_off(&file_bytes);
    }

    fn slice(&self, offset: u64, len: usize) -> Option<&[u8]> {
        if offset.checked_add(len as u64)? > self.file_bytes {
            return None;
        }
        if let Some((at, run)) = self.over.range(..=offset).next_back()
            && offset < at + run.len() as u64
        {
            let from = (offset - at) as usize;
            return run.get(from..from.checked_add(len)?);
        }
        let from = usize::try_from(offset).ok()?;
        self.base.get(from..from.checked_add(len)?)
    }
}
