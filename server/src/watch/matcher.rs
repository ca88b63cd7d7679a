//! Who watches a key: watchers at one place in the history, grouped by what they ask.
//!
//! A hash of single keys and a tree of ranges lead to groups, one for each interval that is watched; inside a group
//! watchers that want the same events in the same form are members of one class, so what goes to them is encoded once.
//!
//! Always true: a watcher is in one class; a class and a group without watchers are gone. A [`Place`] stays true until
//! its watcher, or the last of its class, is removed: [`Matcher::remove`] says whose place has changed.
//! One owner; knows nothing of streams and revisions.

use std::collections::HashMap;
use std::rc::Rc;

use slab::Slab;

use super::interval::{End, Interval, IntervalTree};
use super::slots::Id;

/// What a watcher asked for, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Wants(u8);

impl Wants {
    const NO_PUT: u8 = 1;
    const NO_DELETE: u8 = 2;
    const PREV_KV: u8 = 4;

    pub fn new(no_put: bool, no_delete: bool, prev_kv: bool) -> Wants {
        let bit = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        Wants(
            bit(no_put, Wants::NO_PUT)
                | bit(no_delete, Wants::NO_DELETE)
                | bit(prev_kv, Wants::PREV_KV),
        )
    }

    pub fn takes(self, is_delete: bool) -> bool {
        let refused = if is_delete {
            Wants::NO_DELETE
        } else {
            Wants::NO_PUT
        };
        self.0 & refused == 0
    }

    pub fn prev_kv(self) -> bool {
        self.0 & Wants::PREV_KV != 0
    }
}

/// Where a matcher keeps a watcher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    group: u32,
    wants: Wants,
    position: u32,
}

#[derive(Debug)]
struct Group {
    interval: Interval,
    classes: Vec<Class>,
    /// Its place among all groups.
    order: u32,
}

#[derive(Debug)]
struct Class {
    wants: Wants,
    watchers: Vec<Id>,
}

#[derive(Default, Debug)]
pub struct Matcher {
    groups: Slab<Group>,
    /// All groups, in no order that means anything.
    order: Vec<u32>,
    /// Keyed, because clients choose the keys.
    singles: HashMap<Rc<[u8]>, u32>,
    ranges: IntervalTree,
    watchers: usize,
}

impl Matcher {
    pub fn len(&self) -> usize {
        self.watchers
    }

    pub fn is_empty(&self) -> bool {
        self.watchers == 0
    }

    pub fn insert(&mut self, interval: &Interval, wants: Wants, id: Id) -> Place {
        let known = match interval.end {
            End::Single => self.singles.get(&interval.key).copied(),
            End::Below(_) | End::Open => self.ranges.get(interval),
        };
        let number = known.unwrap_or_else(|| self.add_group(interval));
        let group = &mut self.groups[number as usize];
        let class = match group.classes.iter().position(|class| class.wants == wants) {
            Some(class) => &mut group.classes[class],
            None => {
                // Nearly every group has one class.
                group.classes.reserve_exact(1);
                group.classes.push(Class {
                    wants,
                    watchers: Vec::new(),
                });
                group.classes.last_mut().expect("pushed just now")
            }
        };
        if class.watchers.is_empty() {
            // Nearly every class of a single key has one watcher.
            class.watchers.reserve_exact(1);
        }
        class.watchers.push(id);
        self.watchers += 1;
        Place {
            group: number,
            wants,
            position: (class.watchers.len() - 1) as u32,
        }
    }

    /// Removes the watcher at `place`; returns the one that took its place, if any did.
    pub fn remove(&mut self, place: Place) -> Option<Id> {
        let group = &mut self.groups[place.group as usize];
        let at = group
            .classes
            .iter()
            .position(|class| class.wants == place.wants)
            .expect("a place names a class");
        let watchers = &mut group.classes[at].watchers;
        self.watchers -= 1;
        watchers.swap_remove(place.position as usize);
        let moved = watchers.get(place.position as usize).copied();
        if watchers.is_empty() {
            group.classes.swap_remove(at);
            if group.classes.is_empty() {
                self.drop_group(place.group);
            }
        }
        moved
    }

    /// Takes out any one watcher, the last of its class, so that no other place changes.
    pub fn pop(&mut self) -> Option<Id> {
        let number = *self.order.last()?;
        let group = &mut self.groups[number as usize];
        let class = group
            .classes
            .last_mut()
            .expect("a group without classes is gone");
        let id = class.watchers.pop();
        self.watchers -= usize::from(id.is_some());
        if class.watchers.is_empty() {
            group.classes.pop();
            if group.classes.is_empty() {
                self.drop_group(number);
            }
        }
        id
    }

