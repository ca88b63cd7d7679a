//! Watches, side by side: puts while many watch other keys, one key watched by many, history read from the past, the way
//! from a put to its event, and clients that stop reading.
//!
//! The watching client is [`Stream`]s on raw sockets, which count events and decode nothing else, so that the client's own
//! cost is small against the server's; it runs on core 1 with the load. Every run checks that each watcher was told every
//! event; one that was not voids it.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pilaster_tests::pb::PutRequest;
use pilaster_tests::server::scratch_dir;
use pilaster_tests::watch::{Union, WatchCreate, WatchRequest};
use pilaster_tests::{Kind, Options, Server, raw};
use prost::Message;

use crate::h2load::{self, Load};
use crate::host;

const KEY: &str = "bench/key";
const VALUE_BYTES: usize = 256;
/// A client that gets nothing for this long has failed.
const QUIET_MAX: Duration = Duration::from_secs(120);

/// What is measured, by row and server.
type Table = BTreeMap<&'static str, BTreeMap<&'static str, Vec<f64>>>;

/// How much of everything; smaller numbers make a shorter run.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) rounds: u64,
    /// Events that one watcher reads from the past.
    pub(crate) history: u64,
    pub(crate) seconds: u64,
}

pub(crate) fn run(servers: &[Kind], scale: Scale) -> Result<(), String> {
    let mut table = Table::new();
    let scratch = scratch_dir();
    println!("## Watches, side by side\n");
    host::describe(scratch.path());
    println!(
        "- {} rounds, {VALUE_BYTES}-byte values; history of {} events\n",
        scale.rounds, scale.history
    );
    for round in 1..=scale.rounds {
        for kind in servers {
            let mut note = |row, value| {
                let samples = table.entry(row).or_default().entry(kind.name());
                samples.or_default().push(value);
            };
            others(*kind, scale, &mut note)?;
            crowd(*kind, &mut note)?;
            past(*kind, scale, &mut note)?;
            latency(*kind, &mut note)?;
            stopped(*kind, scale, &mut note)?;
            eprintln!("round {round} of {}: {}", scale.rounds, kind.name());
        }
    }
    println!(
        "| row | {} |",
        servers
            .iter()
            .map(|kind| kind.name())
            .collect::<Vec<_>>()
            .join(" | ")
    );
    println!("| --- |{}", " --- |".repeat(servers.len()));
    for (row, by_server) in &table {
        let cells = servers.iter().map(|kind| {
            let samples = by_server.get(kind.name()).map_or(&[][..], Vec::as_slice);
            let (low, high) = host::spread(samples);
            format!("{:.1} ({low:.1} to {high:.1})", host::median(samples))
        });
        println!("| {row} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    Ok(())
}

type Note<'a> = &'a mut dyn FnMut(&'static str, f64);

fn put() -> PutRequest {
    raw::put(KEY, vec![b'v'; VALUE_BYTES])
}

/// Puts under h2load; `requests` of them, or for about as many seconds.
fn puts(
    server: &Server,
    shape: (u32, u32),
    requests: Option<u64>,
    seconds: u64,
) -> Result<h2load::Measured, String> {
    let dir = scratch_dir();
    let body = dir.path().join("frame");
    h2load::write_frame(&body, &put());
    let mut load = Load {
        url: format!("{}/etcdserverpb.KV/Put", server.url()),
        body: &body,
        connections: shape.0,
        streams: shape.1,
        requests: requests.unwrap_or(4000),
        answer_bytes: 15..=45,
    };
    let measured = h2load::run(&load)?;
    if requests.is_some() {
        return Ok(measured);
    }
    load.requests = ((measured.per_second * seconds as f64) as u64).next_multiple_of(1000);
    h2load::run(&load)
}

/// Puts from 10 connections with 100 streams while 10,000 watchers watch other keys.
fn others(kind: Kind, scale: Scale, note: Note<'_>) -> Result<(), String> {
    let server = Server::start(Options::new(kind).core(0));
    let mut streams = Vec::new();
    for connection in 0..10 {
        let creates = (0..1000).map(|number| create(&format!("other/{connection}/{number}"), 0));
        streams.push(Stream::open(&server, creates, false)?);
    }
    note(
        "puts/s, 10 x 100, 10,000 watchers on other keys",
        puts(&server, (10, 100), None, scale.seconds)?.per_second,
    );
    Ok(())
}

/// One key, 5,000 watchers on 50 connections.
fn crowd(kind: Kind, note: Note<'_>) -> Result<(), String> {
    const PUTS: u64 = 2000;
    let server = Server::start(Options::new(kind).core(0));
    let mut streams = Vec::new();
    for _ in 0..50 {
        let creates = (0..100).map(|_| create(KEY, 0));
        streams.push(Stream::open(&server, creates, false)?);
    }
    let began = Instant::now();
    let writer = std::thread::scope(|scope| {
        let writer = scope.spawn(|| puts(&server, (1, 8), Some(PUTS), 0).map(drop));
        let read = read_all(&mut streams, 100 * PUTS);
        writer
            .join()
            .map_err(|_| "the writer failed".to_owned())?
            .and(read)
    });
    writer?;
    note(
        "events/s, one key, 5,000 watchers, 50 connections",
        (5000 * PUTS) as f64 / began.elapsed().as_secs_f64(),
    );
    Ok(())
}

/// One watcher from the beginning.
fn past(kind: Kind, scale: Scale, note: Note<'_>) -> Result<(), String> {
    let server = Server::start(Options::new(kind).core(0));
    puts(&server, (10, 100), Some(scale.history), 0)?;
    let began = Instant::now();
    let mut streams = [Stream::open(
        &server,
        std::iter::once(create(KEY, 1)),
        true,
    )?];
    read_all(&mut streams, scale.history)?;
    note(
        "events/s, one watcher from the past",
        scale.history as f64 / began.elapsed().as_secs_f64(),
    );
    Ok(())
}

/// From sending a put to having its event, on a quiet server.
fn latency(kind: Kind, note: Note<'_>) -> Result<(), String> {
    const PUTS: usize = 2000;
    let server = Server::start(Options::new(kind).core(0));
    let mut stream = Stream::open(&server, std::iter::once(create(KEY, 0)), false)?;
    let mut times = Vec::new();
    // Blocking reads: a client that is busy would take the processor from the server's disk writes.
    let mut writer = Stream::connect(&server, 1 << 20)?;
    stream.block()?;
    writer.block()?;
    for number in 0..PUTS {
        let began = Instant::now();
        writer.put(number as u32)?;
        while stream.events < number as u64 + 1 {
            stream.read()?;
        }
        times.push(began.elapsed().as_secs_f64() * 1e6);
        while writer.ended < number + 1 {
            writer.read()?;
        }
    }
    times.sort_by(f64::total_cmp);
    note("put to event, p50, µs", times[PUTS / 2]);
    note("put to event, p99, µs", times[PUTS * 99 / 100]);
    Ok(())
}

/// A thousand watchers, each on a connection of its own, stop reading while puts go on.
fn stopped(kind: Kind, scale: Scale, note: Note<'_>) -> Result<(), String> {
    let server = Server::start(Options::new(kind).core(0));
    let anon = || host::memory_mib(server.pid(), "RssAnon");
    // The store grows with its history: what as many puts cost without watchers is taken off.
    let warm = puts(&server, (10, 100), None, scale.seconds)?;
    let start = anon();
    puts(&server, (10, 100), Some(warm.requests), 0)?;
    let alone = anon() - start;
    let mut streams = Vec::new();
    for _ in 0..1000 {
        let creates = std::iter::once(create(KEY, 0));
        streams.push(Stream::open(&server, creates, true)?);
    }
    let before = anon();
    let measured = puts(&server, (10, 100), Some(warm.requests), 0)?;
    note(
        "puts/s while 1,000 watchers do not read",
        measured.per_second,
    );
    note(
        "slowest put while 1,000 watchers do not read, ms",
        measured.slowest_ms,
    );
    note(
        "memory growth while 1,000 watchers do not read, MiB",
        anon() - before - alone.max(0.0),
    );
    Ok(())
}

fn create(key: &str, start_revision: i64) -> WatchCreate {
    WatchCreate {
        key: key.into(),
        start_revision,
        ..WatchCreate::default()
    }
}

/// Reads until each stream has `count` events.
fn read_all(streams: &mut [Stream], count: u64) -> Result<(), String> {
    let mut quiet_since = Instant::now();
    loop {
        let mut is_done = true;
        for stream in streams.iter_mut() {
            if stream.read()? {
                quiet_since = Instant::now();
            }
            is_done &= stream.events >= count;
        }
        if is_done {
            return match streams.iter().find(|stream| stream.events != count) {
                Some(stream) => Err(format!("{} events instead of {count}", stream.events)),
                None => Ok(()),
            };
        }
        if quiet_since.elapsed() > QUIET_MAX {
            let events: u64 = streams.iter().map(|stream| stream.events).sum();
            return Err(format!("no event for {QUIET_MAX:?}; {events} so far"));
        }
    }
}

fn failed(error: std::io::Error) -> String {
    format!("a watching client: {error}")
}

/// One connection with one watch call, or with puts, and what came.
struct Stream {
    authority: String,
    socket: TcpStream,
    /// Bytes of a frame that is not whole yet.
    partial: Vec<u8>,
    /// Bytes of a message that is not whole yet.
    message: Vec<u8>,
    created: usize,
    events: u64,
    /// Calls that the server has ended.
    ended: usize,
}

impl Stream {
    /// Opens a call and waits until its watchers are created. `is_small` is for clients that read late or not at all:
    /// a window of 1 MiB; the others have windows that never end.
    fn open(
        server: &Server,
        creates: impl Iterator<Item = WatchCreate>,
        is_small: bool,
    ) -> Result<Stream, String> {
        let window = if is_small { 1 << 20 } else { (1 << 31) - 1 };
        let mut stream = Stream::connect(server, window)?;
        let mut out = Vec::new();
        let head = headers(&stream.authority, "/etcdserverpb.Watch/Watch");
        put_frame(&mut out, 1, 4, 1, &head);
        let mut wanted = 0;
        for create in creates {
            let request = WatchRequest {
                union: Some(Union::Create(create)),
            };
            let bytes = request.encode_to_vec();
            let frame = [&[0][..], &(bytes.len() as u32).to_be_bytes(), &bytes].concat();
            put_frame(&mut out, 0, 0, 1, &frame);
            wanted += 1;
        }
        stream.socket.write_all(&out).map_err(failed)?;
        stream.socket.set_nonblocking(true).map_err(failed)?;
        let began = Instant::now();
        while stream.created < wanted {
            stream.read()?;
            if began.elapsed() > QUIET_MAX {
                return Err(format!(
                    "{} of {wanted} watchers were created",
                    stream.created
                ));
            }
        }
        Ok(stream)
    }

    /// A connection without a call.
    fn connect(server: &Server, window: u32) -> Result<Stream, String> {
        let mut socket = TcpStream::connect(server.address()).map_err(failed)?;
        socket.set_nodelay(true).map_err(failed)?;
        let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let mut settings = vec![0, 4];
        settings.extend(window.to_be_bytes());
        put_frame(&mut out, 4, 0, 0, &settings);
        put_frame(&mut out, 8, 0, 0, &(window - 65_535).to_be_bytes());
        socket.write_all(&out).map_err(failed)?;
        Ok(Stream {
            authority: server.address(),
            socket,
            partial: Vec::new(),
            message: Vec::new(),
            created: 0,
            events: 0,
            ended: 0,
        })
    }

    /// Reads wait from now on.
    fn block(&mut self) -> Result<(), String> {
        self.socket.set_nonblocking(false).map_err(failed)
    }

    /// Sends the put of this number as a call of its own.
    fn put(&mut self, number: u32) -> Result<(), String> {
        let stream = 2 * number + 1;
        let bytes = put().encode_to_vec();
        let frame = [&[0][..], &(bytes.len() as u32).to_be_bytes(), &bytes].concat();
        let mut out = Vec::new();
        let head = headers(&self.authority, "/etcdserverpb.KV/Put");
        put_frame(&mut out, 1, 4, stream, &head);
        put_frame(&mut out, 0, 1, stream, &frame);
        self.send(&out)
    }

    /// Takes what has come; false if that is nothing.
    fn read(&mut self) -> Result<bool, String> {
        let mut buffer = [0; 128 << 10];
        let count = match self.socket.read(&mut buffer) {
            Ok(0) => return Err("the server closed a watching connection".into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        self.partial.extend_from_slice(&buffer[..count]);
        let partial = std::mem::take(&mut self.partial);
        let mut rest = &partial[..];
        let mut taken = 0;
        while let Some((header, body)) = rest.split_at_checked(9) {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let Some((payload, behind)) = body.split_at_checked(length) else {
                break;
            };
            self.ended += usize::from(header[3] == 1 && header[4] & 1 == 1);
            match header[3] {
                0 => {
                    taken += length as u32;
                    self.take(payload)?;
                }
                3 | 7 => return Err(format!("the server ended a watch: {payload:?}")),
                // SETTINGS and PING want an answer.
                4 if header[4] & 1 == 0 => self.answer(4, &[])?,
                6 if header[4] & 1 == 0 => self.answer(6, payload)?,
                _ => {}
            }
            rest = behind;
        }
        self.partial = rest.to_vec();
        if taken > 0 {
            let mut out = Vec::new();
            put_frame(&mut out, 8, 0, 0, &taken.to_be_bytes());
            put_frame(&mut out, 8, 0, 1, &taken.to_be_bytes());
            self.send(&out)?;
        }
        Ok(true)
    }

    fn answer(&mut self, kind: u8, payload: &[u8]) -> Result<(), String> {
        let mut out = Vec::new();
        put_frame(&mut out, kind, 1, 0, payload);
        self.send(&out)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        match self.socket.write(bytes) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            other => Err(format!("a watching client cannot send: {other:?}")),
        }
    }

    /// Counts in the bytes of messages.
    fn take(&mut self, payload: &[u8]) -> Result<(), String> {
        let mut held = std::mem::take(&mut self.message);
        let mut payload = if held.is_empty() {
            payload
        } else {
            held.extend_from_slice(payload);
            &held
        };
        while let Some((prefix, body)) = payload.split_at_checked(5) {
            let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
            let Some((message, behind)) = body.split_at_checked(length) else {
                break;
            };
            self.count(message).ok_or("a message that is none")?;
            payload = behind;
        }
        self.message = payload.to_vec();
        Ok(())
    }

    /// Counts creations and events of one response.
    fn count(&mut self, mut message: &[u8]) -> Option<()> {
        fn varint(bytes: &mut &[u8]) -> Option<u64> {
            let mut value = 0;
            for shift in (0..64).step_by(7) {
                let (&byte, rest) = bytes.split_first()?;
                *bytes = rest;
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    return Some(value);
                }
            }
            None
        }
        while !message.is_empty() {
            let key = varint(&mut message)?;
            let value = varint(&mut message)?;
            match (key >> 3, key & 7) {
                (3, 0) => self.created += 1,
                // Cancelled: nothing here asks for that.
                (4, 0) => return None,
                (_, 0) => {}
                (field, 2) => {
                    message = message.get(usize::try_from(value).ok()?..)?;
                    self.events += u64::from(field == 11);
                }
                _ => return None,
            }
        }
        Some(())
    }
}

fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The header block of a call: nothing compressed, nothing remembered.
fn headers(authority: &str, path: &str) -> Vec<u8> {
    // POST and http are entries of the static table; the other names are, too, but for `te`.
    let mut block = vec![0x83, 0x86];
    let mut literal = |name: &[u8], value: &str| {
        block.extend_from_slice(name);
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    };
    literal(&[4], path);
    literal(&[1], authority);
    literal(&[0x0f, 16], "application/grpc");
    literal(b"\0\x02te", "trailers");
    block
}
