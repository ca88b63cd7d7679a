//! One round: a part of the history, the watchers it concerns, and how far it has been handed out.
//!
//! Matching copies the records that somebody watches and lists who gets which of them, class by class. Handing out may
//! then take several turns: a round owns all it needs, and names watchers by ids, so those that leave meanwhile are
//! simply not found.
//!
//! Always true: a round ends at the end of a revision; a watcher is in it at most once; each message is encoded once for
//! all watchers of its class. Bounded by [`RECORDS_MAX`] and its siblings, except that one revision always fits.

use std::ops::{ControlFlow, Range};

use storage::mvcc::{KeyValue, ReadView, TreeSnapshot};
use wire::kv::{ResponseHeader, WatchEvent, put_watch_event, record_key};

use super::matcher::{Matcher, Wants};
use super::slots::Id;

/// Records looked at in one round; a few tens of microseconds.
const RECORDS_MAX: usize = 512;
/// Bytes of records that somebody watches. It is also about the largest message, unless one revision is larger or
/// previous records were asked for.
const BYTES_MAX: usize = 16 << 10;
/// Pairs of an event and a group that watches it.
const PAIRS_MAX: usize = 4096;
/// Memory of a round that is kept for the next one.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// A stored change that somebody watches.
struct Event {
    revision: i64,
    is_delete: bool,
    record: Range<usize>,
}

/// One message and whom it goes to.
struct Item {
    what: What,
    /// Into `Round::watchers`.
    watchers: Range<usize>,
}

enum What {
    /// Events by `Round::pairs`, as these watchers want them.
    Events { wants: Wants, pairs: Range<usize> },
    /// The history these watchers must read is gone.
    Compacted { compact_revision: i64 },
}

/// The message in hand: what is the same for all watchers of a class.
#[derive(Default)]
pub struct Body {
    /// The header, as field 1.
    pub head: Vec<u8>,
    /// What follows the id.
    pub rest: Vec<u8>,
    /// Where each event ends in `rest`.
    pub ends: Vec<usize>,
    /// A watcher that cannot take this goes on from here.
    pub first: i64,
    /// Set in the message that ends a watcher.
    pub compact_revision: Option<i64>,
}

#[derive(Default)]
pub struct Round {
    /// The last revision that was read.
    pub through: i64,
    /// The revision in the messages' headers; `None`: that of each message's last event.
    shown: Option<i64>,
    bytes: Vec<u8>,
    events: Vec<Event>,
    /// Group and event; by group, and in a group by event, once matching is done.
    pairs: Vec<(u32, u32)>,
    items: Vec<Item>,
    watchers: Vec<Id>,
    /// The item in hand, and how many of its watchers are done.
    item: usize,
    done: usize,
    body: Body,
    has_body: bool,
}

impl Round {
    /// Reads the history from `from` on, at most through `through`, and lists who of `matcher` gets what.
    /// Returns the records looked at.
    pub fn read<T: TreeSnapshot>(
        &mut self,
        view: &ReadView<T>,
        matcher: &Matcher,
        (from, through): (i64, i64),
        shown: Option<i64>,
    ) -> usize {
        self.clear();
        self.shown = shown;
        self.through = through;
        let mut looked_at = 0;
        let mut main = 0;
        let (bytes, events, pairs) = (&mut self.bytes, &mut self.events, &mut self.pairs);
        let mut cut = None;
        view.changes(from, through, &mut |change| {
            if change.revision.main != main {
                let is_full = looked_at >= RECORDS_MAX
                    || bytes.len() >= BYTES_MAX
                    || pairs.len() >= PAIRS_MAX;
                if is_full {
                    cut = Some(main);
                    return ControlFlow::Break(());
                }
                main = change.revision.main;
            }
            looked_at += 1;
            let key = record_key(change.record).expect("the store's records have their keys");
            let event = events.len() as u32;
            let before = pairs.len();
            matcher.visit(key, |group| pairs.push((group, event)));
            if before < pairs.len() {
                let start = bytes.len();
                bytes.extend_from_slice(change.record);
                events.push(Event {
                    revision: main,
                    is_delete: change.is_tombstone,
                    record: start..bytes.len(),
                });
            }
            ControlFlow::Continue(())
        });
        self.through = cut.unwrap_or(through);
        self.list(matcher);
        looked_at
    }

    /// A round that tells all of `matcher` that their history is gone.
    pub fn cancel(&mut self, matcher: &Matcher, at: i64, compact_revision: i64) {
        self.clear();
        self.through = at - 1;
        self.watchers.extend(matcher.all());
        self.items.push(Item {
            what: What::Compacted { compact_revision },
            watchers: 0..self.watchers.len(),
        });
    }

    fn list(&mut self, matcher: &Matcher) {
        // Events of a group stay in their order: the numbers ascend.
        self.pairs.sort_unstable();
        let mut start = 0;
        while let Some(&(group, _)) = self.pairs.get(start) {
            let count = self.pairs[start..].partition_point(|pair| pair.0 == group);
            for (wants, watchers) in matcher.classes(group) {
                let first = self.watchers.len();
                self.watchers.extend_from_slice(watchers);
                self.items.push(Item {
                    what: What::Events {
                        wants,
                        pairs: start..start + count,
                    },
                    watchers: first..self.watchers.len(),
                });
            }
            start += count;
        }
    }

