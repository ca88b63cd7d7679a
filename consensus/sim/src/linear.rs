//! Decides whether a history of one register is linearizable: whether every operation can be given
//! one moment between its call and its return at which it took effect alone.
//!
//! The search of Wing and Gong with Lowe's memory of states seen: try any operation that is called
//! before the first open return, and go back when that leads nowhere. Knows nothing of Raft, logs
//! or indexes; trusts only what clients saw.
//!
//! Operations whose outcome nobody learned may have taken effect at any later time or never. Those
//! whose value nobody saw are left out first: whatever order exists with them exists without them.

use std::collections::BTreeSet;

/// What a client asked and learned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Saw this value. A swap that failed is one: it saw what was there instead.
    Read(u64),
    Write(u64),
    /// The value was `expected` and became `new`.
    Swap {
        expected: u64,
        new: u64,
    },
}

/// One operation. Times are distinct and ascend as things happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation {
    pub act: Act,
    pub call: u64,
    /// `None`: nobody learned the outcome. Never for a read.
    pub reply: Option<u64>,
}

/// Operations in one history.
pub const OPERATIONS_MAX: usize = 256;

type Bits = [u64; OPERATIONS_MAX / 64];

/// The value before the first write.
const INITIAL: u64 = 0;

/// What `act` does to `value`; `None` if it cannot have happened there.
fn step(value: u64, act: Act) -> Option<u64> {
    match act {
        Act::Read(seen) => (seen == value).then_some(value),
        Act::Write(new) => Some(new),
        Act::Swap { expected, new } => (expected == value).then_some(new),
    }
}

/// The value that `act` leaves, if it takes effect.
fn left_by(act: Act) -> Option<u64> {
    match act {
        Act::Read(_) => None,
        Act::Write(new) | Act::Swap { new, .. } => Some(new),
    }
}

/// Leaves out operations of unknown outcome that nobody noticed. One round can make others
/// unnoticed, so until nothing changes.
fn without_unnoticed(history: &[Operation]) -> Vec<Operation> {
    let mut kept = history.to_vec();
    loop {
        let before = kept.len();
        let noticed: BTreeSet<u64> = kept
            .iter()
            .filter_map(|op| match op.act {
                Act::Read(seen) => Some(seen),
                Act::Swap { expected, .. } => Some(expected),
                Act::Write(_) => None,
            })
            .collect();
        kept.retain(|op| {
            op.reply.is_some() || left_by(op.act).is_some_and(|value| noticed.contains(&value))
        });
        if kept.len() == before {
            return kept;
        }
    }
}

/// Calls and returns in the order of time, as a list from which operations are taken out and put
/// back.
struct Events {
    /// `(operation, is it the return)`; slot 0 is the head and names nothing.
    at: Vec<(usize, bool)>,
    next: Vec<usize>,
    prev: Vec<usize>,
    call_of: Vec<usize>,
    return_of: Vec<usize>,
}

impl Events {
    fn new(history: &[Operation]) -> Events {
        let mut order: Vec<(u64, usize, bool)> = Vec::with_capacity(2 * history.len());
        for (slot, op) in history.iter().enumerate() {
            order.push((op.call, slot, false));
            order.push((op.reply.unwrap_or(u64::MAX), slot, true));
        }
        order.sort_unstable();
        let len = order.len() + 1;
        let mut events = Events {
            at: vec![(usize::MAX, true)],
            next: (1..=len).map(|slot| slot % len).collect(),
            prev: (0..len).map(|slot| (slot + len - 1) % len).collect(),
            call_of: vec![0; history.len()],
            return_of: vec![0; history.len()],
        };
        for (_, op, is_return) in order {
            let of = if is_return {
                &mut events.return_of
            } else {
                &mut events.call_of
            };
            of[op] = events.at.len();
            events.at.push((op, is_return));
        }
        events
    }

    fn take_out(&mut self, op: usize) {
        for slot in [self.call_of[op], self.return_of[op]] {
            let (prev, next) = (self.prev[slot], self.next[slot]);
            self.next[prev] = next;
            self.prev[next] = prev;
        }
    }

    fn put_back(&mut self, op: usize) {
        for slot in [self.return_of[op], self.call_of[op]] {
            let (prev, next) = (self.prev[slot], self.next[slot]);
            self.next[prev] = slot;
            self.prev[next] = slot;
        }
    }
}

