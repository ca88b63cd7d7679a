//! Things with names that are never used twice.
//!
//! Always true: an id whose thing is gone finds nothing, also when its slot is taken again; so lists of ids may be older
//! than what they name. One owner.

use slab::Slab;

/// Names one thing in one [`Slots`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Id {
    pub(super) slot: u32,
    pub(super) life: u32,
}

#[derive(Debug)]
pub struct Slots<T> {
    slots: Slab<(u32, T)>,
    /// Counts insertions, so that 2^32 of them lie between two equal lives.
    lives: u32,
}

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots {
            slots: Slab::new(),
            lives: 0,
        }
    }
}

impl<T> Slots<T> {
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub fn insert(&mut self, thing: T) -> Id {
        self.lives = self.lives.wrapping_add(1);
        let slot = self.slots.insert((self.lives, thing));
        Id {
            slot: u32::try_from(slot).expect("what is kept here is bounded far below"),
            life: self.lives,
        }
    }

    pub fn get(&self, id: Id) -> Option<&T> {
        self.slots
            .get(id.slot as usize)
            .filter(|(life, _)| *life == id.life)
            .map(|(_, thing)| thing)
    }

    pub fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        self.slots
            .get_mut(id.slot as usize)
            .filter(|(life, _)| *life == id.life)
            .map(|(_, thing)| thing)
    }

    pub fn remove(&mut self, id: Id) -> Option<T> {
        self.get(id)?;
        let (_, thing) = self.slots.remove(id.slot as usize);
        if self.slots.is_empty() {
            // What a crowd needed is not kept for ever.
            self.slots = Slab::new();
        }
        Some(thing)
    }

    pub fn ids(&self) -> impl Iterator<Item = Id> {
        self.slots.iter().map(|(slot, (life, _))| Id {
            slot: slot as u32,
            life: *life,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_id_finds_nothing() {
        let mut slots = Slots::default();
        let first = slots.insert('a');
        assert_eq!(slots.remove(first), Some('a'));
        let second = slots.insert('b');
        assert_eq!(first.slot, second.slot);
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&'b'));
        assert_eq!(slots.ids().collect::<Vec<_>>(), [second]);
    }
}
