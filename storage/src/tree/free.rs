//! Which pages can be written: a bitmap with a summary tree over it, and the pages that wait to become free.
//!
//! Always true here
//! - A page is free in the map, or pending, or in a tree that some root on disk or some snapshot can reach; never two.
//! - Taking and giving back cost O(log pages); nothing here grows with the number of commits or scans the file.
//! - Taking finds the lowest place that is large enough, so files fill from the front and a commit's pages lie
//!   together where there is room.
//!
//! The summary tree holds, for each power-of-two stretch of the bitmap, the longest free run in it and those at its
//! two ends; one bit a page plus 3/8 of a bit of summary, 4 MB for a 100 GB file. Owned by the tree thread.

use std::collections::VecDeque;

use super::format::{PageNumber, TxId};

/// Contiguous pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Run {
    pub(crate) first: PageNumber,
    pub(crate) pages: u64,
}

/// Hands out pages: free ones first, then new ones at the high-water mark.
#[derive(Debug)]
pub(crate) struct Allocator {
    map: FreeMap,
    high_water: u64,
    /// Runs taken since the last `begin`, for giving them back.
    taken: Vec<Run>,
    begun_at: u64,
    pending: VecDeque<Pending>,
    pages_pending: u64,
}

/// Pages that a commit took out of the tree.
#[derive(Debug)]
struct Pending {
    /// That commit. States before it contain the pages.
    txid: TxId,
    runs: Vec<Run>,
}

impl Allocator {
    /// `used` says of every page below `high_water` whether it is in use.
    pub(crate) fn new(high_water: u64, mut used: impl FnMut(u64) -> bool) -> Allocator {
        let mut map = FreeMap::default();
        map.reserve(high_water);
        map.fill(high_water, |page| !used(page));
        Allocator {
            map,
            high_water,
            taken: Vec::new(),
            begun_at: high_water,
            pending: VecDeque::new(),
            pages_pending: 0,
        }
    }

    pub(crate) fn high_water(&self) -> PageNumber {
        PageNumber(self.high_water)
    }

    pub(crate) fn pages_free(&self) -> u64 {
        self.map.free
    }

    pub(crate) fn pages_pending(&self) -> u64 {
        self.pages_pending
    }

    pub(crate) fn is_free(&self, page: PageNumber) -> bool {
        page.0 < self.high_water && self.map.is_free(page.0)
    }

    /// Starts commit `txid`: pages become free that no root on disk and no snapshot can reach any more.
    ///
    /// The two roots on disk are `txid - 1` and `txid - 2`, and the second stays whole until this commit has replaced
    /// it, so that damage to the newest meta page costs one commit and not the file. `oldest_held` is the oldest
    /// state a reader holds.
    pub(crate) fn begin(&mut self, txid: TxId, oldest_held: TxId) {
        while let Some(pending) = self.pending.front() {
            if pending.txid.0 + 2 > txid.0 || oldest_held < pending.txid {
                break;
            }
            let pending = self.pending.pop_front().expect("front was there");
            for run in pending.runs {
                self.pages_pending -= run.pages;
                self.map.give(run);
            }
        }
        self.taken.clear();
        self.begun_at = self.high_water;
    }

    pub(crate) fn take(&mut self, pages: u64) -> Run {
        let first = self.map.take(pages).unwrap_or_else(|| {
            let first = self.high_water;
            self.high_water += pages;
            self.map.reserve(self.high_water);
            first
        });
        let run = Run {
            first: PageNumber(first),
            pages,
        };
        self.taken.push(run);
        run
    }

    /// Where [`Allocator::take`] would find room for so many pages.
    pub(crate) fn next_place(&self, pages: u64) -> u64 {
        self.map.find(pages).unwrap_or(self.high_water)
    }

    /// Free pages below `end`. Reads the bitmap up to there.
    pub(crate) fn pages_free_below(&self, end: u64) -> u64 {
        self.map.free_below(end.min(self.high_water))
    }

