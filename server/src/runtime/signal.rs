//! A wake-up between tasks of one core.
//!
//! Always true here: a `notify` before or during `wait` is never lost, and several of them before
//! the waiter runs are one. One waiter at a time. Never crosses a core; see [`super::Bell`].

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Clones share one flag and one waiter.
#[derive(Clone, Default)]
pub struct Signal(Rc<Inner>);

#[derive(Default)]
struct Inner {
    raised: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Signal {
    pub fn new() -> Signal {
        Signal::default()
    }

    /// Raises the flag and wakes the waiter, if any.
    pub fn notify(&self) {
        if !self.0.raised.replace(true)
            && let Some(waiter) = self.0.waiter.borrow_mut().take()
        {
            waiter.wake();
        }
    }

    /// Returns once the flag is up, and takes it down.
    pub async fn wait(&self) {
        poll_fn(|cx| {
            if self.0.raised.replace(false) {
                return Poll::Ready(());
            }
            let mut waiter = self.0.waiter.borrow_mut();
            match waiter.as_ref() {
                Some(held) if held.will_wake(cx.waker()) => {}
                _ => *waiter = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
        .await;
    }
}
