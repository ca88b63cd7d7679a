//! How many unary calls a second one core takes through `receive` and `unary`: `cargo run --release
//! -p wire --example grpc_throughput`.
//!
//! A read holds 100 requests as clients send them from the second time on: nine indexed fields and
//! a 30-byte message. Only the engine is measured, no socket. The printed checksum shows that every
//! answer was written. `small` as an argument makes a run of a few milliseconds. Two loads: blocks
//! that repeat, and blocks with a new `grpc-timeout` each, as Go clients with deadlines send them,
//! which must be decoded one by one.

use std::sync::Arc;
use std::time::Instant;

use wire::grpc::{
    Call, CallKind, CancelReason, Connection, Limits, MethodId, Responder, Route, Service, StreamId,
};
use wire::h2::frame::{PREFACE, flag, kind, put_header, put_settings, put_window_update};
use wire::h2::hpack::huffman;

const REQUESTS_PER_READ: usize = 100;
const MESSAGE: [u8; 30] = *b"\x0a\x1cabcdefghijklmnopqrstuvwxyz01";

struct Answer;

impl Service for Answer {
    fn route(&mut self, path: &[u8]) -> Route {
        match path {
            b"/etcdserverpb.KV/Range" => Route::Method(MethodId(0), CallKind::Unary),
            _ => Route::UnknownService,
        }
    }

    fn on_message(&mut self, call: &Call<'_>, message: &[u8], out: &mut Responder<'_>) {
        out.unary(call.stream, |reply| reply.extend_from_slice(message));
    }

    fn on_half_close(&mut self, _: &Call<'_>, _: &mut Responder<'_>) {}

    fn on_cancel(&mut self, _: StreamId, _: MethodId, _: CancelReason) {}
}

/// The first request's block puts its fields into the table.
fn first_block() -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    for (index, value) in [
        (4, &b"/etcdserverpb.KV/Range"[..]),
        (1, b"127.0.0.1:2379"),
        (31, b"application/grpc"),
        (58, b"grpc-go/1.83.0"),
    ] {
        block.extend([0x40 | index, value.len() as u8]);
        block.extend(value);
    }
    block.extend(b"\x40\x02te\x08trailers");
    block
}

fn put_request(out: &mut Vec<u8>, stream: u32, block: &[u8]) {
    put_header(out, block.len(), kind::HEADERS, flag::END_HEADERS, stream);
    out.extend_from_slice(block);
    put_header(out, 5 + MESSAGE.len(), kind::DATA, flag::END_STREAM, stream);
    out.extend_from_slice(&[0, 0, 0, 0, MESSAGE.len() as u8]);
    out.extend_from_slice(&MESSAGE);
}

fn measure(name: &str, reads: usize, with_timeout: bool) {
    let mut connection = Connection::new(Arc::new(Limits::default()), 0);
    let mut input = PREFACE.to_vec();
    put_settings(&mut input, &[]);
    put_header(&mut input, 0, kind::SETTINGS, flag::ACK, 0);
    put_window_update(&mut input, 0, 0x7000_0000);
    put_request(&mut input, 1, &first_block());
    connection
        .receive(&input, 0, &mut Answer)
        .expect("a valid session");

    let mut spare = Vec::new();
    let mut stream = 3;
    let (mut sum, mut bytes, mut requests) = (0u64, 0, 0u64);
    let mut prepared: Vec<Vec<u8>> = Vec::new();
    let mut inserted = 0;
    for _ in 0..reads {
        input.clear();
        // What a client must grant for the answers to keep coming.
        put_window_update(
            &mut input,
            0,
            ((5 + MESSAGE.len()) * REQUESTS_PER_READ) as u32,
        );
        for _ in 0..REQUESTS_PER_READ {
            let mut block = vec![0x83, 0x86];
            // Five entries at first; each timeout pushes them back until they fall out, so they are
            // sent again in time.
            if with_timeout && inserted == 60 {
                inserted = 0;
                block.clear();
                block.extend(first_block());
            } else {
                block.extend((0..5).map(|n| 0xc2 - n + inserted));
            }
            if with_timeout {
                let mut name = Vec::new();
                huffman::encode(b"grpc-timeout", &mut name);
                block.extend([0x40, 0x80 | name.len() as u8]);
                block.extend(name);
                let text = format!("{:07}u", 4_000_000 + stream % 900_000);
                block.push(text.len() as u8);
                block.extend(text.bytes());
                inserted += 1;
            }
            put_request(&mut input, stream, &block);
            stream += 2;
        }
        prepared.push(input.clone());
    }
    let begin = Instant::now();
    for input in &prepared {
        connection
            .receive(input, 1, &mut Answer)
            .expect("a valid session");
        let out = connection.take_output(spare);
        bytes += out.len();
        sum = sum
            .wrapping_mul(31)
            .wrapping_add(u64::from(out[out.len() - 1]));
        requests += REQUESTS_PER_READ as u64;
        spare = out;
    }
    let elapsed = begin.elapsed();
    let stats = connection.take_stats();
    assert_eq!(
        stats.calls_finished[0],
        requests + 1,
        "every call was answered"
    );
    println!(
        "{name}: {requests} requests in {elapsed:.2?}: {:.0} requests/s, {:.0} ns each, {bytes} bytes out, {} recognised, sum {sum:016x}",
        requests as f64 / elapsed.as_secs_f64(),
        elapsed.as_nanos() as f64 / requests as f64,
        stats.header_cache_hits,
    );
}

fn main() {
    let reads = if std::env::args().any(|argument| argument == "small") {
        10
    } else {
        10_000
    };
    for _ in 0..3 {
        measure("repeated blocks", reads, false);
        measure("new timeout each", reads, true);
    }
}
