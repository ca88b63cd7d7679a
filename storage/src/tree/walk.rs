//! Walks every page a snapshot can reach, once, and checks what can be checked: structure, key order, that no page is
//! reached twice. Opening and [`super::check`] both stand on it.
//!
//! Always true here
//! - The walk ends on any bytes: a page is entered once, depth is bounded, and problems stop it at a bound.
//! - A page is offered to the visitor before anything in it but its header is believed.
//!
//! Called by the tree thread or an offline tool. Does no I/O of its own and knows no page sums.

use super::error::PageDamage;
use super::format::{DEPTH_MAX, FLAG_FREELIST, NO_FREELIST, PageHeader, PageNumber, get_u64};
use super::page::Page;
use super::snapshot::{BucketRef, Snapshot};

/// One bit a page.
#[derive(Debug, Clone)]
pub(crate) struct PageSet {
    words: Vec<u64>,
}

impl PageSet {
    pub(crate) fn new(pages: u64) -> PageSet {
        PageSet {
            words: vec![0; pages.div_ceil(64) as usize],
        }
    }

    pub(crate) fn contains(&self, page: u64) -> bool {
        self.words
            .get((page / 64) as usize)
            .is_some_and(|w| w >> (page % 64) & 1 == 1)
    }

    /// False if it was there already. The page must be below the size given at the start.
    pub(crate) fn insert(&mut self, page: u64) -> bool {
        let word = &mut self.words[(page / 64) as usize];
        let bit = 1 << (page % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    pub(crate) fn len(&self) -> u64 {
        self.words.iter().map(|w| u64::from(w.count_ones())).sum()
    }
}

/// What a walk found.
#[derive(Debug)]
pub(crate) struct Walked {
    /// Meta pages, the freelist page and everything reachable, overflow pages included.
    pub(crate) used: PageSet,
    /// The ids on the stored freelist, if there is one and it can be read.
    pub(crate) freelist: Option<Vec<u64>>,
    /// Pages of it that are marked used.
    pub(crate) freelist_pages: u64,
    /// What is wrong with it. Kept apart from `problems`: what is free follows from what is in use.
    pub(crate) freelist_damage: Option<PageDamage>,
    pub(crate) counts: Counts,
    /// The first problems, at most as many as asked for.
    pub(crate) problems: Vec<PageDamage>,
}

/// Pages and elements by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub buckets: u64,
    pub inline_buckets: u64,
    pub keys: u64,
    pub leaf_pages: u64,
    pub branch_pages: u64,
    pub overflow_pages: u64,
    /// Levels of the deepest tree.
    pub depth: u64,
}

/// Sees the bytes of each page in use, page by page, before they are believed.
pub(crate) type Visitor<'v> = &'v mut dyn FnMut(PageNumber, &[u8]) -> Result<(), PageDamage>;

/// Walks `snapshot`, noting at most `problems_max` problems.
pub(crate) fn walk(snapshot: &Snapshot, problems_max: usize, visit: Visitor<'_>) -> Walked {
    let mut used = PageSet::new(snapshot.page_count().max(2));
    used.insert(0);
    used.insert(1);
    let walked = Walked {
        used,
        freelist: None,
        freelist_pages: 0,
        freelist_damage: None,
        counts: Counts::default(),
        problems: Vec::new(),
    };
    let mut walker = Walker {
        snapshot,
        problems_max,
        visit,
        walked,
    };
    walker.freelist();
    walker.bucket(snapshot.root_bucket(), 0);
    walker.walked
}

struct Walker<'w, 'v> {
    snapshot: &'w Snapshot,
    problems_max: usize,
    visit: Visitor<'v>,
    walked: Walked,
}

/// Where keys of a subtree must lie: from `lower` on, below `upper`.
#[derive(Clone, Copy)]
struct Bounds<'a> {
    lower: Option<&'a [u8]>,
    upper: Option<&'a [u8]>,
}