    /// Events that wait for their watchers.
    pub fn pending(&self) -> usize {
        let items = self.items.get(self.item..).unwrap_or_default();
        let waiting = |item: &Item| match &item.what {
            What::Events { pairs, .. } => pairs.len() * item.watchers.len(),
            What::Compacted { .. } => 0,
        };
        items.iter().map(waiting).sum()
    }

    /// The next watcher and its message; `None` when all is handed out. A message is encoded when its first
    /// watcher comes up, which adds its bytes to `encoded`.
    pub fn next<T: TreeSnapshot>(
        &mut self,
        encoded: &mut usize,
        view: &mut dyn FnMut() -> ReadView<T>,
        header: &mut dyn FnMut(i64) -> ResponseHeader,
    ) -> Option<(Id, &Body)> {
        loop {
            let item = self.items.get(self.item)?;
            if !self.has_body {
                self.has_body = true;
                encode(
                    &mut self.body,
                    &item.what,
                    (&self.events, &self.pairs, &self.bytes),
                    view,
                );
                let shown = match self.body.compact_revision {
                    Some(_) => 0,
                    None => self.shown.unwrap_or_else(|| {
                        last_revision(&item.what, &self.events, &self.pairs).unwrap_or(0)
                    }),
                };
                header(shown).put(&mut self.body.head);
                *encoded += self.body.rest.len();
            }
            let is_empty = self.body.ends.is_empty() && self.body.compact_revision.is_none();
            if !is_empty && self.done < item.watchers.len() {
                let id = self.watchers[item.watchers.start + self.done];
                self.done += 1;
                return Some((id, &self.body));
            }
            self.item += 1;
            self.done = 0;
            self.has_body = false;
        }
    }

    fn clear(&mut self) {
        let held = self.bytes.capacity()
            + self.body.rest.capacity()
            + self.pairs.capacity() * size_of::<(u32, u32)>()
            + self.watchers.capacity() * size_of::<Id>();
        if held > SPARE_BYTES_MAX {
            *self = Round::default();
        }
        self.bytes.clear();
        self.events.clear();
        self.pairs.clear();
        self.items.clear();
        self.watchers.clear();
        self.item = 0;
        self.done = 0;
        self.has_body = false;
    }
}

/// The events of a message, filtered.
fn wanted<'a>(
    what: &'a What,
    events: &'a [Event],
    pairs: &'a [(u32, u32)],
) -> impl DoubleEndedIterator<Item = &'a Event> {
    let (wants, pairs) = match what {
        What::Events {
            wants,
            pairs: range,
        } => (*wants, &pairs[range.clone()]),
        What::Compacted { .. } => (Wants::default(), &[][..]),
    };
    pairs
        .iter()
        .map(|&(_, event)| &events[event as usize])
        .filter(move |event| wants.takes(event.is_delete))
}

/// The revision of a message's last event.
fn last_revision(what: &What, events: &[Event], pairs: &[(u32, u32)]) -> Option<i64> {
    let last = wanted(what, events, pairs).next_back();
    last.map(|event| event.revision)
}

fn encode<T: TreeSnapshot>(
    body: &mut Body,
    what: &What,
    (events, pairs, bytes): (&[Event], &[(u32, u32)], &[u8]),
    view: &mut dyn FnMut() -> ReadView<T>,
) {
    body.head.clear();
    body.rest.clear();
    body.ends.clear();
    body.first = 0;
    body.compact_revision = None;
    let with_prev = match what {
        What::Events { wants, .. } => wants.prev_kv(),
        What::Compacted { compact_revision } => {
            body.compact_revision = Some(*compact_revision);
            return;
        }
    };
    let view = with_prev.then(view);
    for event in wanted(what, events, pairs) {
        let record = &bytes[event.record.clone()];
        if body.ends.is_empty() {
            body.first = event.revision;
        }
        let put = |rest: &mut Vec<u8>, prev: Option<&[u8]>| {
            put_watch_event(
                rest,
                &WatchEvent {
                    deleted_at: event.is_delete.then_some(event.revision),
                    record,
                    prev,
                },
            );
        };
        match &view {
            Some(view) => put(&mut body.rest, previous(view, event, record)),
            None => put(&mut body.rest, None),
        }
        body.ends.push(body.rest.len());
    }
}

/// The record that an event replaced; nothing if it created its key, or if that revision is compacted.
fn previous<'v, T: TreeSnapshot>(
    view: &'v ReadView<T>,
    event: &Event,
    record: &[u8],
) -> Option<&'v [u8]> {
    let kv = KeyValue::parse(record).expect("the store's records can be read");
    let is_creation = !event.is_delete && kv.create_revision == event.revision;
    // At 0 the store would be asked for the newest.
    if is_creation || event.revision <= 1 {
        return None;
    }
    let found = view.get(kv.key, event.revision - 1).ok().flatten();
    found.map(|item| item.record())
}
