//! The one module that names glommio.
//!
//! Offers pinned executors, latency classes, timers and sockets. Always true here: every task runs
//! in a queue with a latency class; sends never wait inside the executor's write path (a send that
//! would block is handed to the connection's own writing task); the blocking pool is never used.
//!
//! glommio 0.9 polls a socket for readiness and then receives with a system call, so a read that is
//! pending holds no buffer: all connections of a core share one receive buffer.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};
use glommio::net::{TcpListener, TcpStream, UnixStream};
use glommio::{Latency, LocalExecutorBuilder, Placement, Shares, TaskQueueHandle};
use socket2::{Domain, SockRef, Type};

/// How soon a task wants to run once it is ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// On the path of a request: sockets, log, apply.
    Request,
    /// Long work cut into slices: big ranges, compaction, scrubbing.
    Background,
}

/// Within this time a ready request task preempts background work.
const REQUEST_LATENCY: Duration = Duration::from_micros(500);
const BACKGROUND_LATENCY: Duration = Duration::from_millis(20);
/// Pending connections the kernel keeps for us.
const LISTEN_BACKLOG: i32 = 4096;
/// Registered I/O memory of an executor, which we do not use: the log has its own ring.
const EXECUTOR_IO_BYTES: usize = 64 << 10;
const EXECUTOR_RING_DEPTH: usize = 512;

thread_local! {
    static QUEUES: RefCell<Option<[TaskQueueHandle; 2]>> = const { RefCell::new(None) };
}

/// Runs `start` on a thread of its own, pinned to `cpu` when one is given, and returns when that core
/// runs; a second thread waits for its end. The process ends if the
/// core panics (`panic = "abort"`).
///
/// # Errors
/// The executor could not be made: io_uring is refused here, or too little memory may be locked.
pub fn run_on_core<F>(
    name: &str,
    cpu: Option<usize>,
    start: impl FnOnce() -> F + Send + 'static,
) -> io::Result<()>
where
    F: Future<Output = ()> + 'static,
{
    let placement = match cpu {
        Some(cpu) => Placement::Fixed(cpu),
        None => Placement::Unbound,
    };
    // The executor is made on its own thread, so only that thread knows whether it could be.
    let (is_running, outcome) = std::sync::mpsc::channel();
    let has_failed = is_running.clone();
    let core = LocalExecutorBuilder::new(placement)
        .name(name)
        .io_memory(EXECUTOR_IO_BYTES)
        .ring_depth(EXECUTOR_RING_DEPTH)
        .spawn(move || async move {
            // Whoever started us waits for this word, unless it is gone with the whole process.
            let _ = is_running.send(Ok(()));
            let executor = glommio::executor();
            let request = executor.create_task_queue(
                Shares::Static(1000),
                Latency::Matters(REQUEST_LATENCY),
                "request",
            );
            let background = executor.create_task_queue(
                Shares::Static(100),
                Latency::Matters(BACKGROUND_LATENCY),
                "background",
            );
            QUEUES.with(|queues| *queues.borrow_mut() = Some([request, background]));
            glommio::spawn_local_into(start(), request)
                .expect("the queue was created just above")
                .await;
        })
        .map_err(io::Error::from)?;
    std::thread::Builder::new()
        .name("watch".to_owned())
        .spawn(move || {
            if let Err(error) = core.join() {
                // Nobody listens any more once the core has run.
                let _ = has_failed.send(Err(io::Error::from(error)));
            }
        })?;
    outcome
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("the core ended before it ran")))
}

/// Starts a task on this core and lets it run on its own.
pub fn spawn(class: Class, task: impl Future<Output = ()> + 'static) {
    let queue = QUEUES.with(|queues| {
        queues.borrow().as_ref().expect("spawn is called on a core")[class as usize]
    });
    glommio::spawn_local_into(task, queue)
        .expect("the queue lives as long as the core")
        .detach();
}

pub async fn sleep(duration: Duration) {
    glommio::timer::sleep(duration).await;
}

