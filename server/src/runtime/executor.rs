//! A core's executor: runs its tasks in two classes, wakes sleepers, and asks for news when idle.
//!
//! One pass of [`Executor::run`]: request tasks that are ready, up to a bound; at most one slice of
//! background work, if its share allows; then news from the kernel, waiting only if nothing is
//! ready. Always true here: a task runs only on the core that spawned it; between two looks at the
//! kernel run at most [`TASKS_PER_PASS`] request tasks and one background slice; background work
//! takes one part in [`SHARE`] of a busy core, and all of an idle one.
//!
//! A core lives as long as its process, so its executor is never freed. A panic ends the process.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_task::Runnable;

use super::readiness::Poller;
use super::timers::{TimerKey, Timers};

/// How soon a task wants to run once it is ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// On the path of a request: sockets, log, apply.
    Request,
    /// Long work cut into slices: big ranges, compaction, scrubbing.
    Background,
}

/// Request tasks between two looks at the kernel.
const TASKS_PER_PASS: usize = 128;
/// A busy core gives background work one part in this many of its time.
const SHARE: u32 = 10;

/// Everything one core runs on.
pub(super) struct Executor {
    request: RefCell<VecDeque<Runnable>>,
    background: RefCell<VecDeque<Runnable>>,
    timers: RefCell<Timers>,
    pub(super) poller: Poller,
}

thread_local! {
    static CORE: Cell<Option<&'static Executor>> = const { Cell::new(None) };
}

/// The executor of this core.
pub(super) fn current() -> &'static Executor {
    CORE.get().expect("called on a core")
}

/// Runs `start` on a thread of its own, pinned to `cpu` when one is given, and returns when that
/// core runs. The process ends if the core panics (`panic = "abort"`).
///
/// # Errors
/// The thread, its descriptors or its place on the processor are not to be had.
pub fn run_on_core<F>(
    name: &str,
    cpu: Option<usize>,
    start: impl FnOnce() -> F + Send + 'static,
) -> io::Result<()>
where
    F: Future<Output = ()> + 'static,
{
    // The executor is made on its own thread, so only that thread knows whether it could be.
    let (is_running, outcome) = mpsc::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let made = pin(cpu).and_then(|()| Executor::new());
            let executor = match made {
                Ok(executor) => executor,
                Err(error) => {
                    // Whoever started us waits for this word, unless it is gone with the process.
                    let _ = is_running.send(Err(error));
                    return;
                }
            };
            let _ = is_running.send(Ok(()));
            executor.run(start());
        })?;
    outcome
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("the core ended before it ran")))
}

fn pin(cpu: Option<usize>) -> io::Result<()> {
    match cpu {
        Some(id) if !core_affinity::set_for_current(core_affinity::CoreId { id }) => Err(
            io::Error::other(format!("this thread may not be pinned to processor {id}")),
        ),
        _ => Ok(()),
    }
}

/// Starts a task on this core and lets it run on its own.
pub fn spawn(class: Class, task: impl Future<Output = ()> + 'static) {
    let (runnable, task) = async_task::spawn_local(task, move |runnable| {
        current().queue(class).borrow_mut().push_back(runnable);
    });
    runnable.schedule();
    task.detach();
}

/// Sleeps at least `duration`; the kernel counts in milliseconds.
pub async fn sleep(duration: Duration) {
    Sleep {
        deadline: Instant::now() + duration,
        key: None,
    }
    .await;
}

/// Lets the other ready tasks of this core run, and those that news from the kernel make ready.
pub async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|cx| {
        if has_yielded {
            return Poll::Ready(());
        }
        has_yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

struct Sleep {
    deadline: Instant,
    key: Option<TimerKey>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut timers = current().timers.borrow_mut();
        let is_waiting = match &self.key {
            Some(key) => timers.renew(key, cx.waker()),
            None => {
                self.key = Some(timers.add(self.deadline, cx.waker().clone()));
                true
            }
        };
        if is_waiting {
            return Poll::Pending;
        }
        self.key = None;
        Poll::Ready(())
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            current().timers.borrow_mut().remove(key);
        }
    }
}

/// What background work took of a busy core, against what requests took.
#[derive(Default)]
struct Shares {
    request: Duration,
    background: Duration,
}

impl Executor {
    /// Makes this thread a core.
    fn new() -> io::Result<&'static Executor> {
        let executor: &'static Executor = Box::leak(Box::new(Executor {
            request: RefCell::default(),
            background: RefCell::default(),
            timers: RefCell::default(),
            poller: Poller::new()?,
        }));
        CORE.set(Some(executor));
        Ok(executor)
    }

    fn queue(&self, class: Class) -> &RefCell<VecDeque<Runnable>> {
        match class {
            Class::Request => &self.request,
            Class::Background => &self.background,
        }
    }

    fn run(&'static self, main: impl Future<Output = ()> + 'static) {
        let is_over = std::rc::Rc::new(Cell::new(false));
        let over = is_over.clone();
        spawn(Class::Request, async move {
            main.await;
            over.set(true);
        });
        let mut shares = Shares::default();
        let mut has_news = true;
        loop {
            let began = (!self.background.borrow().is_empty()).then(Instant::now);
            let ran = self.run_requests();
            if is_over.get() {
                return;
            }
            match began {
                Some(began) => self.run_background(began, ran == 0 && !has_news, &mut shares),
                None => shares = Shares::default(),
            }
            has_news = self.wait();
        }
    }

    /// Runs request tasks that are ready, those that they wake included.
    fn run_requests(&self) -> usize {
        for ran in 0..TASKS_PER_PASS {
            let Some(runnable) = self.request.borrow_mut().pop_front() else {
                return ran;
            };
            runnable.run();
        }
        TASKS_PER_PASS
    }

    /// Runs one slice of background work if the core is idle or the share allows it.
    fn run_background(&self, began: Instant, is_idle: bool, shares: &mut Shares) {
        let requests_done = Instant::now();
        shares.request += requests_done - began;
        if !is_idle && shares.request < shares.background * (SHARE - 1) {
            return;
        }
        let Some(runnable) = self.background.borrow_mut().pop_front() else {
            return;
        };
        runnable.run();
        if is_idle {
            // Nobody waited, so nobody is owed.
            *shares = Shares::default();
        } else {
            shares.background += requests_done.elapsed();
        }
    }

    /// Wakes sleepers and takes news from the kernel, waiting only if no task is ready.
    fn wait(&self) -> bool {
        let has_ready = !self.request.borrow().is_empty() || !self.background.borrow().is_empty();
        let patience = if has_ready {
            Some(Duration::ZERO)
        } else {
            let next = self.timers.borrow().next();
            next.map(|at| at.saturating_duration_since(Instant::now()))
        };
        let has_news = match self.poller.wait(patience) {
            Ok(has_news) => has_news,
            Err(error) => crate::fatal::fatal("the core cannot wait for its descriptors", &error),
        };
        if self.timers.borrow().next().is_some() {
            let now = Instant::now();
            loop {
                let due = self.timers.borrow_mut().take_due(now);
                let Some(waker) = due else { break };
                waker.wake();
            }
        }
        has_news
    }
}
