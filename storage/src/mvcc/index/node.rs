//! Pages of the key index in memory: immutable nodes of up to 64 records in key order.
//!
//! One allocation: head, 8-byte discriminators of the keys behind the common prefix, record pointers, child
//! pointers (branches), the common prefix. A search compares the prefix once and then integers in one array; it
//! touches a record only where discriminators are equal.
//!
//! Invariants
//! - A node is never changed after it was built; the writer replaces the path to it.
//! - `record(i)` of a branch is the smallest record under `child(i)`.
//! - `live` counts the keys under the node that are alive at its newest revision, and `changed` is at or above
//!   every main revision at which a key under it came to life or died. So at R >= `changed` the count is `live`.
//! - Records and children of a reachable node are alive; they are retired after it was unlinked.
//!
//! Built and retired by the apply core, read on any core under an epoch guard. Knows no revisions but `changed`.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cmp::Ordering;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use crossbeam_epoch::Guard;

use super::record::{RecordPtr, RecordRef};

pub(super) const NODE_RECORDS_MAX: usize = 64;

/// A longer common prefix is compared record by record: bounds what a node copies for absurdly long keys.
const PREFIX_BYTES_MAX: usize = 256;

#[repr(C)]
pub(super) struct Head {
    live: u64,
    changed: i64,
    prefix_bytes: u32,
    len: u16,
    level: u16,
}

const HEAD_BYTES: usize = size_of::<Head>();
const _: () = assert!(HEAD_BYTES == 24 && align_of::<Head>() == 8);

pub(super) type NodePtr = NonNull<Head>;

/// What the writer puts into a node; `child` is `None` in leaves.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) record: RecordPtr,
    pub(super) child: Option<NodePtr>,
}

/// A node that stays allocated for `'g`.
#[derive(Clone, Copy)]
pub(super) struct NodeRef<'g> {
    ptr: NodePtr,
    marker: PhantomData<&'g Head>,
}

/// Builds a node over `slots`, which are in key order.
///
/// # Safety
/// Records and children of `slots` are alive.
pub(super) unsafe fn build(level: u16, slots: &[Slot], live: u64, changed: i64) -> NodePtr {
    assert!(slots.len() <= NODE_RECORDS_MAX);
    let key = |slot: &Slot| {
        // SAFETY: alive by the caller's promise.
        unsafe { RecordRef::new(slot.record) }.key()
    };
    let prefix = match slots {
        [] => &[],
        [only] => {
            // All of a lone key would be prefix; keep the discriminator useful for the next insert instead.
            let key = key(only);
            &key[..key.len().saturating_sub(8).min(PREFIX_BYTES_MAX)]
        }
        [first, .., last] => common_prefix(key(first), key(last)),
    };
    let node = allocate(level, slots.len(), prefix, live, changed);
    for (position, slot) in slots.iter().enumerate() {
        node.set_discriminator(position, discriminator(key(slot), prefix.len()));
        node.set_slot(position, *slot);
    }
    node.ptr
}

/// A copy of `node` with another count.
pub(super) fn with_count(node: NodeRef<'_>, live: u64, changed: i64) -> NodePtr {
    let copy = allocate(node.level(), node.len(), node.prefix(), live, changed);
    copy.copy_slots(0, node, 0, node.len());
    copy.ptr
}

/// A copy of `node` with another child at `position` that has the same smallest key.
pub(super) fn with_child(
    node: NodeRef<'_>,
    position: usize,
    slot: Slot,
    live: u64,
    changed: i64,
) -> NodePtr {
    let copy = allocate(node.level(), node.len(), node.prefix(), live, changed);
    copy.copy_slots(0, node, 0, node.len());
    copy.set_slot(position, slot);
    copy.ptr
}

/// A copy of `node` with one more slot; `None` if the key does not share the node's prefix.
pub(super) fn with_inserted(
    node: NodeRef<'_>,
    position: usize,
    key: &[u8],
    slot: Slot,
    live: u64,
    changed: i64,
) -> Option<NodePtr> {
    let prefix = node.prefix();
    if node.len() == 0 || !key.starts_with(prefix) {
        return None;
    }
    let copy = allocate(node.level(), node.len() + 1, prefix, live, changed);
    copy.copy_slots(0, node, 0, position);
    copy.set_discriminator(position, discriminator(key, prefix.len()));
    copy.set_slot(position, slot);
    copy.copy_slots(position + 1, node, position, node.len() - position);
    Some(copy.ptr)
}

