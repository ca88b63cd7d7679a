//! A set of keys made of points and intervals.
//!
//! Always true: the intervals held are disjoint and not empty, so membership is one look-up however many were added.
//! Used by the duplicate rule and by apply. Borrows its keys.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::store::KeyRange;

/// Keys covered by the ranges added so far.
#[derive(Clone, Default, Debug)]
pub struct IntervalSet<'a> {
    points: BTreeSet<&'a [u8]>,
    /// Begin to end; no end means everything from there on.
    intervals: BTreeMap<&'a [u8], Option<&'a [u8]>>,
}

impl<'a> IntervalSet<'a> {
    pub fn contains(&self, key: &[u8]) -> bool {
        self.points.contains(key)
            || self
                .intervals
                .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
                .next_back()
                .is_some_and(|(_, end)| end.is_none_or(|end| key < end))
    }

    /// Adds the keys a request with this range means.
    pub fn add(&mut self, range: KeyRange<'a>) {
        match range.end {
            b"" => drop(self.points.insert(range.key)),
            b"\0" => self.add_interval(range.key, None),
            end if range.key < end => self.add_interval(range.key, Some(end)),
            _ => {}
        }
    }

    /// Adds everything `other` holds.
    pub fn add_all(&mut self, mut other: IntervalSet<'a>) {
        // The smaller goes into the larger, so that keys handed up many levels are not moved at each.
        if self.points.len() + self.intervals.len() < other.points.len() + other.intervals.len() {
            std::mem::swap(self, &mut other);
        }
        self.points.extend(other.points);
        for (begin, end) in other.intervals {
            self.add_interval(begin, end);
        }
    }

    fn add_interval(&mut self, mut begin: &'a [u8], mut end: Option<&'a [u8]>) {
        // Swallow the interval that begins before and reaches in, then all that begin inside.
        let up_to_begin = (Bound::Unbounded, Bound::Included(begin));
        if let Some((&before, &reach)) = self.intervals.range::<[u8], _>(up_to_begin).next_back()
            && reach.is_none_or(|reach| begin <= reach)
        {
            self.intervals.remove(before);
            begin = before;
            end = later(end, reach);
        }
        let from_begin = (Bound::Included(begin), Bound::Unbounded);
        while let Some((&inside, &reach)) = self.intervals.range::<[u8], _>(from_begin).next()
            && end.is_none_or(|end| inside <= end)
        {
            self.intervals.remove(inside);
            end = later(end, reach);
        }
        self.intervals.insert(begin, end);
    }
}

fn later<'a>(a: Option<&'a [u8]>, b: Option<&'a [u8]>) -> Option<&'a [u8]> {
    Some(a?.max(b?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ranges: &[(&[u8], &[u8])], inside: &[&[u8]], outside: &[&[u8]]) {
        let mut set = IntervalSet::default();
        for (key, end) in ranges {
            set.add(KeyRange::new(key, end));
        }
        for key in inside {
            assert!(set.contains(key), "{ranges:?} covers {key:?}");
        }
        for key in outside {
            assert!(!set.contains(key), "{ranges:?} does not cover {key:?}");
        }
    }

    #[test]
    fn membership() {
        check(&[(b"a", b"")], &[b"a"], &[b"a\0", b"", b"b"]);
        check(&[(b"b", b"d")], &[b"b", b"c\xff"], &[b"d", b"a\xff"]);
        check(&[(b"b", b"\0")], &[b"b", b"\xff\xff"], &[b"a"]);
        check(&[(b"c", b"b")], &[], &[b"b", b"c"]);
        check(
            &[(b"a", b"c"), (b"e", b"g"), (b"b", b"f")],
            &[b"c", b"d", b"f"],
            &[b"g"],
        );
        check(
            &[(b"e", b"g"), (b"c", b"\0"), (b"a", b"b")],
            &[b"z", b"a", b"d"],
            &[b"b"],
        );
        check(&[(b"a", b"z"), (b"c", b"d")], &[b"x", b"c", b"d"], &[b"z"]);
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_trying_every_range(
            ranges in proptest::collection::vec(("[a-d]{1,2}", "(\0|[a-d]{0,2})"), 0..8),
            key in "[a-d]{1,3}",
        ) {
            let mut set = IntervalSet::default();
            let mut half = IntervalSet::default();
            for (at, (begin, end)) in ranges.iter().enumerate() {
                let target = if at % 2 == 0 { &mut set } else { &mut half };
                target.add(KeyRange::new(begin.as_bytes(), end.as_bytes()));
            }
            set.add_all(half);
            let expected = ranges
                .iter()
                .any(|(b, e)| KeyRange::new(b.as_bytes(), e.as_bytes()).contains(key.as_bytes()));
            proptest::prop_assert_eq!(set.contains(key.as_bytes()), expected);
        }
    }
}
