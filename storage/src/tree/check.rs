//! Accounts for every page of a snapshot, as bbolt's own check does: each page below the high-water mark is exactly one
//! of meta, freelist, reachable once, or free; pages carry their numbers, keys are in order and inside their bounds.
//!
//! Run by tests after every crash and by the offline tools. Reads every page in use. It does not check page sums.

use super::error::PageDamage;
use super::format::{NO_FREELIST, PageNumber};
use super::snapshot::Snapshot;
use super::walk::{Counts, walk};

/// Problems a report lists; a badly damaged file has more, and listing them helps nobody.
pub const PROBLEMS_MAX: usize = 100;

/// The account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    pub pages: u64,
    pub pages_used: u64,
    pub pages_free: u64,
    /// Pages of the stored freelist; 0 when the file stores none.
    pub pages_freelist: u64,
    pub counts: Counts,
    /// At most [`PROBLEMS_MAX`]; none means that the file is sound.
    pub problems: Vec<PageDamage>,
}

impl CheckReport {
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Checks the state a snapshot holds.
pub fn check(snapshot: &Snapshot) -> CheckReport {
    let mut walked = walk(snapshot, PROBLEMS_MAX, &mut |_, _| Ok(()));
    let pages = snapshot.page_count();
    let pages_used = walked.used.len();
    let mut problems = std::mem::take(&mut walked.problems);
    problems.extend(walked.freelist_damage);
    let mut note = |page, what| {
        if problems.len() < PROBLEMS_MAX {
            problems.push(PageDamage::new(PageNumber(page), what));
        }
    };
    if let Some(listed) = &walked.freelist {
        let mut seen = super::walk::PageSet::new(pages);
        for &page in listed {
            if page < 2 || page >= pages {
                note(page, "is on the freelist but outside the file's pages");
            } else if walked.used.contains(page) {
                note(page, "is on the freelist and in use");
            } else if !seen.insert(page) {
                note(page, "is on the freelist twice");
            }
        }
        for page in 2..pages {
            if !walked.used.contains(page) && !seen.contains(page) {
                note(page, "is neither in use nor on the freelist");
            }
        }
    } else {
        debug_assert!(snapshot.meta().freelist == NO_FREELIST || !problems.is_empty());
    }
    CheckReport {
        pages,
        pages_used,
        pages_free: pages - pages_used.min(pages),
        pages_freelist: walked.freelist_pages,
        counts: walked.counts,
        problems,
    }
}
