//! Compares pages with their sums again, a few at a time, while the tree is in service.
//!
//! A [`Scrubber`] is a position; each step checks the next pages that are not free and stops at its bound. Stepped by
//! the tree thread between commits, which is why it needs no lock. It reads what readers read, the mapped pages: a
//! page that sits in memory is checked in memory, and one that does not is brought in from the disk.

use super::error::{PageDamage, TreeError};
use super::format::PageNumber;
use super::writer::Tree;

/// How far a round of scrubbing is.
#[derive(Debug, Clone, Copy)]
pub struct Scrubber {
    next: PageNumber,
}

impl Default for Scrubber {
    fn default() -> Scrubber {
        Scrubber::new()
    }
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubStep {
    /// Pages compared in this step.
    pub pages_checked: u64,
    /// The round is complete; the next step begins another.
    pub round_done: bool,
}

impl Scrubber {
    /// Begins a round at the first page.
    pub fn new() -> Scrubber {
        Scrubber {
            next: PageNumber(2),
        }
    }

    /// Looks at the next `pages_max` pages. After an error the next step goes on behind the damaged page.
    pub fn step(&mut self, tree: &Tree, pages_max: u64) -> Result<ScrubStep, TreeError> {
        let end = tree.current().page_count();
        let mut pages_checked = 0;
        for _ in 0..pages_max {
            if self.next.0 >= end {
                break;
            }
            let page = self.next;
            self.next.0 += 1;
            if tree.verify_page(page)? {
                pages_checked += 1;
            }
        }
        let round_done = self.next.0 >= end;
        if round_done {
            *self = Scrubber::new();
        }
        Ok(ScrubStep {
            pages_checked,
            round_done,
        })
    }
}

pub(crate) fn mismatch(page: PageNumber) -> PageDamage {
    PageDamage::new(page, "does not match its checksum")
}
