//! Defragmentation: which leaves a commit moves so that the file can be shortened.
//!
//! A [`Defragmentation`] is a place in the file and goes over it in key order, a bounded number of leaves with each commit. Leaves
//! (and branches) that lie behind what the file will need are moved: the allocator gives out the lowest free pages. Neighbours that fit
//! into fewer pages are packed on the way. When a pass is over, commits that change nothing let go of the pages that wait, the
//! high-water mark sinks and the file is cut ([`super::writer`]). Passes follow each other until one gains nothing.
//!
//! Always true here
//! - What is moved is chosen from the state the commit starts from, so concurrent changes need no care.
//! - A commit moves no more than goes into free pages in front: a pass never makes the file grow.
//! - What it chooses changes no record. A defragmentation that is dropped at any point leaves a file like any other.
//!
//! Values with overflow pages need free runs that are long enough. They go first in each pass; if none is found they stay, and the file
//! ends behind them. Stepped by the tree thread. Does no I/O, knows no clock.

use std::collections::BTreeMap;

use super::batch::{Action, Change};
use super::error::PageDamage;
use super::format::{DEPTH_MAX, PAGE_HEADER_BYTES, PageNumber};
use super::free::Allocator;
use super::pack::{cut, leaf_bytes};
use super::page::Page;
use super::snapshot::{BucketRef, Snapshot};

/// Leaves that are judged together, and packed together if that saves pages.
const GROUP_LEAVES: usize = 16;
/// Packing must save one page in so many, so that it comes to an end.
const PACK_SAVES: usize = 8;
/// Passes of one defragmentation; the second is the last that finds much.
const PASSES_MAX: u32 = 6;
/// Commits after which the pages that a pass left are free, unless a reader holds them.
const SETTLE_COMMITS: u32 = 4;
/// States that are older than so many commits are held by somebody who takes his time.
const HELD_COMMITS: u64 = 3;
/// Commits in a row that find no room, and nobody who holds it, end a pass: others change the file faster than pages come free.
const STARVED_COMMITS: u32 = 32;
/// With less free room than this nothing is moved: pages must come free first.
const ROOM_PAGES_MIN: u64 = 6;
/// Free pages that are left in front at least: with few of them each commit moves little.
const SLACK_PAGES_MIN: u64 = 8 * ROOM_PAGES_MIN;

/// A defragmentation under way.
#[derive(Debug)]
pub struct Defragmentation {
    /// Most pages that one commit moves.
    pages_max: u64,
    /// Most leaves that are looked at for one commit.
    leaves_max: u64,
    stage: Stage,
    /// Where the next commit goes on; the bucket of buckets has no name.
    bucket: Vec<u8>,
    key: Vec<u8>,
    passes: u32,
    /// Commits since this pass moved its last leaf.
    settles: u32,
    /// Commits in a row that found no room to move anything.
    starved: u32,
    /// Pages the file had room for at the last look between passes.
    file_pages: u64,
    /// High-water mark and pages in use when the pass began.
    began: (u64, u64),
    step: DefragStep,
}

/// What is done with the leaves that are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begin,
    /// Leaves with overflow pages are moved.
    Large,
    /// Everything is.
    All,
    /// Nothing is: pages come free.
    Settle,
}

/// How far a defragmentation is after a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefragStep {
    /// More commits are wanted, with changes or without.
    Working,
    /// A reader holds a state of the file, so that nothing can be gained now. Commit again later, or give up.
    Waiting,
    /// The file is as short as it becomes.
    Done,
}

/// What a commit knows when it starts.
pub(crate) struct Situation<'s> {
    pub(crate) alloc: &'s Allocator,
    /// How many commits ago the oldest state that a reader holds was made.
    pub(crate) held_commits: u64,
    /// Pages that the file has room for.
    pub(crate) file_pages: u64,
}

/// Leaves to be moved, by bucket, in key order; the bucket of buckets has no name.
#[derive(Debug, Default)]
pub(crate) struct Moves<'a> {
    pub(crate) buckets: BTreeMap<&'a [u8], Vec<Change<'a>>>,
}

