//! Proof that unary calls allocate nothing once a connection has warmed up.
//!
//! Every allocation of this test program is counted. The file holds one test, so nothing else runs
//! beside it.

mod h2_support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use h2_support::*;
use wire::grpc::{
    Call, CallKind, CancelReason, Code, Connection, Limits, MethodId, Responder, Route, Service,
    StreamId,
};
use wire::h2::frame::{PREFACE, flag, kind, put_header, put_settings};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every method passes its arguments unchanged to the system allocator, which keeps the
// contract; counting touches no memory but its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above, that is from the system allocator, with this
        // layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Answers every other call at once and the rest when asked.
struct Answer {
    later: Vec<StreamId>,
}

impl Service for Answer {
    fn route(&mut self, _: &[u8]) -> Route {
        Route::Method(MethodId(0), CallKind::Unary)
    }

    fn on_message(&mut self, call: &Call<'_>, message: &[u8], out: &mut Responder<'_>) {
        assert_eq!(call.metadata.get(b"token"), Some(&b"secret"[..]));
        if call.stream.0 % 4 == 1 {
            out.unary(call.stream, |reply| reply.extend_from_slice(message));
        } else {
            self.later.push(call.stream);
        }
    }

    fn on_half_close(&mut self, _: &Call<'_>, _: &mut Responder<'_>) {}

    fn on_cancel(&mut self, _: StreamId, _: MethodId, _: CancelReason) {}
}

#[test]
fn unary_calls_allocate_nothing_in_steady_state() {
    let mut connection = Connection::new(Arc::new(Limits::default()), 0);
    let mut service = Answer { later: Vec::new() };
    let mut input = PREFACE.to_vec();
    put_settings(&mut input, &[]);
    put_header(&mut input, 0, kind::SETTINGS, flag::ACK, 0);
    connection.receive(&input, 0, &mut service).expect("valid");

    let repeated = request_block("/t.T/Echo", &[("token", "secret")]);
    let mut spare = Vec::new();
    let mut stream = 1;
    let (mut warm, mut ended) = (0, 0);
    for round in 0..300u64 {
        input.clear();
        for n in 0..50u64 {
            // Half of the blocks repeat; half bring a deadline that is new and enters the table.
            let mut block = repeated.clone();
            if n % 2 == 0 {
                block.extend(b"\x40\x0cgrpc-timeout\x07");
                block.extend(format!("{:06}m", 100_000 + round * 100 + n).bytes());
            }
            input.extend(headers(stream, &block));
            // One message whole in its frame, one half-closed by a frame of its own, one cut in
            // two.
            let framed = message(&[b'x'; 40]);
            match n % 3 {
                0 => input.extend(data_end(stream, &framed)),
                1 => input.extend([data(stream, &framed), data_end(stream, b"")].concat()),
                _ => input.extend(
                    [data(stream, &framed[..17]), data_end(stream, &framed[17..])].concat(),
                ),
            }
            stream += 2;
        }
        input.extend(window_update(0, 50 * 45));
        if round == 100 {
            warm = ALLOCATIONS.load(Ordering::Relaxed);
        }
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        // Read in pieces that cut frames.
        for piece in input.chunks(1000) {
            connection
                .receive(piece, round, &mut service)
                .expect("valid");
        }
        for stream in service.later.drain(..) {
            connection
                .responder()
                .unary(stream, |reply| reply.extend_from_slice(b"later"));
        }
        connection.take_ended(|call| ended += u64::from(call.code == Code::Ok));
        spare = connection.take_output(spare);
        let after = ALLOCATIONS.load(Ordering::Relaxed);
        if round >= 100 {
            assert_eq!(after - before, 0, "round {round}, {warm} before");
        }
    }
    let stats = connection.take_stats();
    assert_eq!(ended, 300 * 50, "each call is listed once");
    assert_eq!(stats.calls_finished[0], 300 * 50);
    assert!(
        stats.header_cache_hits > 7000,
        "{}",
        stats.header_cache_hits
    );
}
