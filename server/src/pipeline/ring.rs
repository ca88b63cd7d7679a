//! Bounded single-producer single-consumer rings between stages, with a doorbell.
//!
//! Always true here: an item is in the ring before the doorbell rings. Between stages of one core
//! the ring is a plain queue in that core's cache and the doorbell a local flag, so nothing crosses
//! a thread; between cores the doorbell is a byte on a socket the other core polls.

use std::collections::VecDeque;

use crate::runtime::{BellRinger, Signal};

/// How to wake the stage that reads a ring.
#[derive(Clone)]
pub enum Doorbell {
    /// The reader runs on this core.
    Local(Signal),
    /// The reader runs on another core.
    Bell(BellRinger),
}

impl Doorbell {
    pub fn ring(&self) {
        match self {
            Doorbell::Local(signal) => signal.notify(),
            Doorbell::Bell(bell) => bell.ring(),
        }
    }
}

/// The producing end of a ring, not yet tied to a doorbell; may move to the producer's core.
pub struct Outbox<T>(rtrb::Producer<T>);

/// The consuming end of a ring.
pub struct Inbox<T>(rtrb::Consumer<T>);

/// The producing end with the doorbell of the stage that reads.
pub struct Watcher<T> {
    producer: rtrb::Producer<T>,
    doorbell: Doorbell,
    /// Something was pushed since the doorbell last rang.
    is_owed: bool,
}

/// A ring of `capacity` items.
pub fn ring<T>(capacity: usize) -> (Outbox<T>, Inbox<T>) {
    let (producer, consumer) = rtrb::RingBuffer::new(capacity);
    (Outbox(producer), Inbox(consumer))
}

impl<T> Outbox<T> {
    pub fn with_doorbell(self, doorbell: Doorbell) -> Watcher<T> {
        Watcher {
            producer: self.0,
            doorbell,
            is_owed: false,
        }
    }
}

impl<T> Watcher<T> {
    /// Puts `item` into the ring without waking anybody; [`Watcher::flush`] follows at the end of
    /// the pass.
    ///
    /// # Errors
    /// Gives the item back when the ring is full.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        match self.producer.push(item) {
            Ok(()) => {
                self.is_owed = true;
                Ok(())
            }
            Err(rtrb::PushError::Full(item)) => {
                // The reader may be asleep over a full ring only if it was never woken for it.
                self.flush();
                Err(item)
            }
        }
    }

    /// Wakes the reader if anything was pushed since the last flush.
    pub fn flush(&mut self) {
        if std::mem::take(&mut self.is_owed) {
            self.doorbell.ring();
        }
    }

    /// Items that still fit.
    pub fn room(&self) -> usize {
        self.producer.slots()
    }
}

/// The producing end for a stage that cannot refuse: what does not fit waits here in order.
///
/// What may wait is bounded by what the reader has asked for and not yet got (its own bound on
/// proposals, reads or unapplied entries), so this queue needs no bound of its own.
pub struct Spill<T> {
    ring: Watcher<T>,
    waiting: VecDeque<T>,
}

impl<T> Spill<T> {
    pub fn new(ring: Watcher<T>) -> Spill<T> {
        Spill {
            ring,
            waiting: VecDeque::new(),
        }
    }

    pub fn push(&mut self, item: T) {
        if !self.waiting.is_empty() {
            return self.waiting.push_back(item);
        }
        if let Err(item) = self.ring.push(item) {
            self.waiting.push_back(item);
        }
    }

    /// Moves what waited into the ring as far as it fits, and wakes the reader if anything is new.
    pub fn flush(&mut self) {
        while let Some(item) = self.waiting.pop_front() {
            if let Err(item) = self.ring.push(item) {
                self.waiting.push_front(item);
                break;
            }
        }
        self.ring.flush();
    }

    /// Items that did not fit yet.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

impl<T> Inbox<T> {
    pub fn pop(&mut self) -> Option<T> {
        self.0.pop().ok()
    }

    pub fn len(&self) -> usize {
        self.0.slots()
    }
}