/// # Safety
/// From one of the builders, not freed, unreachable.
pub(super) unsafe fn free(node: NodePtr) {
    // SAFETY: alive by the caller's promise; allocated with this layout.
    unsafe {
        let head = node.as_ref();
        let layout = layout(
            usize::from(head.len),
            head.level > 0,
            head.prefix_bytes as usize,
        );
        dealloc(node.as_ptr().cast(), layout);
    }
}

/// # Safety
/// As `free`, except that readers pinned now may still hold it.
pub(super) unsafe fn retire(node: NodePtr, guard: &Guard) {
    let node = SendPtr(node);
    // SAFETY: runs when every reader that was pinned has gone; freed once.
    unsafe {
        guard.defer_unchecked(move || {
            let node = node;
            free(node.0);
        });
    }
}

struct SendPtr(NodePtr);

impl<'g> NodeRef<'g> {
    /// # Safety
    /// The node stays allocated for `'g`.
    pub(super) unsafe fn new(ptr: NodePtr) -> Self {
        Self {
            ptr,
            marker: PhantomData,
        }
    }

    pub(super) fn ptr(self) -> NodePtr {
        self.ptr
    }

    fn head(self) -> &'g Head {
        // SAFETY: alive for 'g, immutable.
        unsafe { self.ptr.as_ref() }
    }

    pub(super) fn len(self) -> usize {
        usize::from(self.head().len)
    }

    /// 0 for leaves.
    pub(super) fn level(self) -> u16 {
        self.head().level
    }

    pub(super) fn is_leaf(self) -> bool {
        self.level() == 0
    }

    pub(super) fn live(self) -> u64 {
        self.head().live
    }

    pub(super) fn changed(self) -> i64 {
        self.head().changed
    }

    pub(super) fn record(self, position: usize) -> RecordRef<'g> {
        // SAFETY: records of a live node are alive (invariant).
        unsafe { RecordRef::new(self.records()[position]) }
    }

    pub(super) fn child(self, position: usize) -> NodeRef<'g> {
        // SAFETY: children of a live node are alive (invariant).
        unsafe { NodeRef::new(self.children()[position]) }
    }

    pub(super) fn slot(self, position: usize) -> Slot {
        Slot {
            record: self.records()[position],
            child: (!self.is_leaf()).then(|| self.children()[position]),
        }
    }

    /// `Ok`: the position of `key`; `Err`: where it would stand.
    pub(super) fn search(self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        let shared = prefix.len().min(key.len());
        match key[..shared].cmp(&prefix[..shared]) {
            Ordering::Less => return Err(0),
            Ordering::Greater => return Err(self.len()),
            Ordering::Equal if key.len() < prefix.len() => return Err(0),
            Ordering::Equal => {}
        }
        let wanted = discriminator(key, prefix.len());
        let discriminators = self.discriminators();
        let mut low = discriminators.partition_point(|&d| d < wanted);
        let mut high = low + discriminators[low..].partition_point(|&d| d == wanted);
        while low < high {
            let middle = (low + high) / 2;
            match self.record(middle).key().cmp(key) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    /// The child whose keys include `key`, if any does.
    pub(super) fn route(self, key: &[u8]) -> usize {
        match self.search(key) {
            Ok(position) => position,
            Err(position) => position.saturating_sub(1),
        }
    }

    fn prefix(self) -> &'g [u8] {
        let head = self.head();
        let offset = prefix_offset(self.len(), !self.is_leaf());
        // SAFETY: `allocate` wrote `prefix_bytes` bytes there, in the allocation that `ptr` covers.
        unsafe {
            std::slice::from_raw_parts(
                self.ptr.as_ptr().cast::<u8>().add(offset),
                head.prefix_bytes as usize,
            )
        }
    }

    fn discriminators(self) -> &'g [u64] {
        // SAFETY: `len` integers follow the head, aligned as it is, all written by the builders.
        unsafe {
            let start = self.ptr.as_ptr().cast::<u8>().add(HEAD_BYTES);
            std::slice::from_raw_parts(start.cast::<u64>(), self.len())
        }
    }

    fn records(self) -> &'g [RecordPtr] {
        // SAFETY: `len` pointers follow the discriminators, all written by the builders.
        unsafe {
            let start = self
                .ptr
                .as_ptr()
                .cast::<u8>()
                .add(HEAD_BYTES + 8 * self.len());
            std::slice::from_raw_parts(start.cast::<RecordPtr>(), self.len())
        }
    }

    fn children(self) -> &'g [NodePtr] {
        assert!(!self.is_leaf(), "leaves have no children");
        // SAFETY: in branches `len` pointers follow the records, all written by the builders.
        unsafe {
            let start = self
                .ptr
                .as_ptr()
                .cast::<u8>()
                .add(HEAD_BYTES + 16 * self.len());
            std::slice::from_raw_parts(start.cast::<NodePtr>(), self.len())
        }
    }
}

