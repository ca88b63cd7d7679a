//! What a net core holds for clients that do not take it, and who has to give it up.
//!
//! A connection is bounded by itself, but many slow ones together would take the host's memory. So each
//! core has a bound on all answers it holds: made and not sent, waiting for a window, or being put
//! together in slices. Above it the worst holders lose what they wait for: their calls end with
//! RESOURCE_EXHAUSTED, and if that is not enough, connections whose sockets take nothing are closed.
//! Worst is who holds most for longest: bytes times the time since any of them were taken. So a client
//! that reads a large answer as fast as it can is not cut off for those that have stopped.
//!
//! Always true here: the largest holder alone never passes the bound, so one answer of any size can be
//! had. Runs on a net core; the look at all connections is taken only above the bound, and not again
//! before more is held.

use std::cell::Cell;
use std::cmp::Reverse;
use std::rc::Rc;

use wire::h2::budget::{Budget, Rate};

use super::calls::Calls;
use super::connection::Connection;
use super::core::{Clock, NetCore};

/// What clients are told whose calls end.
pub const GIVE_UP: &str =
    "pilaster: too many answers wait for clients that do not take them, this one's among the most";

/// Bytes of answers that a net core holds.
pub struct Held {
    bytes_max: usize,
    bytes: Cell<usize>,
    clock: Clock,
    /// Above this the connections are looked at.
    looks_above: Cell<usize>,
    calls_ended: Cell<u64>,
    lines: Cell<Budget>,
}

/// What one connection holds of its core's bound.
pub struct Holding {
    core: Rc<Held>,
    /// As it was booked last.
    bytes: Cell<usize>,
    /// Of that, replies under way in slices.
    building: Cell<usize>,
    /// When some of it was taken last, or became longer if it is under way.
    progress_ns: Cell<u64>,
    given_up: Cell<u32>,
}

/// Log lines at once, and how many more each second.
const LINES: Rate = Rate {
    burst: 2,
    per_second: 1,
};

impl Held {
    pub fn new(bytes_max: usize, clock: Clock) -> Held {
        Held {
            bytes_max,
            bytes: Cell::new(0),
            clock,
            looks_above: Cell::new(bytes_max),
            calls_ended: Cell::new(0),
            lines: Cell::new(Budget::new(LINES, 0)),
        }
    }

    /// A connection holds `now` bytes and held `before`.
    #[inline]
    pub fn change(&self, before: usize, now: usize) {
        if before != now {
            self.bytes.set((self.bytes.get() + now) - before);
        }
    }

    /// For noting when clients took something.
    pub fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// One call that was still being answered has ended for this.
    pub fn count_call(&self) {
        self.calls_ended.set(self.calls_ended.get() + 1);
    }

    /// Calls that lost their answers.
    pub fn calls_ended(&self) -> u64 {
        self.calls_ended.get()
    }

    /// Whether it is time to look at who holds how much.
    #[inline]
    fn is_due(&self) -> bool {
        let bytes = self.bytes.get();
        if bytes <= self.bytes_max {
            self.looks_above.set(self.bytes_max);
        }
        bytes > self.looks_above.get()
    }

    /// Down to this, so that not every further answer begins it all again.
    fn target(&self) -> usize {
        self.bytes_max / 8 * 7
    }

    /// Whether the bound is passed, given what the largest holder has.
    fn is_passed(&self, largest: usize) -> bool {
        let bytes = self.bytes.get();
        let is_passed = bytes - largest > self.bytes_max;
        if !is_passed {
            self.looks_above.set(bytes + self.bytes_max / 8);
        }
        is_passed
    }
}

