//! Walks the records of one tree state in key order.
//!
//! Always true: the top of the stack is the leaf position that `next` yields, or the stack is empty.
//! Any core, under an epoch guard. Goes forward only; a new slice seeks again.

use super::LEVELS_MAX;
use super::node::NodeRef;
use super::record::RecordRef;

pub(in crate::mvcc) struct Cursor<'g> {
    stack: [Option<(NodeRef<'g>, usize)>; LEVELS_MAX],
    depth: usize,
}

impl<'g> Cursor<'g> {
    pub(super) fn seek(root: NodeRef<'g>, from: &[u8]) -> Self {
        let mut cursor = Self {
            stack: [None; LEVELS_MAX],
            depth: 0,
        };
        let mut node = root;
        while !node.is_leaf() {
            let position = node.route(from);
            cursor.push(node, position);
            node = node.child(position);
        }
        let position = node.search(from).unwrap_or_else(|position| position);
        cursor.push(node, position);
        cursor
    }

    fn push(&mut self, node: NodeRef<'g>, position: usize) {
        self.stack[self.depth] = Some((node, position));
        self.depth += 1;
    }

    /// Leaves the finished leaf for the first record of the next one.
    fn ascend(&mut self) -> Option<()> {
        self.depth -= 1;
        loop {
            let (node, position) = self.stack[self.depth.checked_sub(1)?].as_mut()?;
            *position += 1;
            if *position < node.len() {
                let mut child = node.child(*position);
                while !child.is_leaf() {
                    self.push(child, 0);
                    child = child.child(0);
                }
                self.push(child, 0);
                return Some(());
            }
            self.depth -= 1;
        }
    }
}

impl<'g> Iterator for Cursor<'g> {
    type Item = RecordRef<'g>;

    fn next(&mut self) -> Option<RecordRef<'g>> {
        loop {
            let (leaf, position) = self.stack[self.depth.checked_sub(1)?].as_mut()?;
            if *position < leaf.len() {
                let record = leaf.record(*position);
                *position += 1;
                return Some(record);
            }
            self.ascend()?;
        }
    }
}