    /// The high-water mark if the free pages at the end were given up. No root on disk and no snapshot reaches them.
    pub(crate) fn high_water_at_least(&self) -> PageNumber {
        PageNumber(self.high_water - self.map.free_before(self.high_water))
    }

    /// Gives up the free pages from `to` on, after a commit that says so.
    pub(crate) fn lower(&mut self, to: PageNumber) {
        if to.0 < self.high_water {
            self.map.set(
                Run {
                    first: to,
                    pages: self.high_water - to.0,
                },
                false,
            );
            self.high_water = to.0;
            self.begun_at = to.0;
        }
    }

    /// Undoes every `take` since `begin`.
    pub(crate) fn roll_back(&mut self) {
        for run in self.taken.drain(..) {
            if run.first.0 < self.begun_at {
                self.map.give(run);
            }
        }
        self.high_water = self.begun_at;
    }

    /// The commit stands: the pages it no longer uses wait for their readers.
    pub(crate) fn finish(&mut self, txid: TxId, freed: Vec<Run>) {
        self.taken.clear();
        self.begun_at = self.high_water;
        if !freed.is_empty() {
            self.pages_pending += freed.iter().map(|run| run.pages).sum::<u64>();
            self.pending.push_back(Pending { txid, runs: freed });
        }
    }
}

const WORD: u64 = u64::BITS as u64;

/// The bitmap (a set bit is a free page) and its summary tree.
#[derive(Debug, Default)]
struct FreeMap {
    words: Vec<u64>,
    /// A complete binary tree: node 1 is the root, node `n` has children `2n` and `2n + 1`, and the last
    /// `words.len()` nodes (a power of two) stand for the words.
    summary: Vec<Summary>,
    free: u64,
}

/// Free runs of a stretch of pages, in pages.
#[derive(Debug, Clone, Copy, Default)]
struct Summary {
    prefix: u32,
    suffix: u32,
    best: u32,
}

impl Summary {
    fn of_word(word: u64) -> Summary {
        let mut best = 0;
        let mut rest = word;
        while rest != 0 {
            rest >>= rest.trailing_zeros();
            let run = rest.trailing_ones();
            best = best.max(run);
            rest = rest.checked_shr(run).unwrap_or(0);
        }
        Summary {
            prefix: word.trailing_ones(),
            suffix: word.leading_ones(),
            best,
        }
    }

    /// Two neighbours of `span` pages each.
    fn join(left: Summary, right: Summary, span: u32) -> Summary {
        Summary {
            prefix: if left.prefix == span {
                span + right.prefix
            } else {
                left.prefix
            },
            suffix: if right.suffix == span {
                span + left.suffix
            } else {
                right.suffix
            },
            best: left.best.max(right.best).max(left.suffix + right.prefix),
        }
    }
}

impl FreeMap {
    fn is_free(&self, page: u64) -> bool {
        self.words
            .get((page / WORD) as usize)
            .is_some_and(|w| w >> (page % WORD) & 1 == 1)
    }

    /// Makes room for `pages` pages; new ones are not free. Doubles, so the cost is constant on average.
    fn reserve(&mut self, pages: u64) {
        let need = pages.div_ceil(WORD) as usize;
        if need <= self.words.len() {
            return;
        }
        self.words.resize(need.next_power_of_two().max(64), 0);
        self.summarize();
    }

    fn fill(&mut self, pages: u64, mut free: impl FnMut(u64) -> bool) {
        for page in 0..pages {
            if free(page) {
                self.words[(page / WORD) as usize] |= 1 << (page % WORD);
                self.free += 1;
            }
        }
        self.summarize();
    }

    fn summarize(&mut self) {
        let leaves = self.words.len();
        self.summary.clear();
        self.summary.resize(2 * leaves, Summary::default());
        for (slot, word) in self.words.iter().enumerate() {
            self.summary[leaves + slot] = Summary::of_word(*word);
        }
        let mut span = WORD as u32;
        let mut level = leaves / 2;
        while level > 0 {
            for node in level..2 * level {
                self.summary[node] =
                    Summary::join(self.summary[2 * node], self.summary[2 * node + 1], span);
            }
            span *= 2;
            level /= 2;
        }
    }