impl<'w> Walker<'w, '_> {
    fn is_full(&self) -> bool {
        self.walked.problems.len() >= self.problems_max
    }

    fn note(&mut self, damage: PageDamage) {
        if !self.is_full() {
            self.walked.problems.push(damage);
        }
    }

    /// Claims a run as used and shows it to the visitor.
    fn claim(&mut self, number: PageNumber, bytes: &[u8]) -> Result<(), PageDamage> {
        let page_bytes = self.snapshot.page_bytes();
        for (slot, bytes) in bytes.chunks(page_bytes).enumerate() {
            let page = PageNumber(number.0 + slot as u64);
            if !self.walked.used.insert(page.0) {
                return Err(PageDamage::new(page, "is reached twice"));
            }
            (self.visit)(page, bytes)?;
        }
        self.walked.counts.overflow_pages += (bytes.len() / page_bytes) as u64 - 1;
        Ok(())
    }

    fn freelist(&mut self) {
        let id = self.snapshot.meta().freelist;
        if id == NO_FREELIST {
            return;
        }
        let number = PageNumber(id);
        let ids = self.snapshot.run(number).and_then(|bytes| {
            self.claim(number, bytes)?;
            self.walked.freelist_pages = (bytes.len() / self.snapshot.page_bytes()) as u64;
            read_freelist(number, bytes)
        });
        match ids {
            Ok(ids) => self.walked.freelist = Some(ids),
            Err(damage) => self.walked.freelist_damage = Some(damage),
        }
    }

    fn bucket(&mut self, bucket: BucketRef<'w>, nesting: usize) {
        let Some(number) = bucket.root() else {
            self.walked.counts.inline_buckets += 1;
            let leaf = bucket.root_page();
            let checked = leaf.and_then(|leaf| {
                self.leaf(
                    leaf,
                    Bounds {
                        lower: None,
                        upper: None,
                    },
                    nesting,
                )
            });
            if let Err(damage) = checked {
                self.note(damage);
            }
            return;
        };
        let bounds = Bounds {
            lower: None,
            upper: None,
        };
        if let Err(damage) = self.subtree(number, bounds, 0, nesting) {
            self.note(damage);
        }
    }

    /// A problem in a page ends the walk of that page; its siblings are still seen.
    fn subtree(
        &mut self,
        number: PageNumber,
        bounds: Bounds<'w>,
        depth: usize,
        nesting: usize,
    ) -> Result<(), PageDamage> {
        if depth >= DEPTH_MAX {
            return Err(PageDamage::new(number, "lies deeper than any tree can be"));
        }
        self.claim(number, self.snapshot.run(number)?)?;
        let page = self.snapshot.page(number)?;
        self.walked.counts.depth = self.walked.counts.depth.max(depth as u64 + 1);
        if page.is_leaf() {
            if page.count() == 0 && depth > 0 {
                return Err(PageDamage::new(number, "is an empty leaf below a branch"));
            }
            self.walked.counts.leaf_pages += 1;
            return self.leaf(page, bounds, nesting);
        }
        self.walked.counts.branch_pages += 1;
        let mut element = page.branch_element(0)?;
        let mut before = bounds.lower;
        for slot in 0..page.count() {
            check_order(number, slot, before, element.key, bounds)?;
            let next = (slot + 1 < page.count()).then(|| page.branch_element(slot + 1));
            let next = next.transpose()?;
            let upper = next.map_or(bounds.upper, |next| Some(next.key));
            let inner = Bounds {
                lower: Some(element.key),
                upper,
            };
            if let Err(damage) = self.subtree(element.child, inner, depth + 1, nesting) {
                self.note(damage);
            }
            if self.is_full() {
                return Ok(());
            }
            before = Some(element.key);
            if let Some(next) = next {
                element = next;
            }
        }
        Ok(())
    }

    fn leaf(
        &mut self,
        page: Page<'w>,
        bounds: Bounds<'w>,
        nesting: usize,
    ) -> Result<(), PageDamage> {
        let damage = |what| PageDamage::new(page.number(), what);
        let mut before = bounds.lower;
        for slot in 0..page.count() {
            let element = page.leaf_element(slot)?;
            if element.key.is_empty() {
                return Err(damage("holds an empty key"));
            }
            if element.flags > 1 {
                return Err(damage("holds an element of an unknown kind"));
            }
            check_order(page.number(), slot, before, element.key, bounds)?;
            before = Some(element.key);
            if !element.is_bucket() {
                self.walked.counts.keys += 1;
                continue;
            }
            if nesting >= DEPTH_MAX {
                return Err(damage("nests buckets deeper than we follow"));
            }
            self.walked.counts.buckets += 1;
            match BucketRef::decode(self.snapshot, page.number(), element.value) {
                Ok(bucket) => self.bucket(bucket, nesting + 1),
                Err(damage) => self.note(damage),
            }
            if self.is_full() {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn check_order(
    number: PageNumber,
    slot: usize,
    before: Option<&[u8]>,
    key: &[u8],
    bounds: Bounds<'_>,
) -> Result<(), PageDamage> {
    let damage = |what| Err(PageDamage::new(number, what));
    match before {
        Some(before) if slot == 0 && key < before => {
            return damage("holds a key below its parent's");
        }
        Some(before) if slot > 0 && key <= before => return damage("holds keys out of order"),
        _ => {}
    }
    if bounds.upper.is_some_and(|upper| key >= upper) {
        return damage("holds a key that belongs to the next page");
    }
    Ok(())
}

/// The ids on a freelist page.
fn read_freelist(number: PageNumber, bytes: &[u8]) -> Result<Vec<u64>, PageDamage> {
    let damage = |what| PageDamage::new(number, what);
    let header = PageHeader::decode(bytes).ok_or(damage("is shorter than its header"))?;
    if header.id != number {
        return Err(damage("carries another page's number"));
    }
    if header.flags != FLAG_FREELIST {
        return Err(damage("is not a freelist"));
    }
    // A count that does not fit 16 bits is stored as all ones, with the real one in the first slot.
    let (first, count) = match header.count {
        u16::MAX => (
            1,
            get_u64(bytes, 16).ok_or(damage("is shorter than its freelist"))?,
        ),
        count => (0, u64::from(count)),
    };
    let room = (bytes.len() / 8 - 2 - first) as u64;
    if count > room {
        return Err(damage("counts more free pages than it has room for"));
    }
    (0..count as usize)
        .map(|slot| get_u64(bytes, 16 + 8 * (first + slot)))
        .collect::<Option<Vec<u64>>>()
        .ok_or(damage("is shorter than its freelist"))
}
