//! Encodes commands into shared blocks of memory.
//!
//! Always true: every payload starts at a multiple of 16 and is never moved or changed once handed out; a block is one
//! allocation for many commands and is freed when the arena and all payloads in it are gone; a payload keeps its whole
//! block alive, so the memory held is bounded by the blocks that entries in flight touch. One arena belongs to one core.
//! Does not hold payloads itself.

use super::access::{CommandError, TRAILER_BYTES};
use super::layout::{Command, LAYOUT_VERSION};
use bytes::{BufMut, Bytes, BytesMut};
use rkyv::rancor::Failure;
use rkyv::ser::allocator::Arena;
use rkyv::ser::{Positional, Serializer, Writer};

/// Bytes of a block. Larger commands get a block of their own.
///
/// At 256 KiB a put of 300 bytes costs one allocation in 700, and an entry that stays in flight pins little.
pub const BLOCK_BYTES: usize = 256 * 1024;

/// Payloads start at multiples of this, in memory and in the log.
const PAYLOAD_ALIGN: usize = 16;

/// Where a core encodes its commands.
pub struct CommandArena {
    /// The unused rest of the current block. Its length is zero between calls.
    block: BytesMut,
    block_bytes: usize,
    /// Scratch of the serializer, reused.
    scratch: Arena,
}

impl Default for CommandArena {
    fn default() -> Self {
        Self::new(BLOCK_BYTES)
    }
}

impl CommandArena {
    /// An arena with blocks of `block_bytes`; the first is allocated when needed.
    pub fn new(block_bytes: usize) -> Self {
        CommandArena {
            block: BytesMut::new(),
            block_bytes,
            scratch: Arena::new(),
        }
    }

    /// Appends `command` to the current block and returns its payload.
    pub fn encode(&mut self, command: &Command<'_>) -> Result<Bytes, CommandError> {
        let bytes_max = command.archived_bytes_max() + TRAILER_BYTES;
        if bytes_max > i32::MAX as usize {
            return Err(CommandError::TooLarge);
        }
        self.reserve(bytes_max);
        assert!(
            self.block.is_empty(),
            "the block's rest holds nothing between commands"
        );
        let payload_at = self.block.as_ptr().addr();
        let mut serializer =
            Serializer::new(BlockWriter(&mut self.block), self.scratch.acquire(), ());
        let root = rkyv::api::serialize_using::<_, Failure>(command, &mut serializer);
        if root.is_err() {
            self.block.clear();
            return Err(CommandError::TooLarge);
        }
        assert!(
            self.block.len().is_multiple_of(8),
            "the root ends the archive"
        );
        self.block.put_u16_le(LAYOUT_VERSION);
        self.block.put_bytes(0, TRAILER_BYTES - 2);
        let payload = self.block.split().freeze();
        assert_eq!(
            payload.as_ptr().addr(),
            payload_at,
            "the size estimate was too small"
        );
        Ok(payload)
    }

    /// Makes `block` start at an aligned address with room for `bytes`.
    fn reserve(&mut self, bytes: usize) {
        let padding = padding(&self.block);
        if self.block.capacity() < padding + bytes {
            let block_bytes = self.block_bytes.max(bytes) + PAYLOAD_ALIGN;
            self.block = BytesMut::with_capacity(block_bytes);
        }
        skip_padding(&mut self.block);
    }
}

/// Bytes from the start of `block` to the next aligned address.
fn padding(block: &BytesMut) -> usize {
    block.as_ptr().addr().wrapping_neg() % PAYLOAD_ALIGN
}

fn skip_padding(block: &mut BytesMut) {
    let padding = padding(block);
    if padding > 0 {
        block.put_bytes(0, padding);
        drop(block.split());
    }
}

/// Appends to the block; position 0 is the start of the payload.
struct BlockWriter<'a>(&'a mut BytesMut);

impl Positional for BlockWriter<'_> {
    fn pos(&self) -> usize {
        self.0.len()
    }
}

impl Writer<Failure> for BlockWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}
