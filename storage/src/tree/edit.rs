//! How a batch changes one tree: touched leaves are merged with their changes and packed anew, then the branches above
//! them, level by level up to a new root.
//!
//! Always true here
//! - Old pages are read, never written. What replaces them goes to pages taken from the allocator.
//! - Only leaves that a change falls into (to move one is a change), neighbours they are merged with, and the branches above
//!   them are rewritten.
//! - Elements are borrowed from the old pages and the batch until they are copied, once, into their new page.
//!
//! A leaf or branch that lost elements and is less than [`MERGE_BELOW`] full is joined with a neighbour; what is larger
//! than a page is cut into equal parts, or, at the right edge where keys arrive in ascending order, into pages
//! nine tenths full. Called by the tree thread inside a commit. Does no I/O.

use super::batch::{Action, Change};
use super::error::{PageDamage, TreeError};
use super::format::{BUCKET_BYTES, BucketHeader, DEPTH_MAX, ELEMENT_BUCKET, PageNumber};
use super::pack::{Output, branch_bytes, cut, leaf_bytes};
use super::page::{BranchElement, LeafElement, Page};
use super::snapshot::{BucketRef, Snapshot};

/// Pages that lost something and are less full than this, in twentieths, are joined with a neighbour.
const MERGE_BELOW: usize = 9;

