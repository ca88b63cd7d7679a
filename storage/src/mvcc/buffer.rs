//! Append-only records of the `key` bucket that the tree file does not hold yet.
//!
//! Invariants
//! - Slots below `published` and the bytes they point to are never written again while the buffer exists.
//! - Revisions ascend from slot to slot; all are above `floor`.
//! - Memory moves nowhere: slots live in blocks that double in size, bytes in chunks of an arena.
//!
//! The apply core owns the one `BufferWriter`; readers on any core and the tree thread see what is published.
//! Does not know keys, and never forgets a part: a buffer goes as a whole, after its group commit.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cmp::Ordering as Order;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::revision::Revision;

/// Slots of the first block; block n has twice as many as block n - 1.
const BLOCK_SLOTS_MIN: usize = 1024;
/// 1024 * (2^24 - 1) slots: more than memory can hold.
const BLOCKS: usize = 24;
const ARENA_CHUNK_BYTES: usize = 256 << 10;

pub(super) struct AppendBuffer {
    /// The store's main revision when the buffer was made.
    floor: i64,
    published: AtomicUsize,
    blocks: [AtomicPtr<Slot>; BLOCKS],
    /// Newest arena chunk; written by the writer, followed by `drop`.
    arena: AtomicPtr<ChunkHead>,
}

#[derive(Clone, Copy)]
struct Slot {
    revision: Revision,
    bytes: *const u8,
    length: usize,
    is_tombstone: bool,
}

struct ChunkHead {
    next: *mut ChunkHead,
    bytes: usize,
}

/// One buffered record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'b> {
    pub(super) revision: Revision,
    pub(super) is_tombstone: bool,
    pub(super) bytes: &'b [u8],
}

// SAFETY: what readers touch (slots below `published`, bytes behind them) was written before the release store
// of `published` and stays as it is; the rest belongs to the one writer.
unsafe impl Send for AppendBuffer {}
// SAFETY: as above.
unsafe impl Sync for AppendBuffer {}

impl AppendBuffer {
    /// Revisions above this and not above the newest published are in this buffer or a later one.
    pub(super) fn floor(&self) -> i64 {
        self.floor
    }

    pub(super) fn len(&self) -> usize {
        self.published.load(Ordering::Acquire)
    }

    pub(super) fn get(&self, revision: Revision) -> Option<Record<'_>> {
        self.find(revision, self.len())
    }

    /// Published records in order of revision, from the first above `after`.
    pub(super) fn records(&self, after: Option<Revision>) -> impl Iterator<Item = Record<'_>> {
        let length = self.len();
        let start = after.map_or(0, |after| self.lower_bound(after, length));
        (start..length)
            .map(|position| self.record(position))
            .skip_while(move |record| Some(record.revision) <= after)
    }

    fn find(&self, revision: Revision, length: usize) -> Option<Record<'_>> {
        let position = self.lower_bound(revision, length);
        (position < length)
            .then(|| self.record(position))
            .filter(|record| record.revision == revision)
    }

    /// First position below `length` whose revision is not below `revision`.
    fn lower_bound(&self, revision: Revision, length: usize) -> usize {
        // Every main revision has at least one record, so a record is not left of its distance from the floor;
        // with one change per transaction it is exactly there.
        let distance = usize::try_from(revision.main - self.floor - 1).unwrap_or(0);
        let mut low = distance.min(length);
        if low < length && self.revision(low) >= revision {
            return low;
        }
        let mut step = 1;
        while low + step < length && self.revision(low + step) < revision {
            low += step;
            step *= 2;
        }
        let mut high = (low + step).min(length);
        while low < high {
            let middle = (low + high) / 2;
            match self.revision(middle).cmp(&revision) {
                Order::Less => low = middle + 1,
                Order::Equal | Order::Greater => high = middle,
            }
        }
        low
    }

    fn revision(&self, position: usize) -> Revision {
        self.slot(position).revision
    }

    fn record(&self, position: usize) -> Record<'_> {
        let slot = self.slot(position);
        Record {
            revision: slot.revision,
            is_tombstone: slot.is_tombstone,
            // SAFETY: `append` filled these bytes before the slot; arena chunks live as long as the buffer.
            bytes: unsafe { std::slice::from_raw_parts(slot.bytes, slot.length) },
        }
    }

    /// `position` is below a length that this thread loaded (or, for the writer, wrote).
    fn slot(&self, position: usize) -> Slot {
        let (block, offset) = place(position);
        let start = self.blocks[block].load(Ordering::Acquire);
        assert!(!start.is_null(), "slot {position} was never written");
        // SAFETY: the block has room for `offset`; the slot was written before the length that covers it.
        unsafe { *start.add(offset) }
    }
}

