//! Memory aligned to the device block, owned like a `Vec`, with a fixed size.
//!
//! What is always true here
//! - The address is a multiple of [`BLOCK_BYTES`] and so is the length; both never change.
//! - Every byte is initialised (zeroed at birth).
//! - A buffer that a ring registered carries its `slot`; it may be registered with one ring only.
//!
//! Owned by whoever holds it: the log writer while it fills, the operation while in flight.
//! Deliberately not growable: growth would move memory that the kernel has pinned.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::BLOCK_BYTES;

/// A block-aligned, zero-initialised byte buffer of fixed size.
pub struct AlignedBuffer {
    start: NonNull<u8>,
    bytes: usize,
    slot: Option<u16>,
}

// SAFETY: the buffer owns its allocation exclusively, exactly as a `Box<[u8]>` does.
unsafe impl Send for AlignedBuffer {}
// SAFETY: a shared reference only hands out `&[u8]`.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// Allocates `bytes` rounded up to whole blocks, at least one.
    pub fn new(bytes: usize) -> AlignedBuffer {
        let bytes = bytes.max(1).next_multiple_of(BLOCK_BYTES);
        let layout = Self::layout(bytes);
        // SAFETY: the layout has a non-zero size, see `max(1)` above.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout)
        };
        AlignedBuffer {
            start,
            bytes,
            slot: None,
        }
    }

    /// The index under which a ring has registered this memory, if one has.
    pub fn slot(&self) -> Option<u16> {
        self.slot
    }

    pub(super) fn set_slot(&mut self, slot: u16) {
        assert!(
            self.slot.is_none(),
            "buffer is already registered as {:?}",
            self.slot
        );
        self.slot = Some(slot);
    }

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, BLOCK_BYTES).expect("block multiple below isize::MAX")
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` points to `bytes` initialised bytes that live as long as `self`, and
        // `&self` forbids writers.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes this the only access.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl AsRef<[u8]> for AlignedBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this very layout, and freed once because `self` owns it.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.bytes)) }
    }
}

impl std::fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlignedBuffer")
            .field("bytes", &self.bytes)
            .field("slot", &self.slot)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_zeroed_and_rounded_up() {
        for (asked, got) in [(0, 4096), (1, 4096), (4096, 4096), (4097, 8192)] {
            let mut buffer = AlignedBuffer::new(asked);
            assert_eq!(buffer.len(), got);
            assert_eq!(buffer.as_ptr() as usize % BLOCK_BYTES, 0);
            assert!(buffer.iter().all(|&byte| byte == 0));
            buffer[got - 1] = 7;
            assert_eq!(buffer[got - 1], 7);
        }
    }
}
