//! More connections than a server may have: who is let in, who is closed, and what the log says of it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pilaster_tests::{Client, Kind, Options, Server, plain, raw};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// Open files for the servers of these tests: room for some dozens of clients.
const OPEN_FILES: u64 = 130;
/// Counts are published once a second; how late they may be.
const COUNTED_MAX: Duration = Duration::from_secs(10);
/// More clients than that.
const CLIENTS: usize = 120;

#[test]
fn the_silent_lock_nobody_out() {
    let Some(mut server) = small_server() else {
        return;
    };
    let silent: Vec<TcpStream> = (0..CLIENTS).map(|_| plain::connect(&server)).collect();
    raw::block_on(async {
        let mut clients = Vec::new();
        for number in 0..10 {
            let mut client = Client::connect(&server).await;
            let put = client.put(&raw::put(format!("key {number}"), "x")).await;
            put.expect("a client that speaks is served");
            clients.push(client);
        }
    });
    // Accepted in the order they came, so the oldest of them had to go.
    let mut first = &silent[0];
    assert_eq!(first.read(&mut [0; 1]).ok(), Some(0), "closed in order");
    let closed = closed(&mut plain::connect(&server), "never_spoke", 1);
    assert!(0 < closed && closed < CLIENTS as u64, "{closed} closed");
    assert_told_once(&mut server);
}

#[test]
fn those_who_have_spoken_stay_and_others_are_refused() {
    let Some(mut server) = small_server() else {
        return;
    };
    // Idle now, but they have spoken: HTTP/1.1 connections that are kept.
    let mut kept: Vec<TcpStream> = Vec::new();
    while kept.len() < CLIENTS && {
        let mut stream = plain::connect(&server);
        let is_served = ask(&mut stream);
        kept.push(stream);
        is_served
    } {}
    let refused = kept.pop().expect("the last one");
    drop(refused);
    assert!(10 < kept.len() && kept.len() < CLIENTS, "{}", kept.len());
    for _ in 0..20 {
        assert!(!ask(&mut plain::connect(&server)), "one too many");
    }
    for stream in &mut kept {
        assert!(ask(stream), "one that was there before");
    }
    closed(&mut kept[0], "too_many_connections", 21);
    // When one goes another may come; how long its end takes is the server's business.
    drop(kept.pop());
    while !ask(&mut plain::connect(&server)) {}
    assert_told_once(&mut server);
}

/// The process runs out of descriptors although it kept to its bound, as when something else takes them.
#[test]
fn no_descriptor_left() {
    let Some(mut server) = small_server() else {
        return;
    };
    let mut first = plain::connect(&server);
    assert!(ask(&mut first));
    let process = Pid::from_raw(server.pid() as i32).expect("a process number");
    let allow = |files: u64| {
        let limit = Rlimit {
            current: Some(files),
            maximum: Some(OPEN_FILES),
        };
        prlimit(Some(process), Resource::Nofile, limit).expect("our own process");
    };
    allow(3);
    // They speak at once; those that are not accepted are heard in the end.
    let mut waiting: Vec<TcpStream> = (0..5).map(|_| plain::connect(&server)).collect();
    for stream in &mut waiting {
        send(stream, "/version").expect("the kernel takes it");
    }
    assert!(
        server.await_log(|line| line.contains("no file descriptor is left")),
        "not told"
    );
    assert!(ask(&mut first), "the others are served on");
    allow(OPEN_FILES);
    for stream in &mut waiting {
        assert!(receive(stream).is_some(), "accepted once there is room");
    }
    let told = server.log();
    let told = told
        .iter()
        .filter(|line| line.contains("no file descriptor is left"));
    assert_eq!(told.count(), 1);
}

/// Bytes that never become a request, or none at all, are not waited for for ever.
#[test]
fn a_handshake_has_its_time() {
    if !Kind::subject().is_pilaster() {
        println!("left out: a real etcd waits five minutes");
        return;
    }
    let server = Server::start(Options::new(Kind::subject()));
    let silent = plain::connect(&server);
    let mut cut = plain::connect(&server);
    cut.write_all(b"PRI * HT").expect("an open connection");
    for mut stream in [silent, cut] {
        // Reads are bounded by more than the server's patience.
        assert_eq!(
            stream.read(&mut [0; 1]).ok(),
            Some(0),
            "closed by the server"
        );
    }
    let mut stream = plain::connect(&server);
    assert_eq!(closed(&mut stream, "never_spoke", 1), 1);
    assert_eq!(closed(&mut stream, "handshake_timeout", 1), 1);
}

fn small_server() -> Option<Server> {
    if !Kind::subject().is_pilaster() {
        println!("left out: how a real etcd meets its limit of open files is not ours to test");
        return None;
    }
    let options = Options::new(Kind::subject()).open_files_max(OPEN_FILES);
    Some(Server::start(options))
}

/// One request on a kept connection; false if the server has closed it.
fn ask(stream: &mut TcpStream) -> bool {
    get(stream, "/version").is_some()
}

/// The body of an answer on a kept connection; nothing if the server has closed it.
fn get(stream: &mut TcpStream, path: &str) -> Option<String> {
    send(stream, path).ok()?;
    receive(stream)
}

fn send(stream: &mut TcpStream, path: &str) -> std::io::Result<()> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes())
}

fn receive(stream: &mut TcpStream) -> Option<String> {
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return None,
            Ok(bytes) => seen.extend_from_slice(&chunk[..bytes]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("neither answered nor closed: {error}"),
        }
        let text = String::from_utf8_lossy(&seen);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .expect("a length");
        if body.len() == length.parse::<usize>().expect("a number") {
            return Some(body.to_owned());
        }
    }
}

/// `pilaster_connections_closed_total` of one reason, all cores together, once it is at least `wanted`.
fn closed(stream: &mut TcpStream, reason: &str, wanted: u64) -> u64 {
    let label = format!("reason=\"{reason}\"");
    let until = Instant::now() + COUNTED_MAX;
    loop {
        let page = get(stream, "/metrics").expect("a connection that stays");
        let total: f64 = page
            .lines()
            .filter(|line| line.starts_with("pilaster_connections_closed_total{"))
            .filter(|line| line.contains(&label))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum();
        if wanted as f64 <= total {
            return total as u64;
        }
        assert!(Instant::now() < until, "{reason}: {total} of {wanted}");
    }
}

/// However many were closed or refused, the log has one line, and it names the remedy.
fn assert_told_once(server: &mut Server) {
    let wanted = "as many connections as it may have";
    assert!(server.await_log(|line| line.contains(wanted)), "not told");
    let told: Vec<String> = server
        .log()
        .into_iter()
        .filter(|line| line.contains(wanted))
        .collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    for remedy in ["LimitNOFILE=", "ulimit -Hn"] {
        assert!(told[0].contains(remedy), "{}", told[0]);
    }
}