    /// The lowest run of that many free pages, no longer free.
    fn take(&mut self, pages: u64) -> Option<u64> {
        let first = self.find(pages)?;
        let run = Run {
            first: PageNumber(first),
            pages,
        };
        self.set(run, false);
        Some(first)
    }

    /// Free pages below `end`.
    fn free_below(&self, end: u64) -> u64 {
        let (whole, bits) = ((end / WORD) as usize, end % WORD);
        let ones = |word: &u64| u64::from(word.count_ones());
        let below: u64 = self.words[..whole].iter().map(ones).sum();
        let rest = self.words.get(whole).map_or(0, |w| w & !(u64::MAX << bits));
        below + ones(&rest)
    }

    /// Length of the free run that ends right before `end`.
    fn free_before(&self, end: u64) -> u64 {
        let mut at = end;
        while at > 0 {
            let bits = (at - 1) % WORD + 1;
            let word = self.words[((at - 1) / WORD) as usize] << (WORD - bits);
            let run = u64::from(word.leading_ones()).min(bits);
            at -= run;
            if run < bits {
                break;
            }
        }
        end - at
    }

    /// Where the lowest run of that many free pages begins.
    fn find(&self, pages: u64) -> Option<u64> {
        let need = u32::try_from(pages).ok()?;
        if self.summary.get(1)?.best < need {
            return None;
        }
        let leaves = self.words.len();
        let mut node = 1;
        // First page of the stretch under `node`, and the length of that stretch.
        let (mut at, mut span) = (0, leaves as u64 * WORD);
        let first = loop {
            if node >= leaves {
                break at + u64::from(run_in_word(self.words[node - leaves], need));
            }
            let (left, right) = (self.summary[2 * node], self.summary[2 * node + 1]);
            span /= 2;
            if left.best >= need {
                node *= 2;
            } else if left.suffix + right.prefix >= need {
                break at + span - u64::from(left.suffix);
            } else {
                node = 2 * node + 1;
                at += span;
            }
        };
        Some(first)
    }

    fn give(&mut self, run: Run) {
        self.set(run, true);
    }

    /// Marks a run free or taken; it must have been the other.
    fn set(&mut self, run: Run, free: bool) {
        let end = run.first.0 + run.pages;
        let mut page = run.first.0;
        while page < end {
            let bit = page % WORD;
            let count = (WORD - bit).min(end - page);
            let mask = (u64::MAX >> (WORD - count)) << bit;
            let word = &mut self.words[(page / WORD) as usize];
            let was_free = *word & mask;
            assert!(
                was_free == if free { 0 } else { mask },
                "pages {page}..{} change hands twice",
                page + count
            );
            *word ^= mask;
            page += count;
        }
        if free {
            self.free += run.pages;
        } else {
            self.free -= run.pages;
        }
        let leaves = self.words.len();
        let (mut lo, mut hi) = ((run.first.0 / WORD) as usize, ((end - 1) / WORD) as usize);
        for slot in lo..=hi {
            self.summary[leaves + slot] = Summary::of_word(self.words[slot]);
        }
        (lo, hi) = (lo + leaves, hi + leaves);
        let mut span = WORD as u32;
        while lo > 1 {
            (lo, hi) = (lo / 2, hi / 2);
            for node in lo..=hi {
                self.summary[node] =
                    Summary::join(self.summary[2 * node], self.summary[2 * node + 1], span);
            }
            span *= 2;
        }
    }
}

