//! Cores under stress: wake-ups that cross, fair turns, ends of connections.
//!
//! Each test runs real cores and ends on an event. A lost wake-up shows as a test that waits until
//! [`PATIENCE`] is over.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::mpsc::{self, Sender as Outcome};
use std::time::{Duration, Instant};

use super::*;

/// After this long a test counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `body` on a core of its own and returns what it reports.
fn on_core<T: Send + 'static, F>(body: impl FnOnce(Outcome<T>) -> F + Send + 'static) -> T
where
    F: Future<Output = ()> + 'static,
{
    let (outcome, result) = mpsc::channel();
    run_on_core("test", None, move || body(outcome)).expect("a core starts");
    result.recv_timeout(PATIENCE).expect("the core reports")
}

fn loopback() -> TcpListener {
    let any_port: SocketAddr = ([127, 0, 0, 1], 0).into();
    Listener::bind(any_port, false, false)
        .expect("a free port")
        .into()
}

/// One connection: our end on this core, the other as std has it.
async fn connection() -> (Socket, TcpStream) {
    let listener = loopback();
    let peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
    let listener = Listener::watch(listener.into()).expect("watched");
    (listener.accept().await.expect("accepted"), peer)
}

#[test]
fn no_ring_between_cores_is_lost() {
    const ROUNDS: u64 = 200_000;
    let (ping, pong) = (Bell::new().expect("bell"), Bell::new().expect("bell"));
    let (to_pong, to_ping) = (pong.ringer(), ping.ringer());
    let (mut pings, mut pings_in) = rtrb::RingBuffer::<u64>::new(8);
    let (mut pongs, mut pongs_in) = rtrb::RingBuffer::<u64>::new(8);
    run_on_core("pong", None, move || async move {
        let mut bell = pong.listen().expect("watched");
        loop {
            bell.wait().await;
            while let Ok(number) = pings_in.pop() {
                pongs.push(number).expect("one is under way");
                to_ping.ring();
            }
        }
    })
    .expect("a core starts");
    let sum = on_core(move |outcome| async move {
        let mut bell = ping.listen().expect("watched");
        let mut sum = 0;
        for number in 0..ROUNDS {
            pings.push(number).expect("one is under way");
            to_pong.ring();
            sum += loop {
                bell.wait().await;
                if let Ok(number) = pongs_in.pop() {
                    break number;
                }
            };
        }
        outcome.send(sum).expect("the test waits");
    });
    assert_eq!(sum, ROUNDS * (ROUNDS - 1) / 2);
}

#[test]
fn rings_of_many_threads_wake_a_core_that_is_busy_with_sockets() {
    const THREADS: u64 = 4;
    const ITEMS: u64 = 50_000;
    let bell = Bell::new().expect("bell");
    let mut inboxes = Vec::new();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let ringer = bell.ringer();
            let (mut items, inbox) = rtrb::RingBuffer::<u64>::new(64);
            inboxes.push(inbox);
            std::thread::spawn(move || {
                for item in 0..ITEMS {
                    while items.push(item).is_err() {
                        std::thread::yield_now();
                    }
                    ringer.ring();
                }
            })
        })
        .collect();
    let received = on_core(move |outcome| async move {
        let (mut socket, mut peer) = connection().await;
        std::thread::spawn(move || while peer.write_all(&[7; 1000]).is_ok() {});
        spawn(Class::Request, async move {
            let buffer = RefCell::new(vec![0; 100]);
            while matches!(socket.read(&buffer).await, Ok(1..)) {}
        });
        let mut bell = bell.listen().expect("watched");
        let mut received = 0;
        while received < THREADS * ITEMS {
            bell.wait().await;
            for inbox in &mut inboxes {
                while inbox.pop().is_ok() {
                    received += 1;
                }
            }
        }
        outcome.send(received).expect("the test waits");
    });
    assert_eq!(received, THREADS * ITEMS);
    threads
        .into_iter()
        .for_each(|thread| thread.join().expect("a ringer"));
}

#[test]
fn the_end_of_a_peer_is_seen_behind_its_last_bytes() {
    let seen = on_core(|outcome| async move {
        let (mut socket, mut peer) = connection().await;
        // Bytes and end are there before the first look, so there is one edge for both.
        peer.write_all(b"last words").expect("sent");
        peer.shutdown(std::net::Shutdown::Write).expect("ended");
        let buffer = RefCell::new(vec![0; 64]);
        let bytes = socket.read(&buffer).await.expect("bytes");
        let end = socket.read(&buffer).await.expect("the end");
        outcome.send((bytes, end)).expect("the test waits");
        drop(peer);
    });
    assert_eq!(seen, (10, 0));
}

