//! Elements into pages: where to cut them, and their bytes.
//!
//! Always true here: a built page is bbolt's layout to the byte, zero behind its last element, and lies in pages the
//! allocator gave out for it. Called by [`super::edit`] inside a commit; does no I/O.

use super::format::{
    ELEMENT_BYTES, ELEMENTS_MAX, FLAG_BRANCH, FLAG_LEAF, PAGE_HEADER_BYTES, PageHeader, PageNumber,
};
use super::free::{Allocator, Run};
use super::page::{BranchElement, LeafElement, Page};

/// How full pages are made, in tenths, when there is more to come behind them.
const FILL: usize = 9;
/// The pages a commit has built, and those it no longer needs.
#[derive(Debug)]
pub(crate) struct Output<'o> {
    pub(crate) alloc: &'o mut Allocator,
    /// Bytes of all built pages, one run after the other.
    pub(crate) bytes: Vec<u8>,
    pub(crate) built: Vec<Built>,
    pub(crate) freed: Vec<Run>,
    page_bytes: usize,
}

/// A built run and where in [`Output::bytes`] it lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Built {
    pub(crate) run: Run,
    pub(crate) at: usize,
}

impl<'o> Output<'o> {
    /// `bytes` is an empty buffer to use again.
    pub(crate) fn new(
        alloc: &'o mut Allocator,
        mut bytes: Vec<u8>,
        page_bytes: usize,
    ) -> Output<'o> {
        bytes.clear();
        Output {
            alloc,
            bytes,
            built: Vec::new(),
            freed: Vec::new(),
            page_bytes,
        }
    }

    /// Takes pages for `data` bytes of elements behind a header and hands out their zeroed bytes.
    fn build(&mut self, flags: u16, count: usize, data: usize) -> (PageNumber, &mut [u8]) {
        debug_assert!(count <= ELEMENTS_MAX);
        let pages = (PAGE_HEADER_BYTES + data).div_ceil(self.page_bytes);
        let run = self.alloc.take(pages as u64);
        let at = self.bytes.len();
        self.bytes.resize(at + pages * self.page_bytes, 0);
        self.built.push(Built { run, at });
        let header = PageHeader {
            id: run.first,
            flags,
            count: count as u16,
            overflow: (pages - 1) as u32,
        };
        let bytes = &mut self.bytes[at..];
        bytes[..PAGE_HEADER_BYTES].copy_from_slice(&header.encode());
        (run.first, bytes)
    }

    pub(crate) fn free(&mut self, page: &Page<'_>) {
        let pages = (page.bytes().len() / self.page_bytes) as u64;
        self.freed.push(Run {
            first: page.number(),
            pages,
        });
    }

    pub(crate) fn capacity(&self) -> usize {
        self.page_bytes - PAGE_HEADER_BYTES
    }

    pub(crate) fn write_leaf(&mut self, elements: &[LeafElement<'_>]) -> PageNumber {
        let data = elements.iter().map(leaf_bytes).sum();
        let (page, bytes) = self.build(FLAG_LEAF, elements.len(), data);
        let mut data_at = PAGE_HEADER_BYTES + elements.len() * ELEMENT_BYTES;
        for (slot, element) in elements.iter().enumerate() {
            let at = PAGE_HEADER_BYTES + slot * ELEMENT_BYTES;
            put_u32(bytes, at, element.flags);
            put_u32(bytes, at + 4, (data_at - at) as u32);
            put_u32(bytes, at + 8, element.key.len() as u32);
            put_u32(bytes, at + 12, element.value.len() as u32);
            for part in [element.key, element.value] {
                bytes[data_at..data_at + part.len()].copy_from_slice(part);
                data_at += part.len();
            }
        }
        page
    }

    pub(crate) fn write_branch(&mut self, elements: &[BranchElement<'_>]) -> PageNumber {
        let data = elements.iter().map(branch_bytes).sum();
        let (page, bytes) = self.build(FLAG_BRANCH, elements.len(), data);
        let mut data_at = PAGE_HEADER_BYTES + elements.len() * ELEMENT_BYTES;
        for (slot, element) in elements.iter().enumerate() {
            let at = PAGE_HEADER_BYTES + slot * ELEMENT_BYTES;
            put_u32(bytes, at, (data_at - at) as u32);
            put_u32(bytes, at + 4, element.key.len() as u32);
            bytes[at + 8..at + 16].copy_from_slice(&element.child.0.to_le_bytes());
            bytes[data_at..data_at + element.key.len()].copy_from_slice(element.key);
            data_at += element.key.len();
        }
        page
    }
}

pub(crate) fn leaf_bytes(element: &LeafElement<'_>) -> usize {
    ELEMENT_BYTES + element.key.len() + element.value.len()
}

pub(crate) fn branch_bytes(element: &BranchElement<'_>) -> usize {
    ELEMENT_BYTES + element.key.len()
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Where to cut elements of these sizes: the end of each part. A part larger than `capacity` gets overflow pages; that
/// happens only where it has no more than `least` elements. No elements are one part.
pub(crate) fn cut(
    sizes: impl Iterator<Item = usize> + Clone,
    capacity: usize,
    at_right_edge: bool,
    least: usize,
) -> Vec<usize> {
    let (count, total) = sizes
        .clone()
        .fold((0, 0), |(n, sum), size| (n + 1, sum + size));
    if total <= capacity && count <= ELEMENTS_MAX || count <= least {
        return vec![count];
    }
    let full = capacity * FILL / 10;
    let aim = if at_right_edge {
        full
    } else {
        total.div_ceil(total.div_ceil(full))
    };
    let mut cuts = Vec::new();
    let (mut begin, mut sum) = (0, 0);
    for (slot, size) in sizes.enumerate() {
        // At the right edge a part never goes over its aim; elsewhere it ends nearest to it.
        let over = if at_right_edge {
            sum + size > aim
        } else {
            sum + size / 2 > aim
        };
        let in_part = slot - begin;
        if in_part >= least && (over || sum + size > capacity || in_part == ELEMENTS_MAX) {
            cuts.push(slot);
            (begin, sum) = (slot, 0);
        }
        sum += size;
    }
    // The last part must not be smaller than a branch may be: it borrows from the part before, or joins it.
    if count - begin < least
        && let Some(last_cut) = cuts.pop()
    {
        let before = cuts.last().copied().unwrap_or(0);
        if last_cut - 1 - before >= least {
            cuts.push(last_cut - 1);
        }
    }
    cuts.push(count);
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_fit_a_page_or_are_as_small_as_they_may_be(
            sizes in proptest::collection::vec(prop_oneof![8 => 17usize..400, 1 => 17usize..9000], 0..200),
            at_right_edge: bool,
            least in 1usize..3,
        ) {
            let cuts = cut(sizes.iter().copied(), 4080, at_right_edge, least);
            prop_assert_eq!(*cuts.last().expect("one part at least"), sizes.len());
            let mut from = 0;
            for to in &cuts {
                let part = &sizes[from..*to];
                prop_assert!(part.len() >= least.min(sizes.len()));
                prop_assert!(part.iter().sum::<usize>() <= 4080 || part.len() < 2 * least);
                from = *to;
            }
        }
    }
}