impl Drop for AppendBuffer {
    fn drop(&mut self) {
        for (number, block) in self.blocks.iter_mut().enumerate() {
            let start = *block.get_mut();
            if !start.is_null() {
                // SAFETY: allocated with this layout; slots need no drop; nobody else holds the buffer.
                unsafe { dealloc(start.cast(), block_layout(number)) };
            }
        }
        let chunk = *self.arena.get_mut();
        // SAFETY: nobody else holds the buffer.
        unsafe { free_chunks(chunk, ptr::null_mut()) };
    }
}

/// The one writer of a buffer.
pub(super) struct BufferWriter {
    buffer: Arc<AppendBuffer>,
    at: Mark,
}

// SAFETY: the arena pointers lead into memory owned by `buffer`, which this writer alone changes.
unsafe impl Send for BufferWriter {}

/// A place to go back to.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    len: usize,
    /// Record bytes so far.
    bytes: usize,
    arena: *mut ChunkHead,
    free: *mut u8,
    free_bytes: usize,
}

impl BufferWriter {
    pub(super) fn new(floor: i64) -> Self {
        Self {
            buffer: Arc::new(AppendBuffer {
                floor,
                published: AtomicUsize::new(0),
                blocks: [const { AtomicPtr::new(ptr::null_mut()) }; BLOCKS],
                arena: AtomicPtr::new(ptr::null_mut()),
            }),
            at: Mark {
                len: 0,
                bytes: 0,
                arena: ptr::null_mut(),
                free: ptr::null_mut(),
                free_bytes: 0,
            },
        }
    }

    pub(super) fn buffer(&self) -> &Arc<AppendBuffer> {
        &self.buffer
    }

    /// Records written, published or not.
    pub(super) fn len(&self) -> usize {
        self.at.len
    }

    pub(super) fn bytes(&self) -> usize {
        self.at.bytes
    }

    pub(super) fn mark(&self) -> Mark {
        self.at
    }

    /// Finds records that are not published yet, too.
    pub(super) fn get(&self, revision: Revision) -> Option<Record<'_>> {
        self.buffer.find(revision, self.at.len)
    }

    /// Appends a record of `length` bytes that `fill` writes. Not visible to readers before `publish`.
    pub(super) fn append(
        &mut self,
        revision: Revision,
        is_tombstone: bool,
        length: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        debug_assert!(revision.main > self.buffer.floor);
        let bytes = self.reserve(length);
        // SAFETY: `reserve` returned `length` zeroed or once-written bytes that no slot points to.
        fill(unsafe { std::slice::from_raw_parts_mut(bytes, length) });
        let (block, offset) = place(self.at.len);
        let mut start = self.buffer.blocks[block].load(Ordering::Relaxed);
        if start.is_null() {
            let layout = block_layout(block);
            // SAFETY: the layout is not empty.
            start = unsafe { alloc(layout) }.cast();
            if start.is_null() {
                handle_alloc_error(layout);
            }
            self.buffer.blocks[block].store(start, Ordering::Release);
        }
        // SAFETY: in bounds of its block, and at or above `published`: readers do not look there.
        unsafe {
            start.add(offset).write(Slot {
                revision,
                bytes,
                length,
                is_tombstone,
            });
        }
        self.at.len += 1;
        self.at.bytes += length;
    }

    /// Makes everything appended visible.
    pub(super) fn publish(&mut self) {
        self.buffer.published.store(self.at.len, Ordering::Release);
    }

    /// Forgets what was appended since `mark` was taken and not published.
    pub(super) fn truncate(&mut self, mark: Mark) {
        assert!(self.buffer.published.load(Ordering::Relaxed) <= mark.len);
        // SAFETY: chunks newer than the mark's hold unpublished records only.
        unsafe { free_chunks(self.at.arena, mark.arena) };
        self.buffer.arena.store(mark.arena, Ordering::Relaxed);
        self.at = mark;
    }

    fn reserve(&mut self, length: usize) -> *mut u8 {
        if length > self.at.free_bytes || self.at.free.is_null() {
            self.add_chunk(length.max(ARENA_CHUNK_BYTES));
        }
        let start = self.at.free;
        // SAFETY: `free_bytes` >= `length` bytes follow in the same chunk.
        self.at.free = unsafe { start.add(length) };
        self.at.free_bytes -= length;
        start
    }

    fn add_chunk(&mut self, bytes: usize) {
        let layout = chunk_layout(bytes);
        // SAFETY: the layout is not empty. Zeroed, so that `fill` gets initialised memory.
        let raw = unsafe { std::alloc::alloc_zeroed(layout) };
        if raw.is_null() {
            handle_alloc_error(layout);
        }
        let chunk = raw.cast::<ChunkHead>();
        // SAFETY: fresh, large enough, aligned for the head.
        unsafe {
            chunk.write(ChunkHead {
                next: self.at.arena,
                bytes,
            });
            self.at.free = raw.add(size_of::<ChunkHead>());
        }
        self.at.free_bytes = bytes;
        self.at.arena = chunk;
        self.buffer.arena.store(chunk, Ordering::Relaxed);
    }
}