/// Why a batch cannot be applied; the writer adds the file's name.
#[derive(Debug)]
pub(crate) enum EditError {
    Damage(PageDamage),
    BadChange(&'static str),
}

impl From<PageDamage> for EditError {
    fn from(damage: PageDamage) -> EditError {
        EditError::Damage(damage)
    }
}

impl EditError {
    pub(crate) fn into_tree_error(
        self,
        on_damage: impl FnOnce(PageDamage) -> TreeError,
    ) -> TreeError {
        match self {
            EditError::Damage(damage) => on_damage(damage),
            EditError::BadChange(what) => TreeError::BadChange { what },
        }
    }
}

/// Applies ascending `changes` to `bucket` (none: a new one) and returns its new root, or `None` if nothing changed.
/// `put_flags` is what puts are and what they may replace: plain values, or buckets.
pub(crate) fn edit_bucket<'a>(
    out: &mut Output<'_>,
    snapshot: &'a Snapshot,
    bucket: Option<BucketRef<'a>>,
    changes: &[Change<'a>],
    put_flags: u32,
) -> Result<Option<PageNumber>, EditError> {
    let mut editor = Editor {
        out,
        snapshot,
        put_flags,
    };
    let content = match bucket {
        None => {
            let puts = changes
                .iter()
                .filter_map(|c| editor.element_of(c))
                .collect();
            Content::Leaf(puts)
        }
        Some(bucket) => {
            let page = bucket.root_page()?;
            let Some(edited) = editor.edit_page(page, changes, true, 0)? else {
                return Ok(None);
            };
            if bucket.root().is_some() {
                editor.out.free(&page);
            }
            edited.content
        }
    };
    editor.write_root(content).map(Some)
}

/// Gives up every page of a bucket and of the buckets in it.
pub(crate) fn free_bucket(
    out: &mut Output<'_>,
    snapshot: &Snapshot,
    bucket: BucketRef<'_>,
) -> Result<(), PageDamage> {
    if bucket.root().is_some() {
        free_subtree(out, snapshot, bucket.root_page()?, 0)?;
    }
    Ok(())
}

fn free_subtree(
    out: &mut Output<'_>,
    snapshot: &Snapshot,
    page: Page<'_>,
    depth: usize,
) -> Result<(), PageDamage> {
    if depth >= DEPTH_MAX {
        return Err(PageDamage::new(
            page.number(),
            "lies deeper than any tree can be",
        ));
    }
    for slot in 0..page.count() {
        if !page.is_leaf() {
            let child = snapshot.page(page.branch_element(slot)?.child)?;
            free_subtree(out, snapshot, child, depth + 1)?;
            continue;
        }
        let element = page.leaf_element(slot)?;
        if element.is_bucket() {
            let nested = BucketRef::decode(snapshot, page.number(), element.value)?;
            if nested.root().is_some() {
                free_subtree(out, snapshot, nested.root_page()?, depth + 1)?;
            }
        }
    }
    out.free(&page);
    Ok(())
}

/// The elements of a page to be, not yet cut to size.
enum Content<'a> {
    Leaf(Vec<LeafElement<'a>>),
    Branch(Vec<BranchElement<'a>>),
}

struct Edited<'a> {
    content: Content<'a>,
    /// Something went: it may have become too small.
    shrunk: bool,
    /// To be joined with neighbours of which the same is wanted.
    packs: bool,
}

/// A child of a branch that is being edited.
enum Child<'a> {
    Kept(BranchElement<'a>),
    Edited(Edited<'a>),
}

struct Editor<'e, 'o, 'a> {
    out: &'e mut Output<'o>,
    snapshot: &'a Snapshot,
    put_flags: u32,
}

impl<'a> Editor<'_, '_, 'a> {
    fn element_of(&self, change: &Change<'a>) -> Option<LeafElement<'a>> {
        change.value().map(|value| LeafElement {
            flags: self.put_flags,
            key: change.key,
            value,
        })
    }

    /// What `page` becomes, or `None` if no change makes a difference. The caller frees the page.
    fn edit_page(
        &mut self,
        page: Page<'a>,
        changes: &[Change<'a>],
        at_right_edge: bool,
        depth: usize,
    ) -> Result<Option<Edited<'a>>, EditError> {
        if depth >= DEPTH_MAX {
            return Err(PageDamage::new(page.number(), "lies deeper than any tree can be").into());
        }
        if page.is_leaf() {
            self.edit_leaf(page, changes)
        } else {
            self.edit_branch(page, changes, at_right_edge, depth)
        }
    }

    fn edit_leaf(
        &mut self,
        page: Page<'a>,
        changes: &[Change<'a>],
    ) -> Result<Option<Edited<'a>>, EditError> {
        let mut elements = Vec::with_capacity(page.count() + changes.len());
        let (mut changed, mut shrunk) = (false, false);
        // A leaf that is moved changes although its records stay.
        let packs = changes.iter().any(|c| c.action == Action::Pack);
        let moves = packs || changes.iter().any(|c| c.action == Action::Move);
        let mut changes = changes
            .iter()
            .filter(|c| !matches!(c.action, Action::Move | Action::Pack))
            .peekable();
        for slot in 0..page.count() {
            let old = page.leaf_element(slot)?;
            while let Some(change) = changes.next_if(|c| c.key < old.key) {
                if let Some(new) = self.element_of(change) {
                    elements.push(new);
                    changed = true;
                }
            }
            let Some(change) = changes.next_if(|c| c.key == old.key) else {
                elements.push(old);
                continue;
            };
            if old.flags & ELEMENT_BUCKET != self.put_flags {
                return Err(EditError::BadChange(
                    "a key names a nested bucket, or a bucket name is a plain key",
                ));
            }
            changed = true;
            match self.element_of(change) {
                Some(new) => {
                    shrunk |= new.value.len() < old.value.len();
                    elements.push(new);
                }
                None => shrunk = true,
            }
        }
        for change in changes {
            if let Some(new) = self.element_of(change) {
                elements.push(new);
                changed = true;
            }
        }
        Ok((changed || moves).then_some(Edited {
            content: Content::Leaf(elements),
            shrunk: shrunk || packs,
            packs,
        }))
    }

    fn edit_branch(
        &mut self,
        page: Page<'a>,
        mut changes: &[Change<'a>],
        at_right_edge: bool,
        depth: usize,
    ) -> Result<Option<Edited<'a>>, EditError> {
        let mut children = Vec::with_capacity(page.count() + 1);
        let (mut changed, mut shrunk) = (false, false);
        let last = page.count() - 1;
        // The child that takes the next change; those before it stay.
        let mut slot_of_next = match changes.first() {
            Some(change) => page.child_slot(change.key)?,
            None => return Ok(None),
        };
        for slot in 0..=last {
            let element = page.branch_element(slot)?;
            if changes.is_empty() || slot < slot_of_next {
                children.push(Child::Kept(element));
                continue;
            }
            let mine = if slot == last {
                changes.len()
            } else {
                let upper = page.branch_element(slot + 1)?.key;
                changes.partition_point(|c| c.key < upper)
            };
            let (here, rest) = changes.split_at(mine);
            changes = rest;
            if let Some(change) = changes.first() {
                slot_of_next = page.child_slot(change.key)?;
            }
            let child = self.snapshot.page(element.child)?;
            let at_right_edge = at_right_edge && slot == last;
            match self.edit_page(child, here, at_right_edge, depth + 1)? {
                None => children.push(Child::Kept(element)),
                Some(edited) => {
                    self.out.free(&child);
                    changed = true;
                    shrunk |= edited.shrunk;
                    children.push(Child::Edited(edited));
                }
            }
        }
        if !changed {
            return Ok(None);
        }
        let children = self.join_small(children)?;
        let mut elements = Vec::with_capacity(children.len() + 4);
        let last = children.len().saturating_sub(1);
        for (slot, child) in children.into_iter().enumerate() {
            match child {
                Child::Kept(element) => elements.push(element),
                Child::Edited(edited) => {
                    self.write_pages(
                        &edited.content,
                        at_right_edge && slot == last,
                        &mut elements,
                    );
                }
            }
        }
        Ok(Some(Edited {
            content: Content::Branch(elements),
            shrunk,
            packs: false,
        }))
    }

    /// Drops children that became empty and joins those that became too small with a neighbour.
    fn join_small(&mut self, children: Vec<Child<'a>>) -> Result<Vec<Child<'a>>, EditError> {
        let mut done: Vec<Child<'a>> = Vec::with_capacity(children.len());
        for child in children {
            if child.is_empty() {
                continue;
            }
            let joined = match done.pop() {
                None => child,
                Some(before)
                    if before.packs() && child.packs()
                        || self.is_small(&before)
                        || self.is_small(&child) =>
                {
                    match self.join(before, child)? {
                        (Some(before), child) => {
                            done.push(before);
                            child
                        }
                        (None, joined) => joined,
                    }
                }
                Some(before) => {
                    done.push(before);
                    child
                }
            };
            done.push(joined);
        }
        Ok(done)
    }

    fn is_small(&self, child: &Child<'a>) -> bool {
        match child {
            Child::Edited(Edited {
                content,
                shrunk: true,
                ..
            }) => content.data_bytes() * 20 < self.out.capacity() * MERGE_BELOW,
            _ => false,
        }
    }

    /// Neighbours as one, or as they were if they are of different kinds (a tree of uneven depth).
    fn join(
        &mut self,
        left: Child<'a>,
        right: Child<'a>,
    ) -> Result<(Option<Child<'a>>, Child<'a>), EditError> {
        let packs = right.packs();
        let (left_page, left) = self.load(left)?;
        let (right_page, right) = self.load(right)?;
        let content = match (left, right) {
            (Content::Leaf(mut left), Content::Leaf(right)) => {
                left.extend(right);
                Content::Leaf(left)
            }
            (Content::Branch(mut left), Content::Branch(right)) => {
                left.extend(right);
                Content::Branch(left)
            }
            (left, right) => {
                let as_it_was = |page: Option<Page<'a>>, content: Content<'a>| match page {
                    Some(page) => Ok::<_, PageDamage>(Child::Kept(BranchElement {
                        key: page.key(0)?,
                        child: page.number(),
                    })),
                    None => Ok(Child::Edited(Edited {
                        content,
                        shrunk: false,
                        packs: false,
                    })),
                };
                return Ok((
                    Some(as_it_was(left_page, left)?),
                    as_it_was(right_page, right)?,
                ));
            }
        };
        for page in [left_page, right_page].into_iter().flatten() {
            self.out.free(&page);
        }
        Ok((
            None,
            Child::Edited(Edited {
                content,
                shrunk: true,
                packs,
            }),
        ))
    }

    /// A child's elements, and the page they were read from if it was kept so far.
    fn load(&self, child: Child<'a>) -> Result<(Option<Page<'a>>, Content<'a>), EditError> {
        let element = match child {
            Child::Edited(edited) => return Ok((None, edited.content)),
            Child::Kept(element) => element,
        };
        let page = self.snapshot.page(element.child)?;
        let slots = 0..page.count();
        let content = if page.is_leaf() {
            Content::Leaf(
                slots
                    .map(|s| page.leaf_element(s))
                    .collect::<Result<_, _>>()?,
            )
        } else {
            Content::Branch(
                slots
                    .map(|s| page.branch_element(s))
                    .collect::<Result<_, _>>()?,
            )
        };
        Ok((Some(page), content))
    }

    /// Writes the top of a tree: as many levels of branches as it takes to end in one page.
    fn write_root(&mut self, mut content: Content<'a>) -> Result<PageNumber, EditError> {
        loop {
            match &content {
                // A root with one child gives its place to the child.
                Content::Branch(elements) if elements.len() == 1 => return Ok(elements[0].child),
                Content::Branch(elements) if elements.is_empty() => {
                    content = Content::Leaf(Vec::new());
                }
                _ => {}
            }
            let mut pages = Vec::new();
            self.write_pages(&content, true, &mut pages);
            if let [only] = pages.as_slice() {
                return Ok(only.child);
            }
            content = Content::Branch(pages);
        }
    }

    /// Cuts content into pages and appends the branch elements that lead to them.
    fn write_pages(
        &mut self,
        content: &Content<'a>,
        at_right_edge: bool,
        parents: &mut Vec<BranchElement<'a>>,
    ) {
        let capacity = self.out.capacity();
        match content {
            Content::Leaf(elements) => {
                let cuts = cut(elements.iter().map(leaf_bytes), capacity, at_right_edge, 1);
                let mut from = 0;
                for to in cuts {
                    let part = &elements[from..to];
                    let child = self.out.write_leaf(part);
                    let key = part.first().map_or(b"".as_slice(), |e| e.key);
                    parents.push(BranchElement { key, child });
                    from = to;
                }
            }
            Content::Branch(elements) => {
                let cuts = cut(
                    elements.iter().map(branch_bytes),
                    capacity,
                    at_right_edge,
                    2,
                );
                let mut from = 0;
                for to in cuts {
                    let part = &elements[from..to];
                    let child = self.out.write_branch(part);
                    parents.push(BranchElement {
                        key: part[0].key,
                        child,
                    });
                    from = to;
                }
            }
        }
    }
}

impl Child<'_> {
    fn packs(&self) -> bool {
        matches!(self, Child::Edited(Edited { packs: true, .. }))
    }

    fn is_empty(&self) -> bool {
        match self {
            Child::Kept(_) => false,
            Child::Edited(edited) => match &edited.content {
                Content::Leaf(elements) => elements.is_empty(),
                Content::Branch(elements) => elements.is_empty(),
            },
        }
    }
}

impl Content<'_> {
    fn data_bytes(&self) -> usize {
        match self {
            Content::Leaf(elements) => elements.iter().map(leaf_bytes).sum(),
            Content::Branch(elements) => elements.iter().map(branch_bytes).sum(),
        }
    }
}

/// The value of a bucket whose root is `root`.
pub(crate) fn bucket_value(root: PageNumber, sequence: u64) -> [u8; BUCKET_BYTES] {
    BucketHeader { root, sequence }.encode()
}
