//! Bounded single-producer single-consumer rings between stages, with a doorbell.
//!
//! Always true here: an item is in the ring before the doorbell rings. Between stages of one core
//! the ring is a plain queue in that core's cache and the doorbell a local flag, so nothing crosses
//! a thread; between cores the doorbell is a byte on a socket the other core polls.
//!
//! A producer that can not refuse and finds its ring full keeps what is left and says so in the ring's
//! `is_starved`; the consumer rings back when it has made room. No wake-up is lost between them:
//! the producer raises the flag and then tries once more; the consumer, before it rests, has emptied the
//! ring and then looks at the flag; between its two steps each has a full fence, so at least one of
//! them sees what the other did (the store-buffer argument).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

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
pub struct Outbox<T> {
    producer: rtrb::Producer<T>,
    is_starved: Arc<AtomicBool>,
}

/// The consuming end of a ring, not yet on its core; see [`Inlet::with_doorbell`].
pub struct Inlet<T> {
    consumer: rtrb::Consumer<T>,
    is_starved: Arc<AtomicBool>,
}

/// The consuming end with the doorbell of the stage that fills it.
pub struct Inbox<T> {
    consumer: rtrb::Consumer<T>,
    is_starved: Arc<AtomicBool>,
    producer: Doorbell,
}

/// The producing end with the doorbell of the stage that reads.
pub struct Watcher<T> {
    producer: rtrb::Producer<T>,
    doorbell: Doorbell,
    is_starved: Arc<AtomicBool>,
    /// Something was pushed since the doorbell last rang.
    is_owed: bool,
}

/// A ring of `capacity` items.
pub fn ring<T>(capacity: usize) -> (Outbox<T>, Inlet<T>) {
    let (producer, consumer) = rtrb::RingBuffer::new(capacity);
    let is_starved = Arc::new(AtomicBool::new(false));
    let outbox = Outbox {
        producer,
        is_starved: is_starved.clone(),
    };
    (
        outbox,
        Inlet {
            consumer,
            is_starved,
        },
    )
}

impl<T> Outbox<T> {
    pub fn with_doorbell(self, doorbell: Doorbell) -> Watcher<T> {
        Watcher {
            producer: self.producer,
            doorbell,
            is_starved: self.is_starved,
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

    /// As [`Watcher::push`], for a producer that keeps what does not fit: it is rung when there is room.
    fn push_or_starve(&mut self, item: T) -> Result<(), T> {
        let item = match self.push(item) {
            Ok(()) => return Ok(()),
            Err(item) => item,
        };
        self.is_starved.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.push(item)
    }

    /// Items that still fit.
    pub fn room(&self) -> usize {
        self.producer.slots()
    }
}

/// The producing end for a stage that cannot refuse: what does not fit waits here in order, and the
/// reader rings when it has made room; the stage then calls [`Spill::flush`].
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
        if let Err(item) = self.ring.push_or_starve(item) {
            self.waiting.push_back(item);
        }
    }

