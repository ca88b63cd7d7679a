//! Which connections are let in when there are as many as may be, and what the log says of that.
//!
//! A core that is full lets a new connection in by closing the one that has been silent longest, not
//! one byte in its life: whoever opens connections and says nothing can not lock out those who speak.
//! Where nobody is silent the new one is refused. Always true here: a connection that has spoken is
//! never closed to make room; an episode of shortage is logged once when it begins and once when it is
//! over, however many are refused.
//!
//! Runs on a net core, which does the accepting and closing. Knows no socket and no clock.

use std::collections::VecDeque;
use std::time::Duration;

use super::connection::ConnectionKey;
use super::core::CONNECTIONS_MAX;

/// Connections told to go whose tasks have not ended yet, beyond the bound; one more waits.
const GOING_MAX: usize = 16;
/// What a connection may at least take to say its first word: its bytes may lie in the kernel already.
const GRACE_NS: u64 = 100_000_000;
/// A shortage is over when nobody was refused or closed for this long.
const QUIET_NS: u64 = 60_000_000_000;

/// What there is not enough of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shortage {
    /// The core's bound on connections is reached.
    Connections,
    /// The system has no descriptor for one more.
    Descriptors,
}

/// What is to become of a new connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Admit,
    /// Close this one, which has never spoken, and admit the new one.
    Replace(ConnectionKey),
    /// Ask again soon: the silent have only just come, or are on their way out.
    Wait,
    Refuse,
}

/// A shortage that is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Episode {
    pub refused: u64,
    /// Silent connections closed for others.
    pub replaced: u64,
    pub lasted: Duration,
    began_ns: u64,
    last_ns: u64,
}

pub struct Admission {
    connections_max: usize,
    /// Oldest first, with the time they came. Those that have spoken or gone since are taken out when they
    /// come to the front.
    silent: VecDeque<(ConnectionKey, u64)>,
    going: usize,
    episode: Option<Episode>,
}

impl Admission {
    pub fn new(connections_max: usize) -> Admission {
        Admission {
            connections_max,
            silent: VecDeque::new(),
            going: 0,
            episode: None,
        }
    }

    /// Decides on a new connection while `open` are open. `is_silent` tells whether a connection is
    /// still there and has never spoken.
    pub fn decide(
        &mut self,
        now_ns: u64,
        open: usize,
        is_silent: impl Fn(ConnectionKey) -> bool,
    ) -> Verdict {
        self.forget_front(&is_silent);
        if open < self.connections_max + self.going {
            return Verdict::Admit;
        }
        self.give_up_oldest(now_ns)
    }

    /// A connection that has not spoken yet was let in.
    pub fn entered(&mut self, key: ConnectionKey, now_ns: u64) {
        self.silent.push_back((key, now_ns));
    }

    /// A connection that had to make room is closed.
    pub fn gone(&mut self) {
        self.going = self.going.saturating_sub(1);
    }

    /// The system had no descriptor: the one to close for the next, if anybody is silent.
    pub fn relieve(&mut self, now_ns: u64, is_silent: impl Fn(ConnectionKey) -> bool) -> Verdict {
        self.forget_front(&is_silent);
        self.give_up_oldest(now_ns)
    }

    /// Notes that somebody was refused or replaced, and logs the first of an episode.
    pub fn note(&mut self, now_ns: u64, verdict: Verdict, shortage: Shortage, open: usize) {
        let episode = self.episode.get_or_insert_with(|| {
            log_begin(shortage, open, self.connections_max);
            Episode {
                refused: 0,
                replaced: 0,
                lasted: Duration::ZERO,
                began_ns: now_ns,
                last_ns: now_ns,
            }
        });
        episode.last_ns = now_ns;
        match verdict {
            Verdict::Admit | Verdict::Wait => {}
            Verdict::Replace(_) => episode.replaced += 1,
            Verdict::Refuse => episode.refused += 1,
        }
    }

    /// The episode that has come to its end, once.
    pub fn take_ended(&mut self, now_ns: u64) -> Option<Episode> {
        let episode = self.episode?;
        if now_ns.saturating_sub(episode.last_ns) < QUIET_NS {
            return None;
        }
        self.episode = None;
        Some(Episode {
            lasted: Duration::from_nanos(episode.last_ns - episode.began_ns),
            ..episode
        })
    }

    /// Keeps the list as short as what arrived within the handshake timeout.
    fn forget_front(&mut self, is_silent: &impl Fn(ConnectionKey) -> bool) {
        while self.silent.front().is_some_and(|(key, _)| !is_silent(*key)) {
            self.silent.pop_front();
        }
    }

    fn give_up_oldest(&mut self, now_ns: u64) -> Verdict {
        match self.silent.front() {
            None => Verdict::Refuse,
            Some((_, came_ns))
                if self.going >= GOING_MAX || now_ns < came_ns.saturating_add(GRACE_NS) =>
            {
                Verdict::Wait
            }
            Some(&(key, _)) => {
                self.silent.pop_front();
                self.going += 1;
                Verdict::Replace(key)
            }
        }
    }
}