impl Holding {
    pub fn new(core: Rc<Held>) -> Holding {
        Holding {
            core,
            bytes: Cell::new(0),
            building: Cell::new(0),
            progress_ns: Cell::new(0),
            given_up: Cell::new(0),
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// `waiting` bytes are made and not sent; `None` books everything out.
    pub fn book(&self, waiting: Option<usize>) {
        let now = waiting.map_or(0, |waiting| waiting + self.building.get());
        let before = self.bytes.replace(now);
        if before == 0 {
            self.note_progress();
        }
        self.core.change(before, now);
    }

    /// The peer took something, or there is more of what is under way. Costs nothing where nothing waits.
    pub fn note_progress(&self) {
        if self.bytes.get() > 0 {
            self.progress_ns.set(self.core.now_ns());
        }
    }

    /// A reply under way has become longer or is no more; to be booked.
    pub fn change_building(&self, before: usize, now: usize) {
        let building = self.building.get() + now;
        self.building.set(building.saturating_sub(before));
    }

    /// Replies under way are given up; to be booked.
    pub fn give_up_building(&self) {
        if self.building.replace(0) > 0 {
            self.given_up.set(self.given_up.get() + 1);
        }
    }

    /// How often replies under way had to be given up: a reply that was begun at another number ends.
    pub fn given_up(&self) -> u32 {
        self.given_up.get()
    }

    /// How bad it is that this is held: bytes times milliseconds without progress.
    fn cost(&self, now_ns: u64) -> u128 {
        const MILLISECOND_NS: u64 = 1_000_000;
        let age_ms = now_ns.saturating_sub(self.progress_ns.get()) / MILLISECOND_NS;
        self.bytes.get() as u128 * u128::from(age_ms + 1)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.book(None);
    }
}

impl NetCore {
    /// Lets the largest holders give up what they hold, if the bound is passed.
    #[inline]
    pub fn keep_held_bounded(&self) {
        if self.held.is_due() {
            self.shed();
        }
    }

    #[cold]
    fn shed(&self) {
        let mut holders: Vec<Rc<Connection>> = self
            .connections
            .borrow()
            .iter()
            .cloned()
            .chain(self.closing())
            .filter(|connection| connection.holding().bytes() > 0)
            .collect();
        let largest = holders
            .iter()
            .map(|connection| connection.holding().bytes());
        let largest = largest.max().unwrap_or(0);
        let now_ns = self.clock.now_ns();
        holders.sort_by_cached_key(|connection| Reverse(connection.holding().cost(now_ns)));
        if !self.held.is_passed(largest) {
            return;
        }
        let before = self.held.bytes();
        let (mut calls, mut closed) = (0, 0);
        for connection in &holders {
            if self.held.bytes() <= self.held.target() {
                break;
            }
            let held = connection.holding().bytes();
            let mut state = self.state.borrow_mut();
            let mut service = Calls {
                state: &mut state,
                connection: connection.key,
                common_name: &connection.common_name,
                acts_for: None,
            };
            calls += connection.give_up(&mut service);
            drop(state);
            if connection.is_stuck() && held / 2 < connection.holding().bytes() {
                // Most of it is on its way to a socket that takes nothing: no call can give that up.
                connection.kill_for("slow_reader");
                closed += 1;
            } else {
                self.mark_dirty(connection);
            }
        }
        for connection in &holders {
            if self.held.bytes() <= self.held.target() {
                break;
            }
            if connection.is_stuck() {
                connection.kill_for("slow_reader");
                closed += 1;
            }
        }
        let ended = &self.held.calls_ended;
        ended.set(ended.get() + calls as u64);
        let mut lines = self.held.lines.get();
        let is_told = lines.take(LINES, now_ns);
        self.held.lines.set(lines);
        if !is_told {
            return;
        }
        tracing::warn!(
            held_bytes = before,
            now_bytes = self.held.bytes(),
            bytes_max = self.held.bytes_max,
            calls,
            closed,
            calls_since_start = self.held.calls_ended(),
            "clients do not take their answers; those who held most for longest were cut off"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_holder_alone_may_pass_the_bound() {
        let held = Held::new(800, Clock::start());
        held.change(0, 800);
        assert!(!held.is_due());
        held.change(0, 1);
        assert!(held.is_due());
        // One of 700 and one of 101.
        assert!(!held.is_passed(700));
        // Nobody looks again before more is held.
        assert!(!held.is_due());
        held.change(101, 201);
        assert!(!held.is_due());
        held.change(201, 202);
        assert!(held.is_due());
        held.change(700, 900);
        assert!(!held.is_passed(900));
        held.change(202, 2000);
        assert!(held.is_due() && held.is_passed(2000));
        held.change(2000, 0);
        held.change(900, 100);
        assert!(!held.is_due());
        // Down below the bound: the next look is at the bound again.
        held.change(100, 801);
        assert!(held.is_due());
    }
}