/// Lets the other ready tasks of this core run.
pub async fn yield_now() {
    glommio::yield_if_needed().await;
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A listening TCP socket of this core. Several net cores bind one each, with SO_REUSEPORT.
pub struct Listener(TcpListener);

impl Listener {
    /// Takes over a socket that is already bound and listening.
    pub fn from_std(listener: std::net::TcpListener) -> Listener {
        // SAFETY: `into_raw_fd` gives up the only owner of a valid listening socket.
        Listener(unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) })
    }

    /// Binds `address`; `is_shared` if others bind it too.
    pub fn bind(
        address: std::net::SocketAddr,
        is_shared: bool,
    ) -> io::Result<std::net::TcpListener> {
        let socket = socket2::Socket::new(
            Domain::for_address(address),
            Type::STREAM.cloexec(),
            Some(socket2::Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(is_shared)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(LISTEN_BACKLOG)?;
        Ok(socket.into())
    }

    pub async fn accept(&self) -> io::Result<Socket> {
        let stream = self.0.accept().await.map_err(io::Error::from)?;
        let socket = Socket { stream };
        SockRef::from(&socket.fd()).set_tcp_nodelay(true)?;
        SockRef::from(&socket.fd()).set_nonblocking(true)?;
        Ok(socket)
    }
}

/// The reading half of a connection: one task owns it and reads until it ends.
pub struct Socket {
    stream: TcpStream,
}

impl Socket {
    /// Receives into `buffer`; 0 means the peer has closed. The buffer is only touched while this
    /// is polled, so it may be shared with the other connections of this core.
    pub async fn read(&mut self, buffer: &RefCell<Vec<u8>>) -> io::Result<usize> {
        poll_fn(|cx| {
            let mut buffer = buffer.borrow_mut();
            Pin::new(&mut self.stream).poll_read(cx, &mut buffer[..])
        })
        .await
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the stream owns the descriptor and outlives the borrow of `self`.
        unsafe { BorrowedFd::borrow_raw(self.stream.as_raw_fd()) }
    }

    pub fn peer_addr(&self) -> Option<std::net::SocketAddr> {
        self.stream.peer_addr().ok()
    }

    /// The sending half, for whoever has answers for this connection.
    pub fn sender(&self) -> io::Result<Sender> {
        let socket = SockRef::from(&self.fd()).try_clone()?;
        Ok(Sender {
            socket,
            waiting: RefCell::new(None),
        })
    }
}

/// The sending half of a connection.
pub struct Sender {
    socket: socket2::Socket,
    /// Made the first time a send would block; taken out while the writing task uses it.
    waiting: RefCell<Option<TcpStream>>,
}

impl Sender {
    /// Sends what fits now; `Ok(None)` when nothing does.
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        match self
            .socket
            .send_with_flags(bytes, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        {
            Ok(sent) => Ok(Some(sent)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }

    /// Sends some bytes, waiting until the peer takes them. One task at a time.
    pub async fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let held = self.waiting.borrow_mut().take();
        let mut stream = match held {
            Some(stream) => stream,
            None => {
                let fd = self.socket.try_clone()?.into_raw_fd();
                // SAFETY: the descriptor was duplicated just now and has no other owner.
                unsafe { TcpStream::from_raw_fd(fd) }
            }
        };
        let sent = poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, bytes)).await;
        *self.waiting.borrow_mut() = Some(stream);
        sent
    }

    /// Ends the connection in both directions; the reading task then sees its end.
    pub fn shutdown(&self) {
        // The peer may have gone already, which is what we want.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Ends our direction: the peer sees everything sent so far, then the end.
    pub fn shutdown_write(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

/// The waiting end of a doorbell's socket pair.
pub(super) struct Wakeable(UnixStream);

impl Wakeable {
    pub(super) fn new(reader: OwnedFd) -> Wakeable {
        // SAFETY: `into_raw_fd` gives up the only owner of a valid socket.
        Wakeable(unsafe { UnixStream::from_raw_fd(reader.into_raw_fd()) })
    }

    /// Waits for at least one byte and takes all there are.
    pub(super) async fn drained(&mut self) {
        let mut scratch = [0u8; 256];
        let stream = &mut self.0;
        // An error can only be the writer's end closing, at the very end of the process.
        let _ = poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut scratch)).await;
    }
}
