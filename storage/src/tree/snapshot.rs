//! A published state of the tree: what readers hold.
//!
//! Always true here
//! - A snapshot's pages keep their bytes while any clone of it lives; the writer counts the clones.
//! - Reading takes no lock, allocates nothing, and follows no length or page number it has not checked.
//!
//! `Send + Sync + Clone`; cloning is one atomic increment. Read on any core. What it does not do: check page sums on
//! every read. They are checked at open and by [`super::scrub`]; a read finds only damage to the structure.

use std::io;
use std::sync::{Arc, Weak};

use super::error::PageDamage;
use super::format::{
    BUCKET_BYTES, BucketHeader, DEPTH_MAX, FLAG_META, META_BYTES, Meta, PAGE_HEADER_BYTES,
    PageHeader, PageNumber, TxId,
};
use super::page::{LeafElement, Page};
use super::source::PageSource;

/// A frozen root of the file.
#[derive(Debug, Clone)]
pub struct Snapshot {
    inner: Arc<Inner>,
}

/// Tells the writer whether any clone of a snapshot is left.
#[derive(Debug)]
pub(crate) struct SnapshotWatch {
    pub(crate) txid: TxId,
    /// [`Snapshot::page_count`] of what is watched.
    pub(crate) pages: u64,
    inner: Weak<Inner>,
}

#[derive(Debug)]
struct Inner {
    source: PageSource,
    page_bytes: usize,
    meta: Meta,
}

impl Snapshot {
    pub(crate) fn new(source: PageSource, meta: Meta) -> Snapshot {
        Snapshot {
            inner: Arc::new(Inner {
                source,
                page_bytes: meta.page_bytes as usize,
                meta,
            }),
        }
    }

    pub(crate) fn watch(&self) -> SnapshotWatch {
        SnapshotWatch {
            txid: self.txid(),
            pages: self.page_count(),
            inner: Arc::downgrade(&self.inner),
        }
    }

    /// The commit this is the state of.
    pub fn txid(&self) -> TxId {
        self.inner.meta.txid
    }

    pub fn meta(&self) -> &Meta {
        &self.inner.meta
    }

    pub fn page_bytes(&self) -> usize {
        self.inner.page_bytes
    }

    /// Pages below the high-water mark; times the page size this is the size etcd reports.
    pub fn page_count(&self) -> u64 {
        self.inner.meta.high_water.0
    }

    /// The bucket called `name`, if there is one.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<BucketRef<'_>>, PageDamage> {
        self.root_bucket().nested(name)
    }

    /// The bucket that holds the buckets.
    pub fn root_bucket(&self) -> BucketRef<'_> {
        let meta = &self.inner.meta;
        BucketRef {
            snapshot: self,
            root: Root::Page(meta.root),
            sequence: meta.sequence,
        }
    }

    /// A leaf or branch page with its overflow pages.
    pub fn page(&self, number: PageNumber) -> Result<Page<'_>, PageDamage> {
        Page::parse(number, self.run(number)?)
    }

    /// The bytes of page `number` and of the overflow pages its header claims, both inside the high-water mark.
    pub(crate) fn run(&self, number: PageNumber) -> Result<&[u8], PageDamage> {
        let damage = |what| PageDamage::new(number, what);
        let high_water = self.inner.meta.high_water.0;
        if number.0 < 2 || number.0 >= high_water {
            return Err(damage("is pointed to but lies outside the file's pages"));
        }
        let first = self.pages(number, 1)?;
        let header = PageHeader::decode(first).ok_or(damage("is shorter than its header"))?;
        if header.overflow == 0 {
            return Ok(first);
        }
        let pages = 1 + u64::from(header.overflow);
        if number.0 + pages > high_water {
            return Err(damage("overflows beyond the file's pages"));
        }
        self.pages(number, pages)
    }

    /// `count` pages from `first` on, whatever they hold.
    pub(crate) fn pages(&self, first: PageNumber, count: u64) -> Result<&[u8], PageDamage> {
        self.inner
            .source
            .pages(first, count, self.inner.page_bytes)
            .ok_or(PageDamage::new(first, "lies beyond the end of the file"))
    }

    /// The two meta pages of a copy of this state: this root, and the same one transaction earlier, as bbolt's own hot copy
    /// has them. Pages 2 to [`Snapshot::page_count`] of the tree file, read from the file while the snapshot is held,
    /// complete it. They are not to be read through the map: free pages are among them, and those may be written.
    pub fn backup_head(&self) -> Vec<u8> {
        let mut head = vec![0; 2 * self.page_bytes()];
        let older = Meta {
            txid: TxId(self.txid().0.wrapping_sub(1)),
            ..self.inner.meta
        };
        for (id, meta) in [self.inner.meta, older].iter().enumerate() {
            let page = &mut head[id * self.page_bytes()..];
            let header = PageHeader {
                id: PageNumber(id as u64),
                flags: FLAG_META,
                count: 0,
                overflow: 0,
            };
            page[..PAGE_HEADER_BYTES].copy_from_slice(&header.encode());
            page[PAGE_HEADER_BYTES..PAGE_HEADER_BYTES + META_BYTES].copy_from_slice(&meta.encode());
        }
        head
    }

    /// Brings pages into memory, so that reading them takes no page fault. Blocks: for helper threads.
    pub fn populate(&self, first: PageNumber, count: u64) -> io::Result<()> {
        let page = self.page_bytes() as u64;
        self.inner
            .source
            .populate(first.0.saturating_mul(page), count.saturating_mul(page))
    }

    /// Keeps pages in memory for as long as the file stays mapped.
    pub fn lock_in_memory(&self, first: PageNumber, count: u64) -> io::Result<()> {
        let page = self.page_bytes() as u64;
        self.inner
            .source
            .lock(first.0.saturating_mul(page), count.saturating_mul(page))
    }

    /// Whether reading these pages would need no disk now. A system call; the answer may go stale at once.
    pub fn is_resident(&self, first: PageNumber, count: u64) -> io::Result<bool> {
        let page = self.page_bytes() as u64;
        self.inner
            .source
            .is_resident(first.0.saturating_mul(page), count.saturating_mul(page))
    }
}

