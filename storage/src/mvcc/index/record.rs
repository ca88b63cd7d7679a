//! One key and its history: a heap object whose newest end grows while other cores read it.
//!
//! Layout: a fixed head with the first revision inline (most keys have one), the key's bytes behind it, and a
//! chain of chunks, newest first. Every chunk holds revisions of one generation only, so a revision costs 16
//! bytes: create revision and version follow from the chunk. Jump pointers (a skew-binary skip list) make
//! "newest revision at or below R" logarithmic in the number of chunks.
//!
//! Invariants
//! - Revisions ascend from the inline one to the end of the tail chunk. A tombstone ends its chunk.
//! - All fields but `tail`, `len`, `is_oldest` and the entries at and above `len` are written before the object
//!   is reachable and never after.
//! - Chunks older than one that `is_oldest` are retired. A reader at R >= the compact revision does not reach
//!   them: that chunk begins at or below the compact revision, and neither `prev` nor `jump` is followed to a
//!   chunk older than the newest one beginning at or below R.
//!
//! Readers on any core, under an epoch guard; mutations by the apply core only (`unsafe fn`, its promise).
//! Does not order keys and does not decide what may be forgotten.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use crossbeam_epoch::Guard;

use crate::mvcc::key_value::KeyMeta;
use crate::mvcc::revision::Revision;

/// Entries of a generation's first chunk; each further chunk doubles.
const CHUNK_ENTRIES_MIN: u32 = 3;
/// 8 KiB: the most memory that outlives its revisions until the chunk's last one is compacted.
const CHUNK_ENTRIES_MAX: u32 = 512;

#[repr(C)]
pub(super) struct Head {
    /// Null while the inline revision is the only one.
    tail: AtomicPtr<Chunk>,
    key_bytes: u32,
    inline: Stored,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Stored {
    create: i64,
    version: i64,
    main: i64,
    mark: u64,
}

#[repr(C)]
struct Chunk {
    /// Null: only the inline revision is older.
    prev: *mut Chunk,
    jump: *mut Chunk,
    /// First main revision of `jump`, `i64::MIN` without one: known without touching `jump`, which may be gone.
    jump_first: i64,
    first: i64,
    create: i64,
    /// Version of entry 0.
    version: i64,
    len: AtomicU32,
    capacity: u32,
    depth: u32,
    is_oldest: AtomicBool,
}

/// Atomic because an aborted transaction's entry is written again while readers may look at it; they discard
/// it either way, its main revision being above theirs.
#[repr(C)]
struct Entry {
    main: AtomicI64,
    mark: AtomicU64,
}

const HEAD_BYTES: usize = size_of::<Head>();
const CHUNK_HEAD_BYTES: usize = size_of::<Chunk>();
const _: () = assert!(HEAD_BYTES == 48 && CHUNK_HEAD_BYTES == 64 && size_of::<Entry>() == 16);

fn mark(sub: i64, is_tombstone: bool) -> u64 {
    (sub as u64) << 1 | u64::from(is_tombstone)
}

/// A revision of one key with everything known about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mvcc) struct Found {
    pub meta: KeyMeta,
    pub is_tombstone: bool,
}

impl Found {
    fn new(create: i64, version: i64, main: i64, mark: u64) -> Self {
        Self {
            meta: KeyMeta {
                create_revision: create,
                mod_revision: Revision::new(main, (mark >> 1) as i64),
                version,
            },
            is_tombstone: mark & 1 == 1,
        }
    }

    pub(in crate::mvcc) fn live(self) -> Option<KeyMeta> {
        (!self.is_tombstone).then_some(self.meta)
    }
}

/// What `trim` asks the index to do with a record.
pub(super) enum Trimmed {
    Keep,
    Remove,
    Replace(RecordPtr),
}

pub(super) type RecordPtr = NonNull<Head>;

/// A record that stays allocated for `'g`.
#[derive(Clone, Copy)]
pub(in crate::mvcc) struct RecordRef<'g> {
    ptr: RecordPtr,
    marker: PhantomData<&'g Head>,
}