#[test]
fn a_shutdown_of_our_own_ends_a_pending_read() {
    let read = on_core(|outcome| async move {
        let (mut socket, peer) = connection().await;
        let sender = socket.sender();
        spawn(Class::Background, async move { sender.shutdown() });
        let buffer = RefCell::new(vec![0; 64]);
        let read = socket.read(&buffer).await.expect("an end");
        outcome.send(read).expect("the test waits");
        drop(peer);
    });
    assert_eq!(read, 0);
}

#[test]
fn a_full_socket_is_waited_for_and_everything_arrives() {
    const BYTES: usize = 20 << 20;
    let received = on_core(|outcome| async move {
        let (socket, mut peer) = connection().await;
        let sender = socket.sender();
        let piece = vec![5u8; 1 << 20];
        let mut sent = 0;
        while let Ok(Some(bytes)) = sender.try_send(&piece) {
            sent += bytes;
        }
        assert!(sent < BYTES, "the kernel's buffers have an end");
        std::thread::spawn(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).expect("readable");
            outcome.send(all.len()).expect("the test waits");
        });
        while sent < BYTES {
            let bytes = piece.len().min(BYTES - sent);
            sent += sender.send(&piece[..bytes]).await.expect("sent");
        }
        sender.shutdown_write();
        // The peer's end closes ours.
        let mut socket = socket;
        let _ended = socket.read(&RefCell::new(vec![0; 16])).await;
    });
    assert_eq!(received, BYTES);
}

#[test]
fn a_socket_that_is_never_empty_leaves_turns_to_others() {
    let others = on_core(|outcome| async move {
        let (mut socket, mut peer) = connection().await;
        std::thread::spawn(move || while peer.write_all(&[7; 1 << 16]).is_ok() {});
        let others = Rc::new(Cell::new(0u32));
        let counted = others.clone();
        spawn(Class::Request, async move {
            loop {
                counted.set(counted.get() + 1);
                yield_now().await;
            }
        });
        let buffer = RefCell::new(vec![0; 1]);
        for _ in 0..10_000 {
            socket.read(&buffer).await.expect("bytes");
        }
        outcome.send(others.get()).expect("the test waits");
    });
    assert!(
        1000 <= others,
        "{others} turns beside 10,000 reads that never waited"
    );
}

#[test]
fn background_work_goes_on_beside_requests_and_takes_its_share_only() {
    let (background, requests) = on_core(|outcome| async move {
        let spin = |for_us| {
            let until = Instant::now() + Duration::from_micros(for_us);
            while Instant::now() < until {}
        };
        let slices = Rc::new(Cell::new(0u64));
        let counted = slices.clone();
        spawn(Class::Background, async move {
            loop {
                spin(100);
                counted.set(counted.get() + 1);
                yield_now().await;
            }
        });
        for _ in 0..20_000 {
            spin(20);
            yield_now().await;
        }
        // Both as slices of 100 µs.
        outcome.send((slices.get(), 4000)).expect("the test waits");
    });
    assert!(0 < background, "background work starved");
    assert!(
        background < requests / 4,
        "{background} background slices beside {requests} of requests"
    );
}

#[test]
fn an_idle_core_gives_background_work_all_it_wants() {
    let done = on_core(|outcome| async move {
        spawn(Class::Background, async move {
            for _ in 0..1000 {
                yield_now().await;
            }
            outcome.send(true).expect("the test waits");
        });
        sleep(PATIENCE).await;
    });
    assert!(done);
}

#[test]
fn sleepers_wake_in_their_order_and_never_early() {
    let woken = on_core(|outcome| async move {
        let woken = Rc::new(RefCell::new(Vec::new()));
        let began = Instant::now();
        for ms in [30u64, 10, 20] {
            let woken = woken.clone();
            spawn(Class::Request, async move {
                sleep(Duration::from_millis(ms)).await;
                assert!(Duration::from_millis(ms) <= began.elapsed());
                woken.borrow_mut().push(ms);
            });
        }
        sleep(Duration::from_millis(40)).await;
        outcome.send(woken.take()).expect("the test waits");
    });
    assert_eq!(woken, [10, 20, 30]);
}

#[test]
fn a_place_that_does_not_exist_is_refused() {
    let refused = run_on_core("nowhere", Some(1000), || async {});
    assert!(
        refused
            .expect_err("no such processor")
            .to_string()
            .contains("1000")
    );
}
