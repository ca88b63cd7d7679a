//! One checked page: a leaf or a branch whose counts fit its bytes, with bounds-checked access to its elements.
//!
//! A [`Page`] borrows its run of pages (the page and its overflow). Making one checks the header; each element is
//! checked when it is read, so a damaged page gives [`PageDamage`] and never a panic or bytes of another page.
//! Key order is not checked here: that is done once, at open, and by [`super::check`].

use super::error::PageDamage;
use super::format::{
    ELEMENT_BUCKET, ELEMENT_BYTES, FLAG_BRANCH, FLAG_LEAF, PAGE_HEADER_BYTES, PageHeader,
    PageNumber, get_u32, get_u64,
};

/// A leaf or branch page and its overflow pages.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// The page's own number, or for an inline bucket that of the page it lies in.
    number: PageNumber,
    bytes: &'a [u8],
    count: u16,
    is_leaf: bool,
}

/// One entry of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafElement<'a> {
    /// [`ELEMENT_BUCKET`] or 0.
    pub flags: u32,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

impl LeafElement<'_> {
    pub fn is_bucket(&self) -> bool {
        self.flags & ELEMENT_BUCKET != 0
    }
}

/// One entry of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BranchElement<'a> {
    pub key: &'a [u8],
    pub child: PageNumber,
}

impl<'a> Page<'a> {
    /// `bytes` is the whole run of page `number`, as long as its header says.
    pub fn parse(number: PageNumber, bytes: &'a [u8]) -> Result<Page<'a>, PageDamage> {
        let damage = |what| PageDamage::new(number, what);
        let header = PageHeader::decode(bytes).ok_or(damage("shorter than a page header"))?;
        if header.id != number {
            return Err(damage("carries another page's number"));
        }
        Page::from_header(number, bytes, header)
    }

    /// The leaf inside the value of an inline bucket; `holder` is the page the value lies in.
    pub fn parse_inline(holder: PageNumber, bytes: &'a [u8]) -> Result<Page<'a>, PageDamage> {
        let damage = |what| PageDamage::new(holder, what);
        let header = PageHeader::decode(bytes).ok_or(damage("inline bucket without a page"))?;
        if header.flags != FLAG_LEAF || header.overflow != 0 || header.id.0 != 0 {
            return Err(damage("inline bucket is not a single leaf"));
        }
        Page::from_header(holder, bytes, header)
    }

    fn from_header(
        number: PageNumber,
        bytes: &'a [u8],
        header: PageHeader,
    ) -> Result<Page<'a>, PageDamage> {
        let damage = |what| PageDamage::new(number, what);
        let is_leaf = match header.flags {
            FLAG_LEAF => true,
            FLAG_BRANCH => false,
            _ => return Err(damage("is neither a leaf nor a branch")),
        };
        if !is_leaf && header.count == 0 {
            return Err(damage("is a branch without children"));
        }
        if PAGE_HEADER_BYTES + usize::from(header.count) * ELEMENT_BYTES > bytes.len() {
            return Err(damage("counts more elements than it has room for"));
        }
        Ok(Page {
            number,
            bytes,
            count: header.count,
            is_leaf,
        })
    }

    pub fn number(&self) -> PageNumber {
        self.number
    }

    pub fn is_leaf(&self) -> bool {
        self.is_leaf
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// The whole run of bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn leaf_element(&self, slot: usize) -> Result<LeafElement<'a>, PageDamage> {
        debug_assert!(self.is_leaf && slot < self.count());
        let at = PAGE_HEADER_BYTES + slot * ELEMENT_BYTES;
        let element = (|| {
            let flags = get_u32(self.bytes, at)?;
            let key_at = at.checked_add(get_u32(self.bytes, at + 4)? as usize)?;
            let value_at = key_at.checked_add(get_u32(self.bytes, at + 8)? as usize)?;
            let end = value_at.checked_add(get_u32(self.bytes, at + 12)? as usize)?;
            let key = self.bytes.get(key_at..value_at)?;
            let value = self.bytes.get(value_at..end)?;
            Some(LeafElement { flags, key, value })
        })();
        element.ok_or(PageDamage::new(
            self.number,
            "has an element outside its bytes",
        ))
    }

    pub fn branch_element(&self, slot: usize) -> Result<BranchElement<'a>, PageDamage> {
        debug_assert!(!self.is_leaf && slot < self.count());
        let at = PAGE_HEADER_BYTES + slot * ELEMENT_BYTES;
        let element = (|| {
            let key_at = at.checked_add(get_u32(self.bytes, at)? as usize)?;
            let end = key_at.checked_add(get_u32(self.bytes, at + 4)? as usize)?;
            let child = PageNumber(get_u64(self.bytes, at + 8)?);
            Some(BranchElement {
                key: self.bytes.get(key_at..end)?,
                child,
            })
        })();
        element.ok_or(PageDamage::new(
            self.number,
            "has an element outside its bytes",
        ))
    }

    /// The key of an element of either kind.
    pub fn key(&self, slot: usize) -> Result<&'a [u8], PageDamage> {
        debug_assert!(slot < self.count());
        let at = PAGE_HEADER_BYTES + slot * ELEMENT_BYTES;
        // A leaf element has its flags before position and length of the key.
        let pos_at = if self.is_leaf { at + 4 } else { at };
        let key = (|| {
            let key_at = at.checked_add(get_u32(self.bytes, pos_at)? as usize)?;
            let end = key_at.checked_add(get_u32(self.bytes, pos_at + 4)? as usize)?;
            self.bytes.get(key_at..end)
        })();
        key.ok_or(PageDamage::new(
            self.number,
            "has an element outside its bytes",
        ))
    }

    /// First slot whose key is not below `key`, and whether it is equal. `count()` when all are below.
    pub fn lower_bound(&self, key: &[u8]) -> Result<(usize, bool), PageDamage> {
        let (mut lo, mut hi) = (0, self.count());
        let mut exact = false;
        while lo < hi {
            let mid = lo + (hi - lo) / 2;
            match self.key(mid)?.cmp(key) {
                std::cmp::Ordering::Less => lo = mid + 1,
                std::cmp::Ordering::Equal => {
                    exact = true;
                    hi = mid;
                }
                std::cmp::Ordering::Greater => hi = mid,
            }
        }
        Ok((lo, exact))
    }

    /// The slot of the child to follow for `key`: the last whose key is not above it, or the first.
    pub fn child_slot(&self, key: &[u8]) -> Result<usize, PageDamage> {
        let (slot, exact) = self.lower_bound(key)?;
        Ok(if exact { slot } else { slot.saturating_sub(1) })
    }
}
