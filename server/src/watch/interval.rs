//! Which intervals of keys hold a key: a search tree by interval, each node knowing the highest end below it.
//!
//! A treap in an arena: ordered by interval, a heap by random priority, so it is balanced whatever the order of
//! changes. A key is looked for in the order of the number of nodes' logarithm, and once more for each hit.
//!
//! Always true: an interval occurs once; `highest` of a node names the node with the highest end in its subtree.
//! One owner; knows nothing of watchers.

use std::cmp::Ordering;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

/// Where an interval ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// It holds its first key only.
    Single,
    Below(Rc<[u8]>),
    /// No upper limit.
    Open,
}

/// Keys from `key` on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interval {
    pub key: Rc<[u8]>,
    pub end: End,
}

impl Interval {
    /// From the fields of a request; an empty key means the lowest one. `None` if no key can be inside.
    pub fn new(key: &[u8], range_end: &[u8]) -> Option<Interval> {
        let key = if key.is_empty() { b"\0" } else { key };
        let end = match range_end {
            b"" => End::Single,
            b"\0" => End::Open,
            end if key < end => End::Below(end.into()),
            _ => return None,
        };
        Some(Interval {
            key: key.into(),
            end,
        })
    }

    #[cfg(test)]
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Single => *self.key == *key,
            End::Below(end) => *self.key <= *key && *key < **end,
            End::Open => *self.key <= *key,
        }
    }

    /// Bytes of its keys.
    pub fn bytes(&self) -> usize {
        let end = match &self.end {
            End::Below(end) => end.len(),
            End::Single | End::Open => 0,
        };
        self.key.len() + end
    }

    fn order(&self, other: &Interval) -> Ordering {
        self.key
            .cmp(&other.key)
            .then_with(|| order_ends(&self.end, &other.end))
    }
}

fn order_ends(one: &End, other: &End) -> Ordering {
    match (one, other) {
        (End::Below(one), End::Below(other)) => one.cmp(other),
        (End::Open, End::Open) => Ordering::Equal,
        (End::Open, _) => Ordering::Greater,
        (_, End::Open) => Ordering::Less,
        _ => unreachable!("single keys are not kept in the tree"),
    }
}

const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Node {
    interval: Interval,
    value: u32,
    priority: u64,
    left: u32,
    right: u32,
    highest: u32,
}

/// Intervals of more than one key, each with a number.
#[derive(Debug)]
pub struct IntervalTree {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: u32,
    /// Of the generator of priorities; seeded at random, so that no client can foresee them.
    random: u64,
}

impl Default for IntervalTree {
    fn default() -> IntervalTree {
        IntervalTree {
            nodes: Vec::new(),
            free: Vec::new(),
            root: NONE,
            random: 0,
        }
    }
}

impl IntervalTree {
    pub fn is_empty(&self) -> bool {
        self.root == NONE
    }

    pub fn get(&self, interval: &Interval) -> Option<u32> {
        let mut at = self.root;
        while at != NONE {
            let node = &self.nodes[at as usize];
            at = match interval.order(&node.interval) {
                Ordering::Less => node.left,
                Ordering::Greater => node.right,
                Ordering::Equal => return Some(node.value),
            };
        }
        None
    }

