//! Finds the slot of an open stream by its id: a small open-addressed table.
//!
//! Ids of open streams are unique and never zero, and zero marks a free place. Linear probing, at
//! most half full, deletion by shifting back, so there are no tombstones. A client chooses the ids;
//! the worst it can do is to make a look-up walk over `concurrent_streams_max` neighbouring words.

#[derive(Debug)]
pub(super) struct StreamTable {
    places: Vec<Place>,
    shift: u32,
    count: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    id: u32,
    slot: u32,
}

const PLACES_MIN: usize = 32;

impl StreamTable {
    pub(super) fn new() -> Self {
        Self {
            places: Vec::new(),
            shift: 32,
            count: 0,
        }
    }

    /// Where the search for an id begins. Client ids are odd, so the lowest bit says nothing.
    #[inline]
    fn home(&self, id: u32) -> usize {
        ((id >> 1).wrapping_mul(0x9e37_79b1) >> self.shift) as usize
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<u32> {
        if id == 0 || self.places.is_empty() {
            return None;
        }
        let mask = self.places.len() - 1;
        let mut at = self.home(id);
        loop {
            let place = self.places[at];
            if place.id == id {
                return Some(place.slot);
            }
            if place.id == 0 {
                return None;
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds an id that is not there.
    pub(super) fn insert(&mut self, id: u32, slot: u32) {
        assert!(id != 0, "stream 0 is the connection");
        if self.places.len() <= 2 * self.count {
            self.grow();
        }
        self.place(Place { id, slot });
        self.count += 1;
    }

    pub(super) fn remove(&mut self, id: u32) {
        if self.get(id).is_none() {
            return;
        }
        let mask = self.places.len() - 1;
        let mut hole = self.home(id);
        while self.places[hole].id != id {
            hole = (hole + 1) & mask;
        }
        let mut next = (hole + 1) & mask;
        while self.places[next].id != 0 {
            // A place may move back into the hole unless the hole lies before its home.
            let distance = next.wrapping_sub(self.home(self.places[next].id)) & mask;
            if distance >= (next.wrapping_sub(hole) & mask) {
                self.places[hole] = self.places[next];
                hole = next;
            }
            next = (next + 1) & mask;
        }
        self.places[hole] = Place::default();
        self.count -= 1;
    }

    fn place(&mut self, place: Place) {
        let mask = self.places.len() - 1;
        let mut at = self.home(place.id);
        while self.places[at].id != 0 {
            at = (at + 1) & mask;
        }
        self.places[at] = place;
    }

    #[cold]
    fn grow(&mut self) {
        let length = (self.places.len() * 2).max(PLACES_MIN);
        let old = std::mem::replace(&mut self.places, vec![Place::default(); length]);
        self.shift = 32 - length.trailing_zeros();
        for place in old.into_iter().filter(|place| place.id != 0) {
            self.place(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn agrees_with_a_map() {
        let (mut table, mut model) = (StreamTable::new(), BTreeMap::new());
        let mut seed = 1u32;
        for round in 0..20_000u32 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let id = (seed >> 20 & 0x1ff) * 2 + 1;
            if model.remove(&id).is_some() {
                table.remove(id);
            } else {
                model.insert(id, round);
                table.insert(id, round);
            }
            let probe = (seed >> 8 & 0x1ff) * 2 + 1;
            assert_eq!(table.get(probe), model.get(&probe).copied());
            assert_eq!(table.count, model.len());
        }
        table.remove(99_999);
        assert_eq!(table.get(0), None);
    }
}
