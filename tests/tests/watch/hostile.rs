//! What nobody should send: garbage, crowds of watchers, clients that never read. The server answers or ends the stream,
//! its memory stays bounded, others are served, and a metric tells.

use std::time::Duration;

use pilaster_tests::watch::{Union, WatchCreate, watch, watch_all};
use pilaster_tests::{Kind, Server, plain, raw};

use super::Setup;

/// Resident memory of the server in bytes.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()));
    let status = status.expect("a running process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<u64>().ok()).expect("a size") << 10
}

fn metric(server: &Server, name: &str) -> f64 {
    let page = plain::get(server, "/metrics").body;
    let line = page.lines().find(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with([' ', '{']))
    });
    let value = line.and_then(|line| line.rsplit(' ').next());
    value.and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

#[test]
fn garbage_ends_the_stream_and_nothing_else() {
    raw::block_on(async {
        let mut setup = Setup::new().await;
        let mut good = setup.stream();
        good.create(watch("k")).await;
        for garbage in [
            &b"\x0a\x05abc"[..],
            b"\x0a",
            b"\x0a\x02\x0a\x05",
            b"\x0f",
            b"\xff\xff\xff\xff",
        ] {
            let mut stream = setup.stream();
            stream.create(watch("k")).await;
            stream.send_bytes(garbage.to_vec());
            let failure = stream.next().await.expect_err("no message");
            let internal = 13;
            assert_eq!(failure.code, internal, "{failure:?}");
            let text = "grpc: failed to unmarshal the received message: ";
            let is_told = failure.text.starts_with(text)
                || failure
                    .text
                    .starts_with("grpc: error unmarshalling request: ");
            assert!(is_told, "{failure:?}");
        }
        setup.put("k", "1").await;
        assert_eq!(good.events(1).await, ["k=1"]);
        if setup.server.kind().is_pilaster() {
            let name = "etcd_network_server_stream_failures_total";
            assert_eq!(metric(&setup.server, name), 5.0);
        }
        assert_eq!(
            metric(&setup.server, "etcd_debugging_mvcc_watcher_total"),
            1.0
        );
    });
}

#[test]
fn a_hundred_thousand_watchers_on_one_stream() {
    const CROWD: usize = 100_000;
    raw::block_on(async {
        let mut setup = Setup::new().await;
        let before = resident(&setup.server);
        let mut stream = setup.stream();
        for number in 0..CROWD {
            stream.send(Union::Create(watch(&format!("crowd/{number}"))));
        }
        for number in 0..CROWD {
            let answer = stream.next().await.expect("an answer");
            assert!(answer.created && !answer.canceled);
            assert_eq!(answer.watch_id, number as i64);
        }
        let watchers = "etcd_debugging_mvcc_watcher_total";
        assert_eq!(metric(&setup.server, watchers), CROWD as f64);
        setup.put("crowd/77777", "1").await;
        assert_eq!(stream.events(1).await, ["crowd/77777=1"]);
        if setup.server.kind().is_pilaster() {
            let grown = resident(&setup.server) - before;
            assert!(
                grown < 128 << 20,
                "{} MiB for {CROWD} watchers",
                grown >> 20
            );
        }
        drop(stream);
        await_metric(&setup.server, watchers, 0.0).await;
        setup.put("crowd/77777", "2").await;
    });
}

#[test]
fn keys_of_watchers_are_bounded() {
    if !Kind::subject().is_pilaster() {
        return;
    }
    raw::block_on(async {
        let mut setup = Setup::new().await;
        let before = resident(&setup.server);
        let mut stream = setup.stream();
        let mut refused = 0;
        for number in 0..100 {
            let key = format!("{number}{}", "k".repeat(1 << 20));
            let answer = stream.create(watch(&key)).await;
            if answer.canceled {
                assert_eq!(answer.cancel_reason, "etcdserver: too many requests");
                assert_eq!(answer.watch_id, -1);
                refused += 1;
            }
        }
        assert_eq!(refused, 100 - 31);
        assert_eq!(
            metric(&setup.server, "pilaster_watch_refused_total"),
            f64::from(refused)
        );
        let grown = resident(&setup.server) - before;
        assert!(grown < 96 << 20, "{} MiB", grown >> 20);
        // Room comes back with those who leave.
        stream.cancel(0).await;
        let key = "k".repeat(1 << 20);
        assert!(!stream.create(watch(&key)).await.canceled);
        setup.put("k", "1").await;
    });
}

#[test]
fn clients_that_do_not_read_cost_nothing_and_miss_nothing() {
    const STREAMS: usize = 50;
    const VALUE: usize = 10_000;
    const PUTS: usize = 2000;
    raw::block_on(async {
        let mut setup = Setup::new().await;
        let mut idle = Vec::new();
        for _ in 0..STREAMS {
            let client = pilaster_tests::Client::connect(&setup.server).await;
            let mut stream = pilaster_tests::watch::WatchStream::open(&client);
            for _ in 0..20 {
                stream.create(watch_all()).await;
            }
            idle.push(stream);
        }
        let mut busy = setup.stream();
        busy.create(watch_all()).await;
        let value = "v".repeat(VALUE);
        let mut before = 0;
        for number in 0..PUTS {
            setup.put(&format!("k{}", number % 10), &value).await;
            let message = busy.next().await.expect("an event");
            assert_eq!(message.events.len(), 1);
            if number == PUTS / 4 {
                // Buffers of sockets and streams are full by now, and the store's commits run.
                before = resident(&setup.server);
            }
        }
        if setup.server.kind().is_pilaster() {
            let grown = resident(&setup.server).saturating_sub(before);
            // The history itself is pages of the tree file; twenty megabytes of it, in memory and on its way.
            assert!(grown < 150 << 20, "{} MiB", grown >> 20);
            assert!(metric(&setup.server, "pilaster_watch_stalls_total") > 0.0);
        }
        // Two of them read after all.
        for stream in idle.iter_mut().take(2) {
            let mut told = [0; 20];
            let mut last = [0; 20];
            while told.iter().sum::<usize>() < 20 * PUTS {
                let message = stream.next().await.expect("events");
                let slot = message.watch_id as usize;
                for event in &message.events {
                    assert!(last[slot] < event.revision());
                    last[slot] = event.revision();
                    told[slot] += 1;
                }
            }
            assert_eq!(told, [PUTS; 20]);
        }
    });
}

/// Asks until the metric has the value.
async fn await_metric(server: &Server, name: &str, value: f64) {
    let all = async {
        while metric(server, name) != value {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(20), all).await;
    assert!(
        done.is_ok(),
        "{name} is {}, not {value}",
        metric(server, name)
    );
}

#[test]
fn streams_and_watchers_that_come_and_go_leave_nothing() {
    raw::block_on(async {
        let mut setup = Setup::new().await;
        for round in 0..30 {
            let mut streams = Vec::new();
            for number in 0..20 {
                let mut stream = setup.stream();
                let request = WatchCreate {
                    start_revision: if number % 3 == 0 { 1 } else { number },
                    prev_kv: true,
                    ..watch_all()
                };
                stream.create(request).await;
                streams.push(stream);
            }
            setup.put("k", &round.to_string()).await;
        }
        for name in [
            "etcd_debugging_mvcc_watcher_total",
            "etcd_debugging_mvcc_watch_stream_total",
        ] {
            await_metric(&setup.server, name, 0.0).await;
        }
        await_metric(&setup.server, "etcd_debugging_mvcc_slow_watcher_total", 0.0).await;
    });
}