    /// Visits the groups whose interval holds `key`.
    pub fn visit(&self, key: &[u8], mut visit: impl FnMut(u32)) {
        if let Some(group) = self.singles.get(key) {
            visit(*group);
        }
        if !self.ranges.is_empty() {
            self.ranges.visit(key, &mut visit);
        }
    }

    /// The classes of a group.
    pub fn classes(&self, group: u32) -> impl Iterator<Item = (Wants, &[Id])> {
        let classes = &self.groups[group as usize].classes;
        classes
            .iter()
            .map(|class| (class.wants, &class.watchers[..]))
    }

    /// All watchers.
    pub fn all(&self) -> impl Iterator<Item = Id> {
        self.order
            .iter()
            .flat_map(|&group| &self.groups[group as usize].classes)
            .flat_map(|class| class.watchers.iter().copied())
    }

    fn add_group(&mut self, interval: &Interval) -> u32 {
        let number = self.groups.insert(Group {
            interval: interval.clone(),
            classes: Vec::new(),
            order: self.order.len() as u32,
        }) as u32;
        self.order.push(number);
        match interval.end {
            End::Single => {
                self.singles.insert(interval.key.clone(), number);
            }
            End::Below(_) | End::Open => self.ranges.insert(interval.clone(), number),
        }
        number
    }

    fn drop_group(&mut self, number: u32) {
        let group = self.groups.remove(number as usize);
        self.order.swap_remove(group.order as usize);
        if let Some(&moved) = self.order.get(group.order as usize) {
            self.groups[moved as usize].order = group.order;
        }
        match group.interval.end {
            End::Single => {
                self.singles.remove(&group.interval.key);
            }
            End::Below(_) | End::Open => self.ranges.remove(&group.interval),
        }
        if self.order.is_empty() {
            // What a crowd needed is not kept for ever.
            *self = Matcher::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn matched(matcher: &Matcher, key: &[u8]) -> Vec<(Id, bool)> {
        let mut found = Vec::new();
        matcher.visit(key, |group| {
            for (wants, watchers) in matcher.classes(group) {
                found.extend(watchers.iter().map(|&id| (id, wants.prev_kv())));
            }
        });
        found.sort_unstable();
        found
    }

    proptest! {
        #[test]
        fn as_if_every_watcher_was_asked(
            steps in prop::collection::vec((0..10u8, 0..5u8, 0..8u8, any::<bool>()), 1..300),
        ) {
            let mut matcher = Matcher::default();
            let mut model: BTreeMap<Id, (Interval, bool, Place)> = BTreeMap::new();
            for (number, (step, key, end, prev_kv)) in steps.into_iter().enumerate() {
                match step {
                    0..6 => {
                        let end: &[u8] = match end {
                            0..3 => b"",
                            7 => b"\0",
                            end => &[b'a' + end],
                        };
                        let Some(interval) = Interval::new(&[b'a' + key], end) else { continue };
                        let id = Id { slot: number as u32, life: 7 };
                        let place = matcher.insert(&interval, Wants::new(false, false, prev_kv), id);
                        model.insert(id, (interval, prev_kv, place));
                    }
                    6..9 => {
                        let Some(&id) = model.keys().nth(usize::from(key) * model.len() / 5) else { continue };
                        let (_, _, place) = model.remove(&id).unwrap();
                        if let Some(moved) = matcher.remove(place) {
                            model.get_mut(&moved).unwrap().2 = place;
                        }
                    }
                    _ => {
                        let popped = matcher.pop();
                        prop_assert_eq!(popped.is_some(), !model.is_empty());
                        if let Some(id) = popped {
                            prop_assert!(model.remove(&id).is_some());
                        }
                    }
                }
                prop_assert_eq!(matcher.len(), model.len());
                let mut all: Vec<Id> = matcher.all().collect();
                all.sort_unstable();
                prop_assert_eq!(all, model.keys().copied().collect::<Vec<_>>());
                for key in b'`'..=b'i' {
                    let wanted: Vec<(Id, bool)> = model
                        .iter()
                        .filter(|(_, (interval, ..))| interval.contains(&[key]))
                        .map(|(id, (_, prev_kv, _))| (*id, *prev_kv))
                        .collect();
                    prop_assert_eq!(matched(&matcher, &[key]), wanted);
                }
            }
        }
    }
}