    /// Adds an interval that is not there yet.
    pub fn insert(&mut self, interval: Interval, value: u32) {
        let priority = self.next_priority();
        let node = Node {
            interval,
            value,
            priority,
            left: NONE,
            right: NONE,
            highest: NONE,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        self.update(at);
        self.root = self.insert_below(self.root, at);
    }

    /// Removes an interval that is there.
    pub fn remove(&mut self, interval: &Interval) {
        self.root = self.remove_below(self.root, interval);
        if self.root == NONE {
            // What a crowd needed is not kept for ever.
            *self = IntervalTree::default();
        }
    }

    /// Visits the numbers of all intervals that hold `key`.
    pub fn visit(&self, key: &[u8], visit: &mut impl FnMut(u32)) {
        self.visit_below(self.root, key, visit);
    }

    fn visit_below(&self, mut at: u32, key: &[u8], visit: &mut impl FnMut(u32)) {
        while at != NONE {
            let node = &self.nodes[at as usize];
            if !is_below_end(key, &self.nodes[node.highest as usize].interval.end) {
                return;
            }
            self.visit_below(node.left, key, visit);
            if *node.interval.key > *key {
                return;
            }
            if is_below_end(key, &node.interval.end) {
                visit(node.value);
            }
            at = node.right;
        }
    }

    fn insert_below(&mut self, root: u32, at: u32) -> u32 {
        if root == NONE {
            return at;
        }
        if self.nodes[at as usize].priority > self.nodes[root as usize].priority {
            let (left, right) = self.split(root, at);
            self.nodes[at as usize].left = left;
            self.nodes[at as usize].right = right;
            self.update(at);
            return at;
        }
        let order = {
            let new = &self.nodes[at as usize].interval;
            new.order(&self.nodes[root as usize].interval)
        };
        assert!(order != Ordering::Equal, "an interval is inserted once");
        if order == Ordering::Less {
            let left = self.nodes[root as usize].left;
            self.nodes[root as usize].left = self.insert_below(left, at);
        } else {
            let right = self.nodes[root as usize].right;
            self.nodes[root as usize].right = self.insert_below(right, at);
        }
        self.update(root);
        root
    }

    /// Parts the tree under `root` into what is below the interval of `by` and what is above it.
    fn split(&mut self, root: u32, by: u32) -> (u32, u32) {
        if root == NONE {
            return (NONE, NONE);
        }
        let order = {
            let by = &self.nodes[by as usize].interval;
            self.nodes[root as usize].interval.order(by)
        };
        if order == Ordering::Less {
            let (left, right) = self.split(self.nodes[root as usize].right, by);
            self.nodes[root as usize].right = left;
            self.update(root);
            (root, right)
        } else {
            let (left, right) = self.split(self.nodes[root as usize].left, by);
            self.nodes[root as usize].left = right;
            self.update(root);
            (left, root)
        }
    }

    fn remove_below(&mut self, root: u32, interval: &Interval) -> u32 {
        assert!(root != NONE, "an interval is removed once");
        let (left, right) = (
            self.nodes[root as usize].left,
            self.nodes[root as usize].right,
        );
        match interval.order(&self.nodes[root as usize].interval) {
            Ordering::Less => {
                let left = self.remove_below(left, interval);
                self.nodes[root as usize].left = left;
            }
            Ordering::Greater => {
                let right = self.remove_below(right, interval);
                self.nodes[root as usize].right = right;
            }
            Ordering::Equal => {
                self.free.push(root);
                return self.join(left, right);
            }
        }
        self.update(root);
        root
    }

    /// One tree of two, all of `left` below all of `right`.
    fn join(&mut self, left: u32, right: u32) -> u32 {
        if left == NONE || right == NONE {
            return if left == NONE { right } else { left };
        }
        if self.nodes[left as usize].priority > self.nodes[right as usize].priority {
            let below = self.nodes[left as usize].right;
            self.nodes[left as usize].right = self.join(below, right);
            self.update(left);
            left
        } else {
            let below = self.nodes[right as usize].left;
            self.nodes[right as usize].left = self.join(left, below);
            self.update(right);
            right
        }
    }

    fn update(&mut self, at: u32) {
        let node = &self.nodes[at as usize];
        let mut highest = at;
        for child in [node.left, node.right] {
            if child == NONE {
                continue;
            }
            let candidate = self.nodes[child as usize].highest;
            let end = |at: u32| &self.nodes[at as usize].interval.end;
            if order_ends(end(highest), end(candidate)) == Ordering::Less {
                highest = candidate;
            }
        }
        self.nodes[at as usize].highest = highest;
    }

    fn next_priority(&mut self) -> u64 {
        if self.random == 0 {
            self.random = RandomState::new().hash_one(0u8) | 1;
        }
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

fn is_below_end(key: &[u8], end: &End) -> bool {
    match end {
        End::Below(end) => *key < **end,
        End::Open => true,
        End::Single => unreachable!("single keys are not kept in the tree"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn interval(key: &[u8], end: &[u8]) -> Interval {
        Interval::new(key, end).expect("not empty")
    }

    #[test]
    fn the_forms_of_a_request() {
        assert_eq!(Interval::new(b"b", b"b"), None);
        assert_eq!(Interval::new(b"b", b"a"), None);
        assert_eq!(*interval(b"", b"").key, *b"\0");
        assert_eq!(interval(b"b", b"\0").end, End::Open);
        assert!(interval(b"b", b"").contains(b"b"));
        assert!(!interval(b"b", b"").contains(b"b\0"));
        assert!(interval(b"b", b"c").contains(b"b\xff"));
        assert!(!interval(b"b", b"c").contains(b"c"));
        assert!(interval(b"", b"\0").contains(b"\xff"));
        // A key of one zero byte with an end of one zero byte is everything, not an empty range.
        assert!(interval(b"\0", b"\0").contains(b"a"));
    }

    fn hits(tree: &IntervalTree, key: &[u8]) -> Vec<u32> {
        let mut hits = Vec::new();
        tree.visit(key, &mut |value| hits.push(value));
        hits.sort_unstable();
        hits
    }

    proptest! {
        #[test]
        fn as_if_every_interval_was_asked(
            steps in prop::collection::vec((any::<bool>(), 0..6u8, 0..9u8), 1..200),
        ) {
            let mut tree = IntervalTree::default();
            let mut model: Vec<(Interval, u32)> = Vec::new();
            for (number, (is_removal, key, end)) in steps.into_iter().enumerate() {
                let end: &[u8] = if end == 8 { b"\0" } else { &[b'a' + end] };
                let Some(interval) = Interval::new(&[b'a' + key], end) else { continue };
                let place = model.iter().position(|(held, _)| *held == interval);
                prop_assert_eq!(tree.get(&interval), place.map(|place| model[place].1));
                match place {
                    Some(place) if is_removal => {
                        tree.remove(&interval);
                        model.swap_remove(place);
                    }
                    None if !is_removal => {
                        tree.insert(interval.clone(), number as u32);
                        model.push((interval, number as u32));
                    }
                    _ => {}
                }
                for key in b'`'..=b'j' {
                    let mut wanted: Vec<u32> = model
                        .iter()
                        .filter(|(held, _)| held.contains(&[key]))
                        .map(|(_, value)| *value)
                        .collect();
                    wanted.sort_unstable();
                    prop_assert_eq!(hits(&tree, &[key]), wanted);
                }
                prop_assert_eq!(tree.is_empty(), model.is_empty());
            }
        }
    }

    #[test]
    fn sorted_input_does_not_make_a_list() {
        let mut tree = IntervalTree::default();
        for number in 0..20_000u32 {
            let key = format!("{number:06}");
            tree.insert(interval(key.as_bytes(), b"z"), number);
        }
        fn depth(tree: &IntervalTree, at: u32) -> usize {
            if at == NONE {
                return 0;
            }
            let node = &tree.nodes[at as usize];
            1 + depth(tree, node.left).max(depth(tree, node.right))
        }
        // The expected depth is about 2 ln n, here 20.
        assert!(depth(&tree, tree.root) < 100);
    }
}