impl SnapshotWatch {
    /// True when the last clone is gone and all that its holders read has been read.
    pub(crate) fn is_released(&self) -> bool {
        if self.inner.strong_count() > 0 {
            return false;
        }
        // The last clone's drop was a release; this orders every read of its holder before our writes to the pages.
        std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
        true
    }
}

/// A key and its value.
pub type Record<'a> = (&'a [u8], &'a [u8]);

/// One bucket of a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct BucketRef<'a> {
    snapshot: &'a Snapshot,
    root: Root<'a>,
    sequence: u64,
}

#[derive(Debug, Clone, Copy)]
enum Root<'a> {
    Page(PageNumber),
    /// The whole bucket is one leaf inside its parent's value.
    Inline(Page<'a>),
}

impl<'a> BucketRef<'a> {
    /// Reads a bucket's header out of the value of `element`, which lies in page `holder`.
    pub(crate) fn decode(
        snapshot: &'a Snapshot,
        holder: PageNumber,
        value: &'a [u8],
    ) -> Result<BucketRef<'a>, PageDamage> {
        let header = BucketHeader::decode(value)
            .ok_or(PageDamage::new(holder, "holds a bucket without its header"))?;
        let root = if header.root.0 == 0 {
            Root::Inline(Page::parse_inline(holder, &value[BUCKET_BYTES..])?)
        } else {
            Root::Page(header.root)
        };
        Ok(BucketRef {
            snapshot,
            root,
            sequence: header.sequence,
        })
    }

    /// bbolt's per-bucket counter; etcd leaves it 0.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The root page, unless the bucket is inline.
    pub fn root(&self) -> Option<PageNumber> {
        match self.root {
            Root::Page(number) => Some(number),
            Root::Inline(_) => None,
        }
    }

    pub(crate) fn root_page(&self) -> Result<Page<'a>, PageDamage> {
        match self.root {
            Root::Page(number) => self.snapshot.page(number),
            Root::Inline(page) => Ok(page),
        }
    }

    /// The value of `key`; `None` if it is absent or names a nested bucket.
    pub fn get(&self, key: &[u8]) -> Result<Option<&'a [u8]>, PageDamage> {
        Ok(self
            .element(key)?
            .filter(|(_, e)| !e.is_bucket())
            .map(|(_, e)| e.value))
    }

    /// The bucket nested under `name`.
    pub fn nested(&self, name: &[u8]) -> Result<Option<BucketRef<'a>>, PageDamage> {
        match self.element(name)? {
            Some((holder, e)) if e.is_bucket() => {
                BucketRef::decode(self.snapshot, holder, e.value).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The element of `key` and the page it lies in.
    pub(crate) fn element(
        &self,
        key: &[u8],
    ) -> Result<Option<(PageNumber, LeafElement<'a>)>, PageDamage> {
        let mut page = self.root_page()?;
        for _ in 0..DEPTH_MAX {
            if page.is_leaf() {
                let (slot, exact) = page.lower_bound(key)?;
                return match exact {
                    true => Ok(Some((page.number(), page.leaf_element(slot)?))),
                    false => Ok(None),
                };
            }
            let child = page.branch_element(page.child_slot(key)?)?.child;
            page = self.snapshot.page(child)?;
        }
        Err(PageDamage::new(
            page.number(),
            "lies deeper than any tree can be",
        ))
    }

    /// A cursor whose first [`next`](Cursor::next) gives the first key not below `from`.
    pub fn range(&self, from: &[u8]) -> Result<Cursor<'a>, PageDamage> {
        let mut cursor = Cursor::new(*self)?;
        cursor.seek(from)?;
        Ok(cursor)
    }

    /// A cursor over the whole bucket.
    pub fn iter(&self) -> Result<Cursor<'a>, PageDamage> {
        self.range(b"")
    }

    /// The greatest key and its value, nested buckets passed over.
    pub fn last(&self) -> Result<Option<Record<'a>>, PageDamage> {
        let mut page = self.root_page()?;
        let mut depth = 0;
        while !page.is_leaf() {
            if depth == DEPTH_MAX {
                return Err(PageDamage::new(
                    page.number(),
                    "lies deeper than any tree can be",
                ));
            }
            page = self
                .snapshot
                .page(page.branch_element(page.count() - 1)?.child)?;
            depth += 1;
        }
        for slot in (0..page.count()).rev() {
            let element = page.leaf_element(slot)?;
            if !element.is_bucket() {
                return Ok(Some((element.key, element.value)));
            }
        }
        // The last leaf holds nested buckets only. etcd nests none, so the slow way is good enough.
        let mut cursor = self.iter()?;
        let mut last = None;
        while let Some(record) = cursor.next()? {
            last = Some(record);
        }
        Ok(last)
    }
}