    /// Moves what waited into the ring as far as it fits, and wakes the reader if anything is new.
    pub fn flush(&mut self) {
        while let Some(item) = self.waiting.pop_front() {
            if let Err(item) = self.ring.push_or_starve(item) {
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

impl<T> Inlet<T> {
    /// `producer` wakes the stage that fills the ring.
    pub fn with_doorbell(self, producer: Doorbell) -> Inbox<T> {
        Inbox {
            consumer: self.consumer,
            is_starved: self.is_starved,
            producer,
        }
    }
}

impl<T> Inbox<T> {
    pub fn pop(&mut self) -> Option<T> {
        let item = self.consumer.pop().ok();
        // A producer waits for room: it is rung when half of the ring is free, so that it fills while
        // the rest is worked off, and at the latest when the ring is empty.
        let is_roomy = match item {
            Some(_) => {
                self.is_starved.load(Ordering::Relaxed)
                    && self.consumer.slots() <= self.consumer.buffer().capacity() / 2
            }
            None => {
                fence(Ordering::SeqCst);
                self.is_starved.load(Ordering::Relaxed)
            }
        };
        if is_roomy && self.is_starved.swap(false, Ordering::Relaxed) {
            self.producer.ring();
        }
        item
    }

    pub fn len(&self) -> usize {
        self.consumer.slots()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Bell;
    use std::pin::pin;
    use std::task::{Context, Waker};

    /// Whether the bell was rung since the last look.
    fn rung(signal: &Signal) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(signal.wait()).poll(&mut context).is_ready()
    }

    #[test]
    fn a_full_ring_is_filled_again_when_the_reader_made_room() {
        let (to_reader, to_producer) = (Signal::new(), Signal::new());
        let (outbox, inlet) = ring(4);
        let mut inbox = inlet.with_doorbell(Doorbell::Local(to_producer.clone()));
        let mut spill = Spill::new(outbox.with_doorbell(Doorbell::Local(to_reader.clone())));
        for item in 0..4 {
            spill.push(item);
        }
        spill.flush();
        assert!(rung(&to_reader) && !rung(&to_producer));
        assert_eq!(inbox.pop(), Some(0));
        assert!(!rung(&to_producer), "nobody waits for room");
        for item in 4..10 {
            spill.push(item);
        }
        spill.flush();
        assert_eq!(spill.waiting(), 5);
        // Half of the ring free: early enough to fill it before it is empty.
        assert_eq!(inbox.pop(), Some(1));
        assert!(!rung(&to_producer), "too early");
        assert_eq!(inbox.pop(), Some(2));
        assert!(rung(&to_producer), "room was made");
        spill.flush();
        assert!(rung(&to_reader));
        let mut taken = vec![];
        while let Some(item) = inbox.pop() {
            taken.push(item);
            if rung(&to_producer) {
                spill.flush();
            }
        }
        assert_eq!(taken, [3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(spill.waiting(), 0);
        assert!(!rung(&to_producer));
    }

    #[test]
    fn a_ring_that_refuses_rings_nobody_back() {
        let producer = Signal::new();
        let (outbox, inlet) = ring(2);
        let mut inbox = inlet.with_doorbell(Doorbell::Local(producer.clone()));
        let mut watcher = outbox.with_doorbell(Doorbell::Local(Signal::new()));
        assert_eq!((watcher.push(1), watcher.push(2)), (Ok(()), Ok(())));
        assert_eq!(watcher.push(3), Err(3));
        while inbox.pop().is_some() {}
        assert!(!rung(&producer));
    }

    /// Two threads, a tiny ring, and nothing but doorbells to wake either: it ends only if none is lost.
    #[test]
    fn no_wake_up_is_lost_between_threads() {
        const ITEMS: u64 = 200_000;
        let (to_reader, to_producer) = (Bell::new().unwrap(), Bell::new().unwrap());
        let (reader_bell, producer_bell) = (to_reader.ringer(), to_producer.ringer());
        let (outbox, inlet) = ring(3);
        let producer = std::thread::spawn(move || {
            let mut spill = Spill::new(outbox.with_doorbell(Doorbell::Bell(reader_bell)));
            let mut next = 0;
            while next < ITEMS || spill.waiting() > 0 {
                while next < ITEMS && spill.waiting() < 8 {
                    spill.push(next);
                    next += 1;
                }
                spill.flush();
                if spill.waiting() > 0 {
                    to_producer.wait_blocking();
                }
            }
        });
        let mut inbox = inlet.with_doorbell(Doorbell::Bell(producer_bell));
        let mut wanted = 0;
        while wanted < ITEMS {
            while let Some(item) = inbox.pop() {
                assert_eq!(item, wanted);
                wanted += 1;
            }
            if wanted < ITEMS {
                to_reader.wait_blocking();
            }
        }
        producer.join().unwrap();
    }
}