/// Frees chunks from `newest` down to, not including, `end`.
///
/// # Safety
/// Nobody reads their bytes any more, and they are unlinked after this.
unsafe fn free_chunks(mut newest: *mut ChunkHead, end: *mut ChunkHead) {
    while newest != end {
        // SAFETY: a chunk of the arena's list, allocated with this layout.
        unsafe {
            let next = (*newest).next;
            let layout = chunk_layout((*newest).bytes);
            dealloc(newest.cast(), layout);
            newest = next;
        }
    }
}

/// Block and offset of a slot.
fn place(position: usize) -> (usize, usize) {
    let block = (position / BLOCK_SLOTS_MIN + 1).ilog2() as usize;
    (block, position - BLOCK_SLOTS_MIN * ((1 << block) - 1))
}

fn block_layout(block: usize) -> Layout {
    Layout::array::<Slot>(BLOCK_SLOTS_MIN << block).expect("bounded by BLOCKS")
}

fn chunk_layout(bytes: usize) -> Layout {
    Layout::from_size_align(size_of::<ChunkHead>() + bytes, align_of::<ChunkHead>())
        .expect("records are far below the address space")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(writer: &mut BufferWriter, main: i64, sub: i64, bytes: &[u8]) {
        writer.append(Revision::new(main, sub), false, bytes.len(), |out| {
            out.copy_from_slice(bytes);
        });
    }

    #[test]
    fn records_are_found_by_revision_once_published() {
        let mut writer = BufferWriter::new(10);
        let count = if cfg!(miri) { 40 } else { 5000 };
        let mut all = Vec::new();
        for main in 11..11 + count {
            for sub in 0..1 + main % 3 {
                append(&mut writer, main, sub, &[main as u8; 7]);
                all.push(Revision::new(main, sub));
            }
        }
        let buffer = writer.buffer().clone();
        assert_eq!(buffer.get(all[0]), None);
        assert!(writer.get(all[0]).is_some());
        writer.publish();
        for &revision in &all {
            let record = buffer.get(revision).expect("published");
            assert_eq!(record.bytes, [revision.main as u8; 7]);
        }
        assert_eq!(buffer.get(Revision::new(11, 9)), None);
        assert_eq!(buffer.get(Revision::new(11 + count, 0)), None);
        assert_eq!(buffer.get(Revision::new(3, 0)), None);
        let seen: Vec<_> = buffer.records(None).map(|r| r.revision).collect();
        assert_eq!(seen, all);
        let seen: Vec<_> = buffer.records(Some(all[5])).map(|r| r.revision).collect();
        assert_eq!(seen, all[6..]);
    }

    #[test]
    fn truncating_forgets_and_reuses() {
        let mut writer = BufferWriter::new(1);
        append(&mut writer, 2, 0, b"kept");
        writer.publish();
        let mark = writer.mark();
        for _ in 0..3 {
            append(&mut writer, 3, 0, &vec![1; ARENA_CHUNK_BYTES]);
            append(&mut writer, 3, 1, &vec![2; 3 * ARENA_CHUNK_BYTES]);
            writer.truncate(mark);
        }
        append(&mut writer, 3, 0, b"");
        append(&mut writer, 3, 1, b"again");
        writer.publish();
        let records: Vec<_> = writer.buffer().records(None).map(|r| r.bytes).collect();
        assert_eq!(records, [&b"kept"[..], b"", b"again"]);
        assert_eq!(writer.bytes(), 9);
    }
}