impl Defragmentation {
    /// Begins one that moves at most `pages_max` pages with each commit, and looks at `leaves_max` leaves for it.
    pub fn new(pages_max: u64, leaves_max: u64) -> Defragmentation {
        assert!(pages_max > 0 && leaves_max > 0);
        Defragmentation {
            pages_max,
            leaves_max,
            stage: Stage::Begin,
            bucket: Vec::new(),
            key: Vec::new(),
            passes: 0,
            settles: 0,
            starved: 0,
            file_pages: 0,
            began: (0, 0),
            step: DefragStep::Working,
        }
    }

    /// What came of the last commit.
    pub fn step(&self) -> DefragStep {
        self.step
    }

    /// The file may be cut by any length now; before, only where that is worth it.
    pub(crate) fn is_settling(&self) -> bool {
        self.stage == Stage::Settle
    }

    /// What the commit that starts from `snapshot` moves.
    pub(crate) fn choose<'a>(
        &mut self,
        snapshot: &'a Snapshot,
        situation: &Situation<'_>,
    ) -> Result<Moves<'a>, PageDamage> {
        let alloc = situation.alloc;
        let high_water = alloc.high_water().0;
        let in_use = high_water - alloc.pages_free() - alloc.pages_pending();
        if self.stage == Stage::Begin {
            self.begin_pass((high_water, in_use));
        }
        // So many pages are rewritten at a time that two commits' worth can wait to come free.
        let slack = (in_use / 64).clamp(SLACK_PAGES_MIN, (3 * self.pages_max).max(SLACK_PAGES_MIN));
        let target = in_use + slack;
        let is_held = situation.held_commits > HELD_COMMITS;
        if self.stage == Stage::Settle {
            return Ok(self.settle(situation, in_use, target, is_held));
        }
        let room = alloc.pages_free_below(target) / 3;
        if room < ROOM_PAGES_MIN {
            if is_held {
                self.step = DefragStep::Waiting;
                return Ok(Moves::default());
            }
            self.step = DefragStep::Working;
            self.starved += 1;
            if self.starved == STARVED_COMMITS {
                self.end_pass();
            }
            return Ok(Moves::new_root());
        }
        self.step = DefragStep::Working;
        self.starved = 0;
        let mut walk = Walk {
            snapshot,
            alloc,
            target,
            capacity: snapshot.page_bytes() - PAGE_HEADER_BYTES,
            stage: self.stage,
            pages_left: room.min(self.pages_max),
            leaves_left: self.leaves_max,
            must_move: false,
            found: Vec::new(),
            rest: None,
        };
        let mut moves = Moves::default();
        if self.bucket.is_empty() {
            let is_all = walk.bucket(snapshot.root_bucket(), &self.key)?;
            moves.put(b"", std::mem::take(&mut walk.found));
            if !is_all {
                self.rest_at(b"", walk.rest);
                return Ok(moves);
            }
        }
        let mut names = snapshot.root_bucket().range(&self.bucket)?;
        while let Some(element) = names.next_element()? {
            if !element.is_bucket() {
                continue;
            }
            let from = match element.key == self.bucket {
                true => std::mem::take(&mut self.key),
                false => Vec::new(),
            };
            let bucket = BucketRef::decode(snapshot, names.page_number(), element.value)?;
            let is_all = walk.bucket(bucket, &from)?;
            moves.put(element.key, std::mem::take(&mut walk.found));
            if !is_all {
                self.rest_at(element.key, walk.rest);
                return Ok(moves);
            }
        }
        match self.stage {
            Stage::Large => {
                self.rest_at(b"", None);
                self.stage = Stage::All;
            }
            _ => self.end_pass(),
        }
        Ok(moves)
    }

    fn begin_pass(&mut self, now: (u64, u64)) {
        self.passes += 1;
        self.began = now;
        self.rest_at(b"", None);
        self.stage = Stage::Large;
    }

    fn end_pass(&mut self) {
        self.stage = Stage::Settle;
        self.settles = 0;
        self.starved = 0;
        self.file_pages = u64::MAX;
    }

    fn rest_at(&mut self, bucket: &[u8], key: Option<&[u8]>) {
        self.bucket = bucket.to_vec();
        self.key = key.unwrap_or_default().to_vec();
    }

    /// Between two passes, and at the end.
    fn settle<'a>(
        &mut self,
        situation: &Situation<'_>,
        in_use: u64,
        target: u64,
        is_held: bool,
    ) -> Moves<'a> {
        let alloc = situation.alloc;
        let high_water = alloc.high_water().0;
        let is_cut = situation.file_pages <= high_water + ROOM_PAGES_MIN;
        // What the commits that change nothing free themselves is little.
        let is_settled = is_cut && alloc.pages_pending() < 4 * ROOM_PAGES_MIN;
        if self.settles == SETTLE_COMMITS {
            if is_held && !is_settled {
                self.step = DefragStep::Waiting;
                return Moves::default();
            }
            if self.step == DefragStep::Waiting {
                self.settles = 0;
            }
        }
        self.step = DefragStep::Working;
        let is_shorter = situation.file_pages < self.file_pages;
        self.file_pages = situation.file_pages;
        if self.settles < SETTLE_COMMITS || !is_cut && is_shorter {
            self.settles = (self.settles + 1).min(SETTLE_COMMITS);
            return Moves::new_root();
        }
        let (high_water_before, in_use_before) = self.began;
        let gained = high_water_before
            .saturating_sub(high_water)
            .max(in_use_before.saturating_sub(in_use));
        let is_worth_more = high_water > target && gained > high_water_before / 64;
        if !is_worth_more || self.passes == PASSES_MAX {
            self.step = DefragStep::Done;
            return Moves::default();
        }
        self.stage = Stage::Begin;
        Moves::default()
    }
}