/// A node under construction: nobody else knows it, its slots are still to be written.
struct Unfinished {
    ptr: NodePtr,
    len: usize,
    is_branch: bool,
}

const _: () = assert!(size_of::<RecordPtr>() == 8 && size_of::<NodePtr>() == 8);

impl Unfinished {
    fn set_discriminator(&self, position: usize, value: u64) {
        assert!(position < self.len);
        // SAFETY: in bounds of the array behind the head; exclusive while unfinished.
        unsafe {
            let start = self.ptr.as_ptr().cast::<u8>().add(HEAD_BYTES);
            start.cast::<u64>().add(position).write(value);
        }
    }

    fn set_slot(&self, position: usize, slot: Slot) {
        assert!(position < self.len && slot.child.is_some() == self.is_branch);
        // SAFETY: in bounds of the arrays behind the discriminators; exclusive while unfinished.
        unsafe {
            let start = self
                .ptr
                .as_ptr()
                .cast::<u8>()
                .add(HEAD_BYTES + 8 * self.len);
            start.cast::<RecordPtr>().add(position).write(slot.record);
            if let Some(child) = slot.child {
                let start = start.add(8 * self.len);
                start.cast::<NodePtr>().add(position).write(child);
            }
        }
    }

    /// Copies `count` slots with their discriminators from a node with the same prefix.
    fn copy_slots(&self, to: usize, from: NodeRef<'_>, start: usize, count: usize) {
        assert!(to + count <= self.len && start + count <= from.len());
        let arrays = if self.is_branch { 3 } else { 2 };
        for array in 0..arrays {
            // SAFETY: array number `array` of a node with n slots begins 8 * n * array bytes behind the head and
            // has n elements of 8 bytes; both ranges are in bounds and in different allocations.
            unsafe {
                ptr::copy_nonoverlapping(
                    from.ptr
                        .as_ptr()
                        .cast::<u8>()
                        .add(HEAD_BYTES + 8 * (array * from.len() + start)),
                    self.ptr
                        .as_ptr()
                        .cast::<u8>()
                        .add(HEAD_BYTES + 8 * (array * self.len + to)),
                    8 * count,
                );
            }
        }
    }
}

fn allocate(level: u16, len: usize, prefix: &[u8], live: u64, changed: i64) -> Unfinished {
    let is_branch = level > 0;
    let layout = layout(len, is_branch, prefix.len());
    // SAFETY: the layout is never empty.
    let raw = unsafe { alloc(layout) };
    let Some(ptr) = NonNull::new(raw.cast::<Head>()) else {
        handle_alloc_error(layout)
    };
    // SAFETY: freshly allocated with room for the head, the arrays and the prefix; not shared yet.
    unsafe {
        ptr.write(Head {
            live,
            changed,
            prefix_bytes: prefix.len() as u32,
            len: len as u16,
            level,
        });
        ptr::copy_nonoverlapping(
            prefix.as_ptr(),
            raw.add(prefix_offset(len, is_branch)),
            prefix.len(),
        );
    }
    Unfinished {
        ptr,
        len,
        is_branch,
    }
}

fn prefix_offset(len: usize, is_branch: bool) -> usize {
    HEAD_BYTES + len * if is_branch { 24 } else { 16 }
}

fn layout(len: usize, is_branch: bool, prefix_bytes: usize) -> Layout {
    Layout::from_size_align(
        prefix_offset(len, is_branch) + prefix_bytes,
        align_of::<Head>(),
    )
    .expect("a node is a few KiB")
}

fn common_prefix<'k>(first: &'k [u8], last: &[u8]) -> &'k [u8] {
    let shared = first
        .iter()
        .zip(last)
        .take(PREFIX_BYTES_MAX)
        .take_while(|(a, b)| a == b)
        .count();
    &first[..shared]
}

/// The 8 bytes behind the prefix as an integer that orders like them; short keys are filled up with zeros.
pub(super) fn discriminator(key: &[u8], prefix_bytes: usize) -> u64 {
    let rest = &key[prefix_bytes..];
    if let Some(bytes) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*bytes);
    }
    let mut bytes = [0; 8];
    bytes[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(bytes)
}