/// Walks a bucket's keys upwards. What it returns borrows from the snapshot, not from the cursor.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bucket: BucketRef<'a>,
    /// The branches above the leaf; `slot` is the child taken. A fixed array, so that a cursor allocates nothing.
    path: [Level<'a>; DEPTH_MAX],
    depth: usize,
    leaf: Level<'a>,
}

#[derive(Debug, Clone, Copy)]
struct Level<'a> {
    page: Page<'a>,
    /// In a branch the child taken, in the leaf the element that comes next.
    slot: usize,
}

impl<'a> Cursor<'a> {
    fn new(bucket: BucketRef<'a>) -> Result<Cursor<'a>, PageDamage> {
        let level = Level {
            page: bucket.root_page()?,
            slot: 0,
        };
        Ok(Cursor {
            bucket,
            path: [level; DEPTH_MAX],
            depth: 0,
            leaf: level,
        })
    }

    /// Moves so that the next element is the first whose key is not below `key`.
    pub fn seek(&mut self, key: &[u8]) -> Result<(), PageDamage> {
        self.depth = 0;
        let page = self.bucket.root_page()?;
        self.descend(page, Some(key))
    }

    /// The next key and value, or `None` at the end. Nested buckets are passed over.
    #[expect(
        clippy::should_implement_trait,
        reason = "a damaged page ends the walk with an error"
    )]
    pub fn next(&mut self) -> Result<Option<Record<'a>>, PageDamage> {
        while let Some(element) = self.next_element()? {
            if !element.is_bucket() {
                return Ok(Some((element.key, element.value)));
            }
        }
        Ok(None)
    }

    /// The next element, nested buckets included.
    pub fn next_element(&mut self) -> Result<Option<LeafElement<'a>>, PageDamage> {
        while self.leaf.slot >= self.leaf.page.count() {
            if !self.next_leaf()? {
                return Ok(None);
            }
        }
        let element = self.leaf.page.leaf_element(self.leaf.slot)?;
        self.leaf.slot += 1;
        Ok(Some(element))
    }

    /// The page the next element lies in, unless that page is used up.
    pub fn page_number(&self) -> PageNumber {
        self.leaf.page.number()
    }

    /// The leaves that follow the current one under the same branch: what a long range will touch next, to be
    /// brought into memory ahead of it. Reads no leaf.
    pub fn upcoming_leaves(
        &self,
    ) -> impl Iterator<Item = Result<PageNumber, PageDamage>> + use<'a> {
        let level = self.depth.checked_sub(1).map(|above| self.path[above]);
        level.into_iter().flat_map(|Level { page, slot }| {
            (slot + 1..page.count()).map(move |s| page.branch_element(s).map(|e| e.child))
        })
    }

    /// Moves to the start of the following leaf; false when there is none.
    fn next_leaf(&mut self) -> Result<bool, PageDamage> {
        while let Some(above) = self.depth.checked_sub(1) {
            let level = &mut self.path[above];
            if level.slot + 1 < level.page.count() {
                level.slot += 1;
                let child = level.page.branch_element(level.slot)?.child;
                let page = self.bucket.snapshot.page(child)?;
                self.descend(page, None)?;
                return Ok(true);
            }
            self.depth = above;
        }
        // Stays at the end: the leaf is used up and no branch is left to go on from.
        Ok(false)
    }

    /// Goes down from `page` to a leaf, towards `key` or else leftmost.
    fn descend(&mut self, mut page: Page<'a>, key: Option<&[u8]>) -> Result<(), PageDamage> {
        while !page.is_leaf() {
            let slot = key.map_or(Ok(0), |key| page.child_slot(key))?;
            let Some(level) = self.path.get_mut(self.depth) else {
                return Err(PageDamage::new(
                    page.number(),
                    "lies deeper than any tree can be",
                ));
            };
            *level = Level { page, slot };
            self.depth += 1;
            page = self
                .bucket
                .snapshot
                .page(page.branch_element(slot)?.child)?;
        }
        let slot = key.map_or(Ok(0), |key| page.lower_bound(key).map(|(slot, _)| slot))?;
        self.leaf = Level { page, slot };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_cross_threads_and_the_writer_moves_to_one() {
        fn shared<T: Send + Sync>() {}
        fn sent<T: Send>() {}
        shared::<Snapshot>();
        shared::<BucketRef<'_>>();
        sent::<Cursor<'_>>();
        sent::<super::super::Tree>();
    }
}