/// Whether the history of one register is linearizable.
pub fn is_linearizable(history: &[Operation]) -> bool {
    let history = without_unnoticed(history);
    assert!(
        history.len() <= OPERATIONS_MAX,
        "{} operations",
        history.len()
    );
    let mut events = Events::new(&history);
    let mut seen: BTreeSet<(Bits, u64)> = BTreeSet::new();
    let mut taken: Vec<(usize, u64)> = Vec::new();
    let (mut value, mut bits) = (INITIAL, Bits::default());
    let mut slot = events.next[0];
    while slot != 0 {
        let (op, is_return) = events.at[slot];
        if !is_return {
            let mut with = bits;
            with[op / 64] |= 1 << (op % 64);
            match step(value, history[op].act) {
                Some(next) if seen.insert((with, next)) => {
                    taken.push((op, value));
                    (value, bits) = (next, with);
                    events.take_out(op);
                    slot = events.next[0];
                }
                _ => slot = events.next[slot],
            }
            continue;
        }
        if history[op].reply.is_none() {
            // Only unknown outcomes are left: they never took effect.
            return true;
        }
        // This operation has returned and could not be placed: take back the last choice.
        let Some((last, before)) = taken.pop() else {
            return false;
        };
        value = before;
        bits[last / 64] &= !(1 << (last % 64));
        events.put_back(last);
        slot = events.next[events.call_of[last]];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn op(act: Act, call: u64, reply: u64) -> Operation {
        Operation {
            act,
            call,
            reply: (reply > 0).then_some(reply),
        }
    }

    fn swap(expected: u64, new: u64) -> Act {
        Act::Swap { expected, new }
    }

    #[test]
    fn histories_with_known_answers() {
        use Act::*;
        let check = |history: &[Operation], expected| {
            assert_eq!(is_linearizable(history), expected, "{history:?}");
        };
        check(&[], true);
        check(&[op(Read(0), 1, 2)], true);
        check(&[op(Read(7), 1, 2)], false);
        // A stale read: the write had returned before the read was asked.
        check(&[op(Write(1), 1, 2), op(Read(0), 3, 4)], false);
        // Asked at the same time, both are right.
        check(&[op(Write(1), 1, 4), op(Read(0), 2, 3)], true);
        check(&[op(Write(1), 1, 4), op(Read(1), 2, 3)], true);
        // Two reads of one client must not go back.
        check(
            &[op(Write(1), 1, 9), op(Read(1), 2, 3), op(Read(0), 4, 5)],
            false,
        );
        // A lost write.
        check(
            &[op(Write(1), 1, 2), op(Write(2), 3, 4), op(Read(1), 5, 6)],
            false,
        );
        // An unknown write may come late, once.
        check(
            &[op(Write(1), 1, 0), op(Read(0), 2, 3), op(Read(1), 4, 5)],
            true,
        );
        check(
            &[
                op(Write(1), 1, 0),
                op(Write(2), 2, 3),
                op(Read(1), 4, 5),
                op(Write(3), 6, 7),
                op(Read(1), 8, 9),
            ],
            false,
        );
        check(&[op(swap(0, 5), 1, 2), op(Read(5), 3, 4)], true);
        check(&[op(swap(0, 5), 1, 2), op(Read(0), 3, 4)], false);
        check(&[op(swap(0, 5), 1, 4), op(swap(0, 6), 2, 3)], false);
        let late = [op(swap(0, 5), 1, 0), op(Read(0), 2, 3), op(Read(5), 4, 5)];
        check(&late, true);
    }

    /// The definition, tried out in full: some order of some of the open and all of the closed
    /// operations that respects time and makes every answer right.
    fn by_definition(history: &[Operation], done: u32, value: u64) -> bool {
        let is_done = |slot: usize| done & (1 << slot) != 0;
        let open = |slot: &usize| !is_done(*slot);
        if (0..history.len())
            .filter(open)
            .all(|slot| history[slot].reply.is_none())
        {
            return true;
        }
        let first_return = (0..history.len())
            .filter(open)
            .map(|slot| history[slot].reply.unwrap_or(u64::MAX))
            .min()
            .expect("some are open");
        (0..history.len())
            .filter(open)
            .filter(|slot| history[*slot].call < first_return)
            .any(|slot| {
                step(value, history[slot].act)
                    .is_some_and(|next| by_definition(history, done | (1 << slot), next))
            })
    }

    fn history() -> impl Strategy<Value = Vec<Operation>> {
        let act = prop_oneof![
            (0..4u64).prop_map(Act::Read),
            Just(Act::Write(0)),
            (0..4u64).prop_map(|expected| Act::Swap { expected, new: 0 }),
        ];
        proptest::collection::vec((act, 0..40u64, 1..12u64, 0..6u8), 1..8).prop_map(|raw| {
            let with_time = |(slot, (act, call, took, fate)): (usize, (Act, u64, u64, u8))| {
                let unique = slot as u64 + 1;
                let is_open = fate == 0 && !matches!(act, Act::Read(_));
                let act = match act {
                    Act::Write(_) => Act::Write(unique),
                    Act::Swap { expected, .. } => Act::Swap {
                        expected,
                        new: unique,
                    },
                    read => read,
                };
                // Distinct times whose order is that of the drawn ones.
                let stamp = |t: u64| t * 32 + unique;
                Operation {
                    act,
                    call: stamp(call),
                    reply: (!is_open).then(|| stamp(call + took) + 16),
                }
            };
            raw.into_iter().enumerate().map(with_time).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn agrees_with_the_definition(history in history()) {
            prop_assert_eq!(is_linearizable(&history), by_definition(&history, 0, INITIAL));
        }
    }
}
