//! A set of key intervals, as the union of what a user's roles grant.
//!
//! Always true: pieces ascend and neither overlap nor touch, so an interval is covered exactly if one piece covers it.
//! Built once for each change; asked on every request.

/// One piece: from `begin` up to `end`, which is not in it; `None` has no end.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Piece {
    begin: Box<[u8]>,
    end: Option<Box<[u8]>>,
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct IntervalSet {
    pieces: Vec<Piece>,
}

impl IntervalSet {
    /// The union of intervals in the form of requests: an empty end for one key, one zero byte for no end. An interval
    /// that holds no key, which releases before 3.6 let into a role, grants nothing.
    pub fn new<'a>(intervals: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> IntervalSet {
        let mut pieces: Vec<Piece> = intervals
            .filter(|(key, _)| !key.is_empty())
            .filter_map(|(key, range_end)| {
                let end: Option<Box<[u8]>> = match range_end {
                    b"" => Some([key, b"\0"].concat().into()),
                    b"\0" => None,
                    end if key < end => Some(end.into()),
                    _ => return None,
                };
                let begin = key.into();
                Some(Piece { begin, end })
            })
            .collect();
        pieces.sort_unstable_by(|left, right| left.begin.cmp(&right.begin));
        let mut merged: Vec<Piece> = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let Some(last) = merged.last_mut() else {
                merged.push(piece);
                continue;
            };
            match (&last.end, &piece.end) {
                (Some(end), _) if *end < piece.begin => merged.push(piece),
                (Some(end), Some(other)) if end < other => last.end = piece.end,
                (Some(_), None) => last.end = None,
                _ => {}
            }
        }
        IntervalSet { pieces: merged }
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether every key of an interval, given as in requests, is in the set. An interval that holds no key counts as
    /// its first.
    pub fn covers(&self, key: &[u8], range_end: &[u8]) -> bool {
        let after = self.pieces.partition_point(|piece| *piece.begin <= *key);
        let Some(piece) = after.checked_sub(1).map(|at| &self.pieces[at]) else {
            return false;
        };
        let Some(end) = &piece.end else {
            return true;
        };
        *key < **end && range_end != b"\0" && *range_end <= **end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(intervals: &[(&str, &str)]) -> IntervalSet {
        let bytes = intervals.iter();
        IntervalSet::new(bytes.map(|(key, end)| (key.as_bytes(), end.as_bytes())))
    }

    #[track_caller]
    fn check(set: &IntervalSet, covered: &[(&str, &str)], not: &[(&str, &str)]) {
        for (key, end) in covered {
            let covers = set.covers(key.as_bytes(), end.as_bytes());
            assert!(covers, "[{key:?}, {end:?}) is granted");
        }
        for (key, end) in not {
            let covers = set.covers(key.as_bytes(), end.as_bytes());
            assert!(!covers, "[{key:?}, {end:?}) is not granted");
        }
    }

    #[test]
    fn single_keys_are_granted_alone() {
        check(
            &set(&[("a", ""), ("c", "")]),
            &[("a", ""), ("c", ""), ("a", "a\0")],
            &[
                ("", ""),
                ("b", ""),
                ("a\0", ""),
                ("aa", ""),
                ("a", "b"),
                ("a", "\0"),
                ("d", ""),
            ],
        );
    }

    #[test]
    fn neighbours_join_and_gaps_stay() {
        check(
            &set(&[("c", "e"), ("a", "c"), ("f", "h"), ("b", "d"), ("f", "g")]),
            &[("a", "e"), ("b", "e"), ("f", "h"), ("d", ""), ("g", "")],
            &[
                ("a", "f"),
                ("a", "h"),
                ("e", ""),
                ("d", "g"),
                ("h", ""),
                ("f", "\0"),
                ("f", "i"),
            ],
        );
    }

    #[test]
    fn an_open_end_covers_every_end() {
        check(
            &set(&[("b", "\0"), ("c", "d")]),
            &[("b", "\0"), ("z", "\0"), ("b", ""), ("c", "zz")],
            &[("a", ""), ("a", "\0"), ("a", "c")],
        );
        check(
            &set(&[("\0", "\0")]),
            &[("\0", "\0"), ("a", "b"), ("\u{7f}", "")],
            &[],
        );
    }

    #[test]
    fn an_empty_interval_grants_nothing_and_asks_for_its_key() {
        check(
            &set(&[("d", "b"), ("", "x"), ("c", "c")]),
            &[],
            &[("d", ""), ("c", ""), ("a", "b")],
        );
        check(
            &set(&[("a", "e")]),
            &[("d", "b"), ("d", "d")],
            &[("e", "a"), ("f", "f")],
        );
    }

    /// Against the definition: a key is covered if some interval has it, an interval if all its keys are.
    #[test]
    fn agrees_with_the_definition_over_all_small_intervals() {
        const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
        let intervals: Vec<(usize, usize)> = (0..5)
            .flat_map(|begin| (begin + 1..6).map(move |end| (begin, end)))
            .collect();
        for picked in 0..1 << intervals.len() {
            // Sets of three intervals at most say all there is to say about joining.
            if u32::count_ones(picked) > 3 {
                continue;
            }
            let granted: Vec<(usize, usize)> = intervals
                .iter()
                .enumerate()
                .filter(|(at, _)| picked >> at & 1 == 1)
                .map(|(_, interval)| *interval)
                .collect();
            let set = IntervalSet::new(
                granted
                    .iter()
                    .map(|&(begin, end)| (KEYS[begin].as_bytes(), KEYS[end].as_bytes())),
            );
            for &(begin, end) in &intervals {
                let wanted = (begin..end)
                    .all(|key| granted.iter().any(|&(from, to)| from <= key && key < to));
                let covers = set.covers(KEYS[begin].as_bytes(), KEYS[end].as_bytes());
                assert_eq!(covers, wanted, "{granted:?} and {begin}..{end}");
            }
        }
    }
}
