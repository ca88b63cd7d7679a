//! Which descriptors have news, as the kernel tells it once for each change.
//!
//! The kernel reports edges: a descriptor is named when something arrives or room appears, and not
//! again until more does. So what it said is remembered here as a flag, and only an operation that
//! found nothing (or took all there was) takes the flag down.
//!
//! Always true here: a flag that is down has its edge still to come; a waker is stored before its
//! task sleeps; a source leaves the table before its descriptor is closed.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Token};
use slab::Slab;

/// News taken from the kernel in one call; more wait there for the next.
const EVENTS_PER_CALL: usize = 1024;

/// The descriptors of one core that somebody may wait for.
pub(super) struct Poller {
    poll: RefCell<mio::Poll>,
    events: RefCell<Events>,
    sources: RefCell<Slab<Rc<Readiness>>>,
}

/// What is known of one direction of a descriptor.
#[derive(Default)]
pub(super) struct Direction {
    is_ready: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

/// What is known of one descriptor.
#[derive(Default)]
pub(super) struct Readiness {
    pub(super) reading: Direction,
    pub(super) writing: Direction,
    /// The peer has ended its direction or the descriptor failed: no further edge is promised, so
    /// reading stays ready and the operation itself tells.
    is_read_over: Cell<bool>,
}

impl Poller {
    /// # Errors
    /// The process is out of descriptors.
    pub(super) fn new() -> io::Result<Poller> {
        Ok(Poller {
            poll: RefCell::new(mio::Poll::new()?),
            events: RefCell::new(Events::with_capacity(EVENTS_PER_CALL)),
            sources: RefCell::default(),
        })
    }

    /// Begins to watch `fd`, which must be taken out with [`Poller::remove`] before it is closed.
    pub(super) fn add(&self, fd: RawFd) -> io::Result<(usize, Rc<Readiness>)> {
        let mut sources = self.sources.borrow_mut();
        let slot = sources.vacant_entry();
        let key = slot.key();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let poll = self.poll.borrow();
        poll.registry()
            .register(&mut SourceFd(&fd), Token(key), interest)?;
        let readiness = Rc::<Readiness>::default();
        slot.insert(readiness.clone());
        Ok((key, readiness))
    }

    pub(super) fn remove(&self, key: usize, fd: RawFd) {
        self.sources.borrow_mut().remove(key);
        // The kernel can only answer that it does not know the descriptor, which is what we want.
        let _ = self.poll.borrow().registry().deregister(&mut SourceFd(&fd));
    }

    /// Waits at most `patience` for news and wakes whom they concern; false if there were none.
    ///
    /// # Errors
    /// The kernel refuses to be asked, which is a fault of ours.
    pub(super) fn wait(&self, patience: Option<Duration>) -> io::Result<bool> {
        let events = &mut *self.events.borrow_mut();
        match self.poll.borrow_mut().poll(events, patience) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(false),
            Err(error) => return Err(error),
        }
        let sources = self.sources.borrow();
        for event in events.iter() {
            let Some(source) = sources.get(event.token().0) else {
                continue;
            };
            if event.is_read_closed() || event.is_error() {
                source.is_read_over.set(true);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                source.reading.raise();
            }
            if event.is_writable() || event.is_write_closed() || event.is_error() {
                source.writing.raise();
            }
        }
        Ok(!events.is_empty())
    }
}

impl Direction {
    fn raise(&self) {
        self.is_ready.set(true);
        if let Some(waiter) = self.waiter.borrow_mut().take() {
            waiter.wake();
        }
    }

    /// Ready if an operation may succeed; otherwise the task is woken by the next edge.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_ready.get() {
            return Poll::Ready(());
        }
        let mut waiter = self.waiter.borrow_mut();
        match waiter.as_ref() {
            Some(held) if held.will_wake(cx.waker()) => {}
            _ => *waiter = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// An operation found nothing to do: the next edge counts.
    pub(super) fn lower(&self) {
        self.is_ready.set(false);
    }
}

impl Readiness {
    /// A read took all there was, unless the end is still to be read.
    pub(super) fn read_all(&self) {
        if !self.is_read_over.get() {
            self.reading.lower();
        }
    }
}
