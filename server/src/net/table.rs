//! The open connections of a net core.
//!
//! Always true here: a key names one connection for ever; a key whose connection is gone finds
//! nothing, so an answer that comes late is dropped here at the latest.

use std::rc::Rc;

use super::connection::{Connection, ConnectionKey};

#[derive(Default)]
pub struct ConnectionTable {
    slots: slab::Slab<Rc<Connection>>,
    lives: u32,
}

impl ConnectionTable {
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Puts in the connection that `make` builds around its new key.
    pub fn insert(&mut self, make: impl FnOnce(ConnectionKey) -> Rc<Connection>) -> Rc<Connection> {
        let entry = self.slots.vacant_entry();
        self.lives = self.lives.wrapping_add(1);
        let slot = u32::try_from(entry.key()).expect("connections are bounded far below");
        entry
            .insert(make(ConnectionKey {
                slot,
                life: self.lives,
            }))
            .clone()
    }

    pub fn get(&self, key: ConnectionKey) -> Option<&Rc<Connection>> {
        self.slots
            .get(key.slot as usize)
            .filter(|connection| connection.key == key)
    }

    pub fn remove(&mut self, key: ConnectionKey) {
        if self.get(key).is_some() {
            self.slots.remove(key.slot as usize);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Rc<Connection>> {
        self.slots.iter().map(|(_, connection)| connection)
    }
}