impl<'a> Moves<'a> {
    /// A commit that writes a new root and nothing else, so that pages come free.
    fn new_root() -> Moves<'a> {
        let mut moves = Moves::default();
        let (key, action) = (b"".as_slice(), Action::Move);
        moves.put(b"", vec![Change { key, action }]);
        moves
    }

    fn put(&mut self, bucket: &'a [u8], changes: Vec<Change<'a>>) {
        if !changes.is_empty() {
            self.buckets.insert(bucket, changes);
        }
    }

    /// The changes of a bucket together with what is moved in it, in key order.
    pub(crate) fn merge(&self, bucket: &[u8], changes: &[Change<'a>]) -> Option<Vec<Change<'a>>> {
        let moves = self.buckets.get(bucket)?;
        let mut merged = Vec::with_capacity(changes.len() + moves.len());
        let mut changes = changes.iter().peekable();
        for moved in moves {
            while let Some(change) = changes.next_if(|change| change.key < moved.key) {
                merged.push(*change);
            }
            // A change of the same key may change nothing, and the leaf stays this time.
            if changes.peek().is_none_or(|change| change.key != moved.key) {
                merged.push(*moved);
            }
        }
        merged.extend(changes);
        Some(merged)
    }
}

/// Looks for leaves to move.
struct Walk<'w, 'a> {
    snapshot: &'a Snapshot,
    alloc: &'w Allocator,
    /// The first page that the file should do without.
    target: u64,
    capacity: usize,
    stage: Stage,
    pages_left: u64,
    leaves_left: u64,
    /// A branch above must move, which it does with the next leaf below it.
    must_move: bool,
    found: Vec<Change<'a>>,
    /// The key to go on at.
    rest: Option<&'a [u8]>,
}

impl<'a> Walk<'_, 'a> {
    /// Goes over a bucket from `from` on; false if the bounds ended that before its end.
    fn bucket(&mut self, bucket: BucketRef<'a>, from: &[u8]) -> Result<bool, PageDamage> {
        self.rest = None;
        self.must_move = false;
        // An inline bucket moves with the leaf that it lies in.
        if bucket.root().is_none() {
            return Ok(true);
        }
        let root = bucket.root_page()?;
        match root.is_leaf() {
            true => self.group(&[root]),
            false => self.branch(root, from, 0),
        }
    }

    fn branch(&mut self, page: Page<'a>, from: &[u8], depth: usize) -> Result<bool, PageDamage> {
        if depth >= DEPTH_MAX {
            let what = "lies deeper than any tree can be";
            return Err(PageDamage::new(page.number(), what));
        }
        self.must_move |= self.stage == Stage::All && self.moves_down(&page);
        let mut group = Vec::with_capacity(GROUP_LEAVES);
        let first = page.child_slot(from)?;
        for slot in first..page.count() {
            let child = self.snapshot.page(page.branch_element(slot)?.child)?;
            if child.is_leaf() {
                group.push(child);
                if group.len() < GROUP_LEAVES && slot + 1 < page.count() {
                    continue;
                }
            }
            if !self.group(&group)? {
                return Ok(false);
            }
            group.clear();
            let from = if slot == first { from } else { b"" };
            if !child.is_leaf() && !self.branch(child, from, depth + 1)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Neighbours under one branch.
    fn group(&mut self, leaves: &[Page<'a>]) -> Result<bool, PageDamage> {
        // An empty leaf is the root of an empty bucket.
        let Some(first) = leaves.first() else {
            return Ok(true);
        };
        if self.pages_left == 0 || self.leaves_left == 0 {
            self.rest = match first.count() {
                0 => Some(b""),
                _ => Some(first.key(0)?),
            };
            return Ok(false);
        }
        self.leaves_left = self.leaves_left.saturating_sub(leaves.len() as u64);
        let found = self.found.len();
        let page_bytes = self.snapshot.page_bytes();
        let is_single = |leaf: &Page<'_>| leaf.bytes().len() == page_bytes;
        for part in leaves.chunk_by(|a, b| is_single(a) && is_single(b)) {
            if self.stage == Stage::All && self.are_packed(part)? {
                for leaf in part {
                    self.take(leaf, Action::Pack)?;
                }
                continue;
            }
            for leaf in part {
                let is_wanted = match self.stage {
                    Stage::All => true,
                    _ => self.pages(leaf) > 1,
                };
                if is_wanted && self.moves_down(leaf) || self.must_move {
                    self.take(leaf, Action::Move)?;
                }
            }
        }
        if self.found.len() > found {
            // The branch above.
            self.pages_left = self.pages_left.saturating_sub(1);
        }
        Ok(true)
    }

    fn take(&mut self, leaf: &Page<'a>, action: Action<'a>) -> Result<(), PageDamage> {
        let key = match leaf.count() {
            0 => b"",
            _ => leaf.key(0)?,
        };
        self.found.push(Change { key, action });
        self.pages_left = self.pages_left.saturating_sub(self.pages(leaf));
        self.must_move = false;
        Ok(())
    }

    fn pages(&self, page: &Page<'_>) -> u64 {
        (page.bytes().len() / self.snapshot.page_bytes()) as u64
    }

    /// Lies where the file should end, and there is room in front.
    fn moves_down(&self, page: &Page<'_>) -> bool {
        let (PageNumber(at), pages) = (page.number(), self.pages(page));
        at + pages > self.target && self.alloc.next_place(pages) < at
    }

    /// Whether leaves of one page each go into fewer.
    fn are_packed(&self, leaves: &[Page<'a>]) -> Result<bool, PageDamage> {
        let count = leaves.len();
        if count < 2 {
            return Ok(false);
        }
        let mut sizes = Vec::new();
        for leaf in leaves {
            for slot in 0..leaf.count() {
                sizes.push(leaf_bytes(&leaf.leaf_element(slot)?));
            }
        }
        let packed = cut(sizes.iter().copied(), self.capacity, false, 1).len();
        Ok(packed + (count / PACK_SAVES).max(1) <= count)
    }
}