/// Allocates a record whose history begins with `first`.
pub(super) fn allocate(key: &[u8], first: Found) -> RecordPtr {
    let key_bytes = u32::try_from(key.len()).expect("request sizes are far below 4 GiB");
    let layout = head_layout(key.len());
    // SAFETY: the layout is never empty (it holds a head).
    let raw = unsafe { alloc(layout) };
    let Some(ptr) = NonNull::new(raw.cast::<Head>()) else {
        handle_alloc_error(layout)
    };
    let head = Head {
        tail: AtomicPtr::new(ptr::null_mut()),
        key_bytes,
        inline: Stored {
            create: first.meta.create_revision,
            version: first.meta.version,
            main: first.meta.mod_revision.main,
            mark: mark(first.meta.mod_revision.sub, first.is_tombstone),
        },
    };
    // SAFETY: freshly allocated with room and alignment for a head and the key behind it; not shared yet.
    unsafe {
        ptr.write(head);
        ptr::copy_nonoverlapping(key.as_ptr(), raw.add(HEAD_BYTES), key.len());
    }
    ptr
}

/// Frees a record and the chunks that were not retired on their own.
///
/// # Safety
/// `ptr` came from `allocate`, was not freed, and nobody can reach it any more.
pub(super) unsafe fn free(ptr: RecordPtr) {
    // SAFETY: alive and exclusive by the caller's promise.
    let (tail, key_bytes) = unsafe {
        let head = ptr.as_ref();
        (head.tail.load(Ordering::Acquire), head.key_bytes as usize)
    };
    // SAFETY: as the record.
    unsafe { free_chain(tail) }
    // SAFETY: allocated with this layout.
    unsafe { dealloc(ptr.as_ptr().cast(), head_layout(key_bytes)) }
}

impl<'g> RecordRef<'g> {
    /// # Safety
    /// The record stays allocated for `'g`: it is reachable from a root loaded under a guard that lives for
    /// `'g`, or owned by the writer for that long.
    pub(super) unsafe fn new(ptr: RecordPtr) -> Self {
        Self {
            ptr,
            marker: PhantomData,
        }
    }

    pub(super) fn ptr(self) -> RecordPtr {
        self.ptr
    }

