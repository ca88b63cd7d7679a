//! Stream sockets of a core: listening, reading, sending.
//!
//! Always true here: no call blocks; a read that is pending holds no buffer, so all connections of a
//! core share one; the reading and the sending half are one descriptor, closed when both are gone.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::task::{Context, Poll};

use socket2::{Domain, Protocol, Type};

use super::executor::current;
use super::readiness::{Direction, Readiness};

/// Pending connections the kernel keeps for us.
const LISTEN_BACKLOG: i32 = 4096;
/// After so many reads or accepts in a row that never waited, the other tasks have their turn.
const TURN: u32 = 8;

/// A socket and what is known of it.
struct Watched {
    socket: socket2::Socket,
    readiness: Rc<Readiness>,
    key: usize,
}

impl Watched {
    fn new(socket: socket2::Socket) -> io::Result<Watched> {
        socket.set_nonblocking(true)?;
        let (key, readiness) = current().poller.add(socket.as_raw_fd())?;
        Ok(Watched {
            socket,
            readiness,
            key,
        })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        current().poller.remove(self.key, self.socket.as_raw_fd());
    }
}

/// Counts operations that did not wait, so that one busy socket cannot keep its core.
#[derive(Default)]
struct Turns(Cell<u32>);

impl Turns {
    /// Pending if this task has had its turn; it is woken again at once.
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let taken = self.0.get() + 1;
        if taken <= TURN {
            self.0.set(taken);
            return Poll::Ready(());
        }
        self.0.set(0);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Runs `operation` when `direction` is ready, again whenever it finds nothing to do.
fn poll_ready<T>(
    direction: &Direction,
    turns: &Turns,
    cx: &Context<'_>,
    mut operation: impl FnMut() -> io::Result<T>,
) -> Poll<io::Result<T>> {
    loop {
        if direction.poll(cx).is_pending() {
            turns.0.set(0);
            return Poll::Pending;
        }
        if turns.poll(cx).is_pending() {
            return Poll::Pending;
        }
        match operation() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => direction.lower(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return Poll::Ready(result),
        }
    }
}

/// A listening socket of this core. On an address of the network several net cores bind one each, with SO_REUSEPORT; the
/// socket behind a path they share.
pub struct Listener {
    watched: Watched,
    turns: Turns,
}

impl Listener {
    /// Takes over a socket that is already bound and listening.
    ///
    /// # Errors
    /// The kernel cannot watch one more descriptor.
    pub fn watch(socket: socket2::Socket) -> io::Result<Listener> {
        Ok(Listener {
            watched: Watched::new(socket)?,
            turns: Turns::default(),
        })
    }

    /// Binds `address`; `is_shared` if others bind it too, `is_both` if an IPv6 one takes IPv4 clients as well.
    pub fn bind(
        address: std::net::SocketAddr,
        is_shared: bool,
        is_both: bool,
    ) -> io::Result<socket2::Socket> {
        let socket = socket2::Socket::new(
            Domain::for_address(address),
            Type::STREAM.cloexec(),
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(is_shared)?;
        if address.is_ipv6() {
            socket.set_only_v6(!is_both)?;
        }
        socket.bind(&address.into())?;
        socket.listen(LISTEN_BACKLOG)?;
        Ok(socket)
    }

    /// Lets nobody in any more: who comes now is refused by the kernel, and [`Listener::accept`] fails.
    pub fn close(&self) {
        // It fails only for a socket that does not listen.
        let _ = self.watched.socket.shutdown(std::net::Shutdown::Both);
    }

    pub async fn accept(&self) -> io::Result<Socket> {
        let watched = &self.watched;
        let reading = &watched.readiness.reading;
        let (socket, peer) =
            poll_fn(|cx| poll_ready(reading, &self.turns, cx, || watched.socket.accept())).await?;
        if !peer.is_unix() {
            socket.set_tcp_nodelay(true)?;
        }
        Ok(Socket {
            watched: Rc::new(Watched::new(socket)?),
            turns: Turns::default(),
        })
    }
}

/// The reading half of a connection: one task owns it and reads until it ends.
pub struct Socket {
    watched: Rc<Watched>,
    turns: Turns,
}

impl Socket {
    /// Receives into `buffer`; 0 means the peer has closed. The buffer is only touched while this
    /// is polled, so it may be shared with the other connections of this core.
    pub async fn read(&mut self, buffer: &RefCell<Vec<u8>>) -> io::Result<usize> {
        let watched = &*self.watched;
        poll_fn(|cx| {
            poll_ready(&watched.readiness.reading, &self.turns, cx, || {
                let buffer = &mut *buffer.borrow_mut();
                let received = io::Read::read(&mut &watched.socket, buffer)?;
                if received < buffer.len() {
                    watched.readiness.read_all();
                }
                Ok(received)
            })
        })
        .await
    }

    pub fn peer_addr(&self) -> Option<std::net::SocketAddr> {
        self.watched.socket.peer_addr().ok()?.as_socket()
    }

    /// The sending half, for whoever has answers for this connection.
    pub fn sender(&self) -> Sender {
        Sender {
            watched: self.watched.clone(),
            turns: Turns::default(),
        }
    }
}

/// The sending half of a connection.
pub struct Sender {
    watched: Rc<Watched>,
    turns: Turns,
}

impl Sender {
    fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        self.watched
            .socket
            .send_with_flags(bytes, libc::MSG_NOSIGNAL)
    }

    /// Sends what fits now; `Ok(None)` when nothing does.
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        match self.send_now(bytes) {
            Ok(sent) => Ok(Some(sent)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.watched.readiness.writing.lower();
                Ok(None)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }

    /// Sends some bytes, waiting until the peer takes them. One task at a time.
    pub async fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let writing = &self.watched.readiness.writing;
        poll_fn(|cx| poll_ready(writing, &self.turns, cx, || self.send_now(bytes))).await
    }

    /// Ends the connection in both directions; the reading task then sees its end.
    pub fn shutdown(&self) {
        // The peer may have gone already, which is what we want.
        let _ = self.watched.socket.shutdown(Shutdown::Both);
    }

    /// Ends our direction: the peer sees everything sent so far, then the end.
    pub fn shutdown_write(&self) {
        let _ = self.watched.socket.shutdown(Shutdown::Write);
    }
}
