//! All heads of a connection, and the cache that recognises a header block by its bytes.
//!
//! Clients repeat their header blocks: from the second request on they are a few indexed bytes, the
//! same each time. A block that left the dynamic table as it was means the same fields as long as
//! the table has not changed since, so its bytes, together with the table's version, stand for the
//! decoded and judged head. A hit costs one hash and one comparison.
//!
//! Places are overwritten by whatever comes next at the same hash; a head lives until neither a
//! place nor a call holds it.

use super::head::Head;
use crate::grpc::Stats;
use crate::grpc::service::Service;
use crate::h2::hpack::decoder::{Decoder, InvalidBlock};

pub(super) type HeadIndex = u32;

const NONE: HeadIndex = u32::MAX;

/// Blocks that may be recognised at once. Real clients call a handful of methods.
const PLACES: usize = 64;
/// Longer blocks, and heads with more metadata, are not kept, which bounds the cache to well under
/// a megabyte.
const BLOCK_BYTES_MAX: usize = 512;
const FIELD_BYTES_MAX: usize = 8192;
/// Free heads kept with their buffers.
const FREE_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Heads {
    decoder: Decoder,
    /// Grows by one with each block that changed the dynamic table.
    table_version: u64,
    heads: Vec<Head>,
    free: Vec<HeadIndex>,
    places: Vec<HeadIndex>,
    /// Metadata bytes that all held heads use.
    metadata_bytes: usize,
}

impl Heads {
    pub(super) fn new(table_bytes_max: u32) -> Self {
        Self {
            decoder: Decoder::new(table_bytes_max as usize),
            table_version: 0,
            heads: Vec::new(),
            free: Vec::new(),
            places: Vec::new(),
            metadata_bytes: 0,
        }
    }

    #[inline]
    pub(super) fn get(&self, index: HeadIndex) -> &Head {
        &self.heads[index as usize]
    }

    pub(super) fn metadata_bytes(&self) -> usize {
        self.metadata_bytes
    }

    /// The head of a complete block. The caller holds it until [`release`](Self::release).
    #[inline]
    pub(super) fn resolve<S: Service>(
        &mut self,
        block: &[u8],
        list_bytes_max: u32,
        stats: &mut Stats,
        service: &mut S,
    ) -> Result<HeadIndex, InvalidBlock> {
        let place = hash(block) as usize % PLACES;
        if let Some(&index) = self.places.get(place)
            && let Some(head) = self.heads.get_mut(index as usize)
            && head.block == block
            && head
                .block_version
                .is_none_or(|version| version == self.table_version)
        {
            head.holders += 1;
            stats.header_cache_hits += 1;
            return Ok(index);
        }
        stats.header_cache_misses += 1;
        self.decode(block, place, list_bytes_max, service)
    }

    fn decode<S: Service>(
        &mut self,
        block: &[u8],
        place: usize,
        list_bytes_max: u32,
        service: &mut S,
    ) -> Result<HeadIndex, InvalidBlock> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.heads.push(Head::default());
            (self.heads.len() - 1) as HeadIndex
        });
        let head = &mut self.heads[index as usize];
        let decoded = self.decoder.decode(block, |kind, name, value| {
            head.add(kind, name, value, list_bytes_max)
        })?;
        head.judge(list_bytes_max, service);
        head.holders = 1;
        self.metadata_bytes += head.fields.bytes();
        if !decoded.table_unchanged {
            self.table_version += 1;
        } else if block.len() <= BLOCK_BYTES_MAX && head.fields.bytes() <= FIELD_BYTES_MAX {
            head.block.extend_from_slice(block);
            head.block_version = decoded.used_dynamic.then_some(self.table_version);
            head.holders += 1;
            self.replace_place(place, index);
        }
        Ok(index)
    }

    /// Decodes a block for its effect on the table alone. True if it could have been trailers: no
    /// pseudo-header, nothing malformed.
    pub(super) fn skip(&mut self, block: &[u8]) -> Result<bool, InvalidBlock> {
        use crate::h2::hpack::field::FieldKind::*;
        let mut valid = true;
        let decoded = self.decoder.decode(block, |kind, _, _| {
            valid &= !matches!(kind, Method | Scheme | Path | Authority | Malformed);
        })?;
        if !decoded.table_unchanged {
            self.table_version += 1;
        }
        Ok(valid)
    }

    /// A holder lets go.
    #[inline]
    pub(super) fn release(&mut self, index: HeadIndex) {
        let head = &mut self.heads[index as usize];
        assert!(head.holders > 0, "head {index} released too often");
        head.holders -= 1;
        if head.holders == 0 {
            self.recycle(index);
        }
    }

    fn recycle(&mut self, index: HeadIndex) {
        let head = &mut self.heads[index as usize];
        self.metadata_bytes -= head.fields.bytes();
        if self.free.len() < FREE_MAX {
            head.clear();
        } else {
            *head = Head::default();
        }
        self.free.push(index);
    }

    fn replace_place(&mut self, place: usize, index: HeadIndex) {
        if self.places.is_empty() {
            self.places = vec![NONE; PLACES];
        }
        let old = std::mem::replace(&mut self.places[place], index);
        if old != NONE {
            // The old head keeps its calls but must not be found again.
            self.heads[old as usize].block.clear();
            self.release(old);
        }
    }
}

/// Multiply-and-rotate over eight bytes at a time. Clients can make blocks collide; all they gain
/// is a miss.
#[inline]
fn hash(block: &[u8]) -> u64 {
    const MULTIPLIER: u64 = 0x517c_c1b7_2722_0a95;
    let mut hash = block.len() as u64;
    let (chunks, rest) = block.as_chunks::<8>();
    for chunk in chunks {
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(*chunk)).wrapping_mul(MULTIPLIER);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    hash = (hash.rotate_left(5) ^ u64::from_le_bytes(last)).wrapping_mul(MULTIPLIER);
    hash >> 40
}