    fn head(self) -> &'g Head {
        // SAFETY: alive for 'g; no field that is not atomic changes after allocation.
        unsafe { self.ptr.as_ref() }
    }

    pub(in crate::mvcc) fn key(self) -> &'g [u8] {
        let length = self.head().key_bytes as usize;
        // SAFETY: `allocate` put `key_bytes` bytes behind the head, in the same allocation that `ptr` covers;
        // they never change.
        unsafe {
            std::slice::from_raw_parts(self.ptr.as_ptr().cast::<u8>().add(HEAD_BYTES), length)
        }
    }

    fn inline(self) -> Found {
        let stored = self.head().inline;
        Found::new(stored.create, stored.version, stored.main, stored.mark)
    }

    /// The newest revision with main <= `at`. `at` must not be below the compact revision.
    pub(in crate::mvcc) fn newest_at(self, at: i64) -> Option<Found> {
        match self.chunk_at(at) {
            Some(chunk) => {
                let position = chunk.last_at(at);
                Some(chunk.found(position))
            }
            None => (self.head().inline.main <= at).then(|| self.inline()),
        }
    }

    /// The newest revision of all; readers must use `newest_at`.
    pub(in crate::mvcc) fn newest(self) -> Found {
        match self.tail() {
            Some(chunk) => chunk.found(chunk.len() - 1),
            None => self.inline(),
        }
    }

    /// Visits revisions with main <= `at`, newest first, until `visit` breaks or the history ends. Entries that
    /// an earlier compaction has already deleted may still be among them. Writer only.
    pub(in crate::mvcc) fn visit_back(
        self,
        at: i64,
        mut visit: impl FnMut(Found) -> ControlFlow<()>,
    ) {
        let mut next = self.chunk_at(at);
        while let Some(chunk) = next {
            for position in (0..=chunk.last_at(at)).rev() {
                if visit(chunk.found(position)).is_break() {
                    return;
                }
            }
            if chunk.head().is_oldest.load(Ordering::Relaxed) {
                return;
            }
            next = chunk.prev();
        }
        if self.head().inline.main <= at {
            let _ = visit(self.inline());
        }
    }

    /// Adds a newer revision. `floor` is the revision of the last trim: chunks beginning above it exist.
    ///
    /// # Safety
    /// The caller is the only writer; `revision` is above all of this record's.
    pub(super) unsafe fn append(self, revision: Revision, is_tombstone: bool, floor: i64) {
        let newest = self.newest();
        debug_assert!(newest.meta.mod_revision < revision);
        let tail = self.tail();
        if let Some(chunk) = tail
            && !newest.is_tombstone
            && chunk.len() < chunk.head().capacity
        {
            chunk.write(chunk.len(), revision, is_tombstone);
            return;
        }
        let (create, version) = if newest.is_tombstone {
            (revision.main, 1)
        } else {
            (newest.meta.create_revision, newest.meta.version + 1)
        };
        let capacity = match tail {
            Some(chunk) if !newest.is_tombstone => {
                (chunk.head().capacity * 2).min(CHUNK_ENTRIES_MAX)
            }
            _ => CHUNK_ENTRIES_MIN,
        };
        let (jump, jump_first) = tail.map_or((ptr::null_mut(), i64::MIN), |tail| tail.jump(floor));
        let chunk = allocate_chunk(Chunk {
            prev: tail.map_or(ptr::null_mut(), |chunk| chunk.ptr),
            jump,
            jump_first,
            first: revision.main,
            create,
            version,
            len: AtomicU32::new(0),
            capacity,
            depth: tail.map_or(0, |chunk| chunk.head().depth + 1),
            is_oldest: AtomicBool::new(false),
        });
        ChunkRef::<'g> {
            ptr: chunk,
            marker: PhantomData,
        }
        .write(0, revision, is_tombstone);
        self.head().tail.store(chunk, Ordering::Release);
    }

    /// Takes the last `append` back.
    ///
    /// # Safety
    /// The caller is the only writer; the newest revision was appended and never published.
    pub(super) unsafe fn undo_append(self, guard: &Guard) {
        let chunk = self.tail().expect("an appended revision is in a chunk");
        if chunk.len() > 1 {
            chunk.head().len.store(chunk.len() - 1, Ordering::Release);
            return;
        }
        self.head().tail.store(chunk.head().prev, Ordering::Release);
        // SAFETY: just unlinked; only readers that are pinned now can hold it.
        unsafe { retire_chunk(chunk.ptr, guard) }
    }

    /// Forgets what no reader at or above `at` needs: retires older chunks, and says whether the record itself
    /// should be dropped or rebuilt smaller. A record that ends in a tombstone at exactly `at` stays, as its
    /// tombstone stays in the file.
    ///
    /// # Safety
    /// The caller is the only writer, no reader below `at` begins any more, and nothing unpublished is in the
    /// record.
    pub(super) unsafe fn trim(self, at: i64, guard: &Guard) -> Trimmed {
        let newest = self.newest();
        if newest.is_tombstone && newest.meta.mod_revision.main < at {
            return Trimmed::Remove;
        }
        let Some(chunk) = self.chunk_at(at) else {
            return Trimmed::Keep;
        };
        if !chunk.head().is_oldest.swap(true, Ordering::Relaxed) {
            // SAFETY: readers that still need older chunks are pinned, and no later one follows a pointer to them
            // (invariant above); `is_oldest` keeps `free` from them.
            unsafe { retire_chain(chunk.head().prev, guard) }
        }
        let is_tail = self.tail().is_some_and(|tail| tail.ptr == chunk.ptr);
        let from = chunk.last_at(at);
        let kept = chunk.len() - from;
        if !is_tail || (kept > 1 && kept * 2 > chunk.head().capacity) {
            return Trimmed::Keep;
        }
        let rebuilt = allocate(self.key(), chunk.found(from));
        // SAFETY: owned here until it is returned.
        let record = unsafe { RecordRef::new(rebuilt) };
        for position in from + 1..chunk.len() {
            let found = chunk.found(position);
            // SAFETY: nobody else knows the new record; revisions ascend.
            unsafe { record.append(found.meta.mod_revision, found.is_tombstone, at) };
        }
        Trimmed::Replace(rebuilt)
    }

    fn tail(self) -> Option<ChunkRef<'g>> {
        ChunkRef::new(self.head().tail.load(Ordering::Acquire))
    }

    /// The newest chunk that begins at or below `at`.
    fn chunk_at(self, at: i64) -> Option<ChunkRef<'g>> {
        let mut next = self.tail();
        while let Some(chunk) = next {
            let head = chunk.head();
            if head.first <= at {
                return Some(chunk);
            }
            next = if head.jump_first > at {
                ChunkRef::new(head.jump)
            } else {
                chunk.prev()
            };
        }
        None
    }
}