/// The lowest position of `need` set bits in a row; the caller knows there is one.
fn run_in_word(word: u64, need: u32) -> u32 {
    let mut at = 0;
    let mut rest = word;
    loop {
        assert!(rest != 0, "summary promised a run of {need} in {word:#x}");
        let gap = rest.trailing_zeros();
        (rest, at) = (rest >> gap, at + gap);
        let run = rest.trailing_ones();
        if run >= need {
            return at;
        }
        (rest, at) = (rest >> run, at + run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lowest(free: &[bool], pages: usize) -> Option<usize> {
        (0..free.len()).find(|at| {
            free.get(*at..*at + pages)
                .is_some_and(|run| run.iter().all(|free| *free))
        })
    }

    proptest! {
        #[test]
        fn takes_the_lowest_run_that_is_large_enough(
            bits in proptest::collection::vec(any::<bool>(), 1..9000),
            sizes in proptest::collection::vec(prop_oneof![4 => 1usize..4, 1 => 1usize..300], 1..60),
        ) {
            let mut free = bits;
            let mut map = FreeMap::default();
            map.reserve(free.len() as u64);
            map.fill(free.len() as u64, |page| free[page as usize]);
            let mut taken = Vec::new();
            for (turn, pages) in sizes.into_iter().enumerate() {
                let found = map.take(pages as u64);
                prop_assert_eq!(found, lowest(&free, pages).map(|at| at as u64));
                if let Some(first) = found {
                    free[first as usize..first as usize + pages].fill(false);
                    taken.push(Run { first: PageNumber(first), pages: pages as u64 });
                }
                if turn % 3 == 2 && !taken.is_empty() {
                    let run = taken.swap_remove(turn % taken.len());
                    map.give(run);
                    free[run.first.0 as usize..(run.first.0 + run.pages) as usize].fill(true);
                }
                prop_assert_eq!(map.free, free.iter().filter(|f| **f).count() as u64);
                let end = free.len() * turn / 60;
                let below = &free[..end];
                prop_assert_eq!(map.free_below(end as u64), below.iter().filter(|f| **f).count() as u64);
                let before = below.iter().rev().take_while(|f| **f).count();
                prop_assert_eq!(map.free_before(end as u64), before as u64);
            }
        }
    }

    #[test]
    fn freed_pages_wait_for_readers_and_for_the_older_root() {
        let mut alloc = Allocator::new(10, |_| true);
        let run = Run {
            first: PageNumber(5),
            pages: 2,
        };
        alloc.begin(TxId(7), TxId(6));
        alloc.finish(TxId(7), vec![run]);
        // Root 6 is still on disk while commit 8 runs.
        alloc.begin(TxId(8), TxId(7));
        assert_eq!(alloc.pages_free(), 0);
        alloc.finish(TxId(8), vec![]);
        // A reader of state 6 keeps them.
        alloc.begin(TxId(9), TxId(6));
        assert_eq!(alloc.pages_free(), 0);
        alloc.begin(TxId(9), TxId(7));
        assert_eq!(alloc.pages_free(), 2);
        assert_eq!(alloc.take(2), run);
        assert_eq!(alloc.take(1).first, PageNumber(10));
        alloc.roll_back();
        assert_eq!(
            (alloc.high_water(), alloc.pages_free()),
            (PageNumber(10), 2)
        );
    }

    #[test]
    fn the_free_end_is_given_up_and_taken_again() {
        let mut alloc = Allocator::new(200, |page| page < 100 || page == 150);
        alloc.begin(TxId(5), TxId(4));
        assert_eq!(alloc.high_water_at_least(), PageNumber(151));
        assert_eq!(alloc.pages_free_below(120), 20);
        assert_eq!((alloc.next_place(50), alloc.next_place(51)), (100, 200));
        alloc.lower(PageNumber(151));
        assert_eq!(
            (alloc.high_water(), alloc.pages_free()),
            (PageNumber(151), 50)
        );
        assert_eq!(alloc.next_place(51), 151);
        assert_eq!(alloc.take(51).first, PageNumber(151));
        alloc.roll_back();
        assert_eq!(
            (alloc.high_water(), alloc.pages_free()),
            (PageNumber(151), 50)
        );
    }
}