fn log_begin(shortage: Shortage, open: usize, connections_max: usize) {
    const FILES: &str = "raise the hard limit of open files (LimitNOFILE= in a systemd unit, `ulimit -Hn`, --ulimit nofile= for a container)";
    match shortage {
        Shortage::Descriptors => tracing::warn!(
            open,
            connections_max,
            "connections can not be accepted: no file descriptor is left; {FILES}, and see what else in this process or on this host holds them"
        ),
        Shortage::Connections if connections_max < CONNECTIONS_MAX => tracing::warn!(
            open,
            connections_max,
            "a net core has as many connections as it may have; new ones take the place of those that have never spoken, or are refused; {FILES}, or find out who opens so many"
        ),
        Shortage::Connections => tracing::warn!(
            open,
            connections_max,
            "a net core has as many connections as it may have; new ones take the place of those that have never spoken, or are refused; give the member more cores (--cores), or find out who opens so many"
        ),
    }
}

pub fn log_end(episode: &Episode) {
    tracing::info!(
        refused = episode.refused,
        replaced = episode.replaced,
        lasted = ?episode.lasted,
        "connections are let in again"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn key(slot: u32) -> ConnectionKey {
        ConnectionKey { slot, life: slot }
    }

    /// A table of connections and what they have said.
    #[derive(Default)]
    struct Table {
        now_ns: u64,
        open: BTreeSet<u32>,
        spoke: BTreeSet<u32>,
    }

    impl Table {
        fn connect(&mut self, admission: &mut Admission, slot: u32) -> Verdict {
            let is_silent = |key: ConnectionKey| {
                self.open.contains(&key.slot) && !self.spoke.contains(&key.slot)
            };
            let verdict = admission.decide(self.now_ns, self.open.len(), is_silent);
            if matches!(verdict, Verdict::Admit | Verdict::Replace(_)) {
                self.open.insert(slot);
                admission.entered(key(slot), self.now_ns);
            }
            verdict
        }
    }

    #[test]
    fn the_silent_make_room_for_new_ones_oldest_first() {
        let mut admission = Admission::new(3);
        let mut table = Table::default();
        for slot in 1..=3 {
            assert_eq!(table.connect(&mut admission, slot), Verdict::Admit);
        }
        table.spoke.insert(1);
        table.now_ns = GRACE_NS - 1;
        assert_eq!(table.connect(&mut admission, 4), Verdict::Wait, "just come");
        table.now_ns = GRACE_NS;
        assert_eq!(table.connect(&mut admission, 4), Verdict::Replace(key(2)));
        // The second is on its way out and still counts as open.
        assert_eq!(table.connect(&mut admission, 5), Verdict::Replace(key(3)));
        for gone in [2, 3] {
            table.open.remove(&gone);
            admission.gone();
        }
        table.spoke.extend([4, 5]);
        assert_eq!(table.connect(&mut admission, 6), Verdict::Refuse);
        table.open.remove(&1);
        assert_eq!(table.connect(&mut admission, 6), Verdict::Admit);
    }

    #[test]
    fn only_so_many_are_on_their_way_out() {
        let mut admission = Admission::new(100);
        let mut table = Table::default();
        for slot in 0..100 {
            table.connect(&mut admission, slot);
        }
        table.now_ns = GRACE_NS;
        let replaced = (100..200)
            .take_while(|slot| table.connect(&mut admission, *slot) != Verdict::Wait)
            .count();
        assert_eq!(replaced, GOING_MAX);
        assert_eq!(table.open.len(), 100 + GOING_MAX);
        table.open.remove(&0);
        admission.gone();
        assert_eq!(
            table.connect(&mut admission, 200),
            Verdict::Replace(key(GOING_MAX as u32))
        );
        table.spoke.extend(0..=200);
        assert_eq!(table.connect(&mut admission, 201), Verdict::Refuse);
    }

    #[test]
    fn those_who_have_spoken_or_gone_are_forgotten() {
        let mut admission = Admission::new(10);
        let mut table = Table::default();
        for slot in 0..10_000 {
            assert_eq!(table.connect(&mut admission, slot), Verdict::Admit);
            match slot % 2 {
                0 => table.spoke.insert(slot),
                _ => false,
            };
            table.open.remove(&slot);
        }
        assert!(admission.silent.len() <= 1, "{}", admission.silent.len());
    }

    #[test]
    fn an_episode_is_told_once_and_ends_once() {
        let mut admission = Admission::new(1);
        assert_eq!(admission.take_ended(u64::MAX), None);
        for now_ns in [5, 10, 25] {
            admission.note(now_ns, Verdict::Refuse, Shortage::Connections, 1);
        }
        admission.note(30, Verdict::Replace(key(1)), Shortage::Descriptors, 1);
        assert_eq!(admission.take_ended(29 + QUIET_NS), None);
        let episode = admission.take_ended(30 + QUIET_NS).expect("it is over");
        assert_eq!((episode.refused, episode.replaced), (3, 1));
        assert_eq!(episode.lasted, Duration::from_nanos(25));
        assert_eq!(admission.take_ended(u64::MAX), None);
    }
}