/// A chunk that stays allocated for `'g`; made only while walking a record that does, by the rules above.
#[derive(Clone, Copy)]
struct ChunkRef<'g> {
    ptr: *mut Chunk,
    marker: PhantomData<&'g Chunk>,
}

impl<'g> ChunkRef<'g> {
    fn new(ptr: *mut Chunk) -> Option<Self> {
        (!ptr.is_null()).then_some(Self {
            ptr,
            marker: PhantomData,
        })
    }

    fn head(self) -> &'g Chunk {
        // SAFETY: alive for 'g; fields that change are atomic.
        unsafe { &*self.ptr }
    }

    fn prev(self) -> Option<Self> {
        Self::new(self.head().prev)
    }

    fn len(self) -> u32 {
        self.head().len.load(Ordering::Acquire)
    }

    fn entry(self, position: u32) -> &'g Entry {
        debug_assert!(position < self.head().capacity);
        // SAFETY: `allocate_chunk` made room for `capacity` entries behind the head and initialised them;
        // `ptr` covers the whole allocation.
        unsafe {
            &*self
                .ptr
                .cast::<u8>()
                .add(CHUNK_HEAD_BYTES)
                .cast::<Entry>()
                .add(position as usize)
        }
    }

    fn main(self, position: u32) -> i64 {
        self.entry(position).main.load(Ordering::Relaxed)
    }

    fn found(self, position: u32) -> Found {
        let head = self.head();
        Found::new(
            head.create,
            head.version + i64::from(position),
            self.main(position),
            self.entry(position).mark.load(Ordering::Relaxed),
        )
    }

    /// Position of the last entry with main <= `at`; the chunk begins at or below `at`.
    fn last_at(self, at: i64) -> u32 {
        let length = self.len();
        // Most reads want the newest.
        if self.main(length - 1) <= at {
            return length - 1;
        }
        let (mut low, mut high) = (0, length - 1);
        while low + 1 < high {
            let middle = (low + high) / 2;
            if self.main(middle) <= at {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Writes the entry behind the last one and makes it visible.
    fn write(self, position: u32, revision: Revision, is_tombstone: bool) {
        let entry = self.entry(position);
        entry.main.store(revision.main, Ordering::Relaxed);
        entry
            .mark
            .store(mark(revision.sub, is_tombstone), Ordering::Relaxed);
        self.head().len.store(position + 1, Ordering::Release);
    }

    /// Where the next newer chunk jumps to: as far as this chunk's jump's jump when both jumps are of one
    /// length, else to this chunk. Falls back to this chunk near the trimmed end, where the targets may be gone.
    fn jump(self, floor: i64) -> (*mut Chunk, i64) {
        let head = self.head();
        let nearest = (self.ptr, head.first);
        if head.jump_first <= floor {
            return nearest;
        }
        let Some(first_jump) = Self::new(head.jump) else {
            return nearest;
        };
        let second = first_jump.head();
        if second.jump_first <= floor {
            return nearest;
        }
        let Some(second_jump) = Self::new(second.jump) else {
            return nearest;
        };
        if head.depth - second.depth == second.depth - second_jump.head().depth {
            (second.jump, second.jump_first)
        } else {
            nearest
        }
    }
}

fn head_layout(key_bytes: usize) -> Layout {
    Layout::from_size_align(HEAD_BYTES + key_bytes, align_of::<Head>())
        .expect("keys are far below the address space")
}

fn chunk_layout(capacity: u32) -> Layout {
    Layout::from_size_align(
        CHUNK_HEAD_BYTES + capacity as usize * size_of::<Entry>(),
        align_of::<Chunk>(),
    )
    .expect("a chunk is a few KiB")
}

fn allocate_chunk(head: Chunk) -> *mut Chunk {
    let capacity = head.capacity;
    let layout = chunk_layout(capacity);
    // SAFETY: the layout is never empty.
    let raw = unsafe { alloc(layout) };
    if raw.is_null() {
        handle_alloc_error(layout);
    }
    let chunk = raw.cast::<Chunk>();
    // SAFETY: freshly allocated with room for the head and `capacity` entries; not shared yet.
    unsafe {
        chunk.write(head);
        ptr::write_bytes(
            raw.add(CHUNK_HEAD_BYTES),
            0,
            capacity as usize * size_of::<Entry>(),
        );
    }
    chunk
}

/// # Safety
/// From `allocate_chunk`, not freed, unreachable.
unsafe fn free_chunk(chunk: *mut Chunk) {
    // SAFETY: alive by the caller's promise; allocated with this layout.
    unsafe { dealloc(chunk.cast(), chunk_layout((*chunk).capacity)) }
}

/// Frees `newest` and the chunks before it, up to the one that is oldest.
///
/// # Safety
/// They were not retired, and nobody can reach them any more.
unsafe fn free_chain(newest: *mut Chunk) {
    let mut chunk = newest;
    while !chunk.is_null() {
        // SAFETY: chunks down to the one that is oldest are alive (invariant) and freed here only.
        unsafe {
            let next = if (*chunk).is_oldest.load(Ordering::Relaxed) {
                ptr::null_mut()
            } else {
                (*chunk).prev
            };
            free_chunk(chunk);
            chunk = next;
        }
    }
}

/// # Safety
/// As `free_chunk`, except that readers pinned now may still hold it.
unsafe fn retire_chunk(chunk: *mut Chunk, guard: &Guard) {
    let chunk = SendPtr(chunk);
    // SAFETY: runs when every reader that was pinned has gone; freed once.
    unsafe {
        guard.defer_unchecked(move || {
            let chunk = chunk;
            free_chunk(chunk.0);
        });
    }
}

/// One deferred call for the whole chain: walking it here as well would cost a cache miss per chunk twice.
///
/// # Safety
/// As `free_chain`, except that readers pinned now may still hold the chunks.
unsafe fn retire_chain(newest: *mut Chunk, guard: &Guard) {
    if newest.is_null() {
        return;
    }
    let newest = SendPtr(newest);
    // SAFETY: runs when every reader that was pinned has gone; freed once.
    unsafe {
        guard.defer_unchecked(move || {
            let newest = newest;
            free_chain(newest.0);
        });
    }
}

/// # Safety
/// As `free`, except that readers pinned now may still hold the record.
pub(super) unsafe fn retire(record: RecordPtr, guard: &Guard) {
    let record = SendPtr(record.as_ptr());
    // SAFETY: runs when every reader that was pinned has gone; freed once.
    unsafe {
        guard.defer_unchecked(move || {
            let record = record;
            free(NonNull::new_unchecked(record.0));
        });
    }
}

struct SendPtr<T>(*mut T);

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_epoch as epoch;

    fn first(main: i64) -> Found {
        Found::new(main, 1, main, mark(0, false))
    }

    /// A record written like a store would, beside a plain list of (main, is_tombstone, create, version).
    struct Checked {
        record: RecordPtr,
        model: Vec<Found>,
        floor: i64,
    }

    impl Checked {
        fn new(main: i64) -> Self {
            Self {
                record: allocate(b"key", first(main)),
                model: vec![first(main)],
                floor: -1,
            }
        }

        fn record(&self) -> RecordRef<'_> {
            // SAFETY: freed in drop only.
            unsafe { RecordRef::new(self.record) }
        }

        fn append(&mut self, main: i64, is_tombstone: bool) {
            let last = self.model.last().expect("never empty");
            let (create, version) = if last.is_tombstone {
                (main, 1)
            } else {
                (last.meta.create_revision, last.meta.version + 1)
            };
            self.model
                .push(Found::new(create, version, main, mark(0, is_tombstone)));
            // SAFETY: the only writer.
            unsafe {
                self.record()
                    .append(Revision::new(main, 0), is_tombstone, self.floor)
            };
        }

        fn trim(&mut self, at: i64) {
            let guard = epoch::pin();
            // SAFETY: the only user.
            match unsafe { self.record().trim(at, &guard) } {
                Trimmed::Replace(new) => {
                    // SAFETY: replaced.
                    unsafe { retire(self.record, &guard) };
                    self.record = new;
                }
                Trimmed::Keep => {}
                Trimmed::Remove => panic!("the caller avoids this"),
            }
            self.floor = at;
        }

        fn check(&self, from: i64) {
            let top = self
                .model
                .last()
                .expect("never empty")
                .meta
                .mod_revision
                .main;
            for at in from..=top + 1 {
                let expected = self
                    .model
                    .iter()
                    .rev()
                    .find(|f| f.meta.mod_revision.main <= at);
                assert_eq!(self.record().newest_at(at).as_ref(), expected, "at {at}");
            }
        }
    }

    impl Drop for Checked {
        fn drop(&mut self) {
            // SAFETY: the only user.
            unsafe { free(self.record) }
        }
    }

    #[test]
    fn every_revision_is_found_through_chunks_and_generations() {
        let mut checked = Checked::new(2);
        let count = if cfg!(miri) { 60 } else { 3000 };
        for main in 3..count {
            checked.append(main, main % 97 == 0);
        }
        checked.check(0);
        assert_eq!(checked.record().key(), b"key");
    }

    #[test]
    fn trimming_keeps_everything_at_and_above_its_revision() {
        let mut checked = Checked::new(2);
        let count = if cfg!(miri) { 80 } else { 5000 };
        for main in 3..count {
            checked.append(main, main % 61 == 0);
            if main % 37 == 0 {
                let at = main - main % 23;
                checked.trim(at);
                checked.check(at);
            }
        }
        checked.trim(count - 1);
        checked.check(count - 1);
    }

    #[test]
    fn undo_restores_the_record() {
        let mut checked = Checked::new(2);
        for main in 3..20 {
            let guard = epoch::pin();
            // SAFETY: the only writer; undone at once.
            unsafe {
                checked
                    .record()
                    .append(Revision::new(main, 0), main % 2 == 0, -1);
                checked.record().undo_append(&guard);
            }
            checked.append(main, main % 5 == 0);
        }
        checked.check(0);
    }

    /// A million revisions are some 2,000 chunks; the walk must stay short.
    #[test]
    fn a_long_history_is_walked_in_few_jumps() {
        let mut checked = Checked::new(2);
        let count = if cfg!(miri) { 2000 } else { 200_000 };
        for main in 3..count {
            checked.append(main, false);
        }
        for at in [3, 10, count / 3, count / 2, count - 1000] {
            let mut steps = 0;
            let mut next = checked.record().tail();
            while let Some(chunk) = next {
                let head = chunk.head();
                if head.first <= at {
                    break;
                }
                steps += 1;
                next = if head.jump_first > at {
                    ChunkRef::new(head.jump)
                } else {
                    chunk.prev()
                };
            }
            assert!(steps <= 24, "{steps} steps to revision {at}");
        }
    }
}
