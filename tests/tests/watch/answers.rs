//! One answer at a time: ids, start revisions, filters, previous records, cancels, progress, parts, ends.

use pilaster_tests::watch::{
    Event, Union, WatchCancel, WatchCreate, WatchProgress, WatchRequest, watch, watch_all,
};
use pilaster_tests::{Kind, Options, raw};

use super::Setup;

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

#[test]
fn ids_are_given_out_chosen_and_used_again() {
    raw::block_on(async {
        let mut setup = Setup::new().await;
        let revision = setup.put("k", "0").await;
        let mut stream = setup.stream();
        let with_id = |watch_id| WatchCreate {
            watch_id,
            ..watch("k")
        };
        for (asked, given) in [(0, 0), (0, 1), (3, 3), (0, 2), (0, 4), (-7, -7)] {
            let answer = stream.create(with_id(asked)).await;
            assert_eq!((answer.watch_id, answer.canceled), (given, false));
            assert_eq!(answer.revision(), revision);
        }
        for duplicate in [3, 4, -7] {
            let answer = stream.create(with_id(duplicate)).await;
            assert_eq!((answer.watch_id, answer.canceled), (-1, true));
            let text = "mvcc: duplicate watch ID provided on the WatchStream";
            assert_eq!(answer.cancel_reason, text);
        }
        let answer = stream.cancel(3).await;
        assert_eq!((answer.watch_id, answer.revision()), (3, revision));
        assert!(answer.cancel_reason.is_empty() && answer.compact_revision == 0);
        // One that is not there is not answered.
        stream.send(Union::Cancel(WatchCancel { watch_id: 3 }));
        assert_eq!(stream.create(with_id(3)).await.watch_id, 3);
        // A number that was given out is not given out again.
        stream.cancel(1).await;
        assert_eq!(stream.create(with_id(0)).await.watch_id, 5);
        let revision = setup.put("k", "1").await;
        let mut told = Vec::new();
        for _ in 0..6 {
            let message = stream.next().await.expect("an event");
            assert_eq!(message.revision(), revision);
            assert_eq!(message.events.len(), 1);
            told.push(message.watch_id);
        }
        told.sort_unstable();
        assert_eq!(told, [-7, 0, 2, 3, 4, 5]);
        setup.assert_quiet(&mut stream).await;
        // Another stream has ids of its own.
        assert_eq!(setup.stream().create(watch("k")).await.watch_id, 0);
    });
}

#[test]
fn what_cannot_be_watched_is_refused() {
    raw::block_on(async {
        let setup = Setup::new().await;
        let mut stream = setup.stream();
        let range = |key: &str, end: &str| WatchCreate {
            range_end: end.into(),
            ..watch(key)
        };
        for (key, end) in [("b", "a"), ("b", "b")] {
            let answer = stream.create(range(key, end)).await;
            assert_eq!((answer.watch_id, answer.canceled), (-1, true));
            assert_eq!(answer.cancel_reason, "mvcc: watcher range is empty");
        }
        if setup.server.kind() != Kind::Etcd351 {
            let answer = stream
                .create(WatchCreate {
                    start_revision: -1,
                    ..watch("k")
                })
                .await;
            assert_eq!((answer.watch_id, answer.canceled), (-1, true));
            assert_eq!(
                (answer.cancel_reason.as_str(), answer.compact_revision),
                (COMPACTED, 0)
            );
        }
        // A request that asks for nothing is not answered.
        stream.send_bytes(Vec::new());
        assert_eq!(stream.create(watch("k")).await.watch_id, 0);
    });
}

#[test]
fn live_past_and_future_are_joined_at_an_exact_revision() {
    raw::block_on(async {
        let mut setup = Setup::new().await;
        for value in 0..5 {
            setup.put("k", &value.to_string()).await;
        }
        let now = setup.put("other", "").await;
        let mut stream = setup.stream();
        let from = |start_revision| WatchCreate {
            start_revision,
            ..watch("k")
        };
        // The one from the past comes last: its events follow its answer at once.
        for (id, start) in [(0, 0), (1, now + 2), (2, now + 1), (3, now), (4, now - 2)] {
            assert_eq!(stream.create(from(start)).await.watch_id, id);
        }
        for value in 5..8 {
            setup.put("k", &value.to_string()).await;
        }
        let mut told: [Vec<i64>; 5] = Default::default();
        let wanted: [&[i64]; 5] = [
            &[5, 6, 7],
            &[6, 7],
            &[5, 6, 7],
            &[5, 6, 7],
            &[3, 4, 5, 6, 7],
        ];
        while told.iter().map(Vec::len).sum::<usize>() < wanted.iter().map(|w| w.len()).sum() {
            let message = stream.next().await.expect("events");
            for event in &message.events {
                let value: i64 = event.text()[2..].parse().expect("a number");
                told[message.watch_id as usize].push(value);
                assert!(event.revision() <= message.revision());
            }
        }
        assert_eq!(told, wanted);
        setup.assert_quiet(&mut stream).await;
    });
}

#[test]
fn events_tell_what_happened() {
    raw::block_on(async {
        let mut setup = Setup::new().await;
        let create = |watch_id, filters: &[i32], prev_kv| WatchCreate {
            watch_id,
            filters: filters.to_vec(),
            prev_kv,
            ..watch_all()
        };
        let mut stream = setup.stream();
        for request in [
            create(1, &[], true),
            create(2, &[0], true),
            create(3, &[1, 9], false),
            create(4, &[0, 1], false),
        ] {
            stream.create(request).await;
        }
        let first = setup.put("a", "1").await;
        setup.put("a", "2").await;
        let third = setup.delete("a").await;
        let fourth = setup.put("a", "3").await;
        let mut told: [Vec<Event>; 5] = Default::default();
        while told.iter().map(Vec::len).sum::<usize>() < 4 + 1 + 3 {
            let message = stream.next().await.expect("events");
            told[message.watch_id as usize].extend(message.events);
        }
        let numbers = |event: &Event| {
            let kv = event.kv.clone().expect("a record");
            (event.kind, kv.create_revision, kv.mod_revision, kv.version)
        };
        let all: Vec<_> = told[1].iter().map(numbers).collect();
        assert_eq!(
            all,
            [
                (0, first, first, 1),
                (0, first, first + 1, 2),
                (1, 0, third, 0),
                (0, fourth, fourth, 1)
            ]
        );
        let before: Vec<_> = told[1]
            .iter()
            .map(|event| {
                event
                    .prev_kv
                    .as_ref()
                    .map(|kv| (kv.value.clone(), kv.mod_revision))
            })
            .collect();
        let was = |value: &str, revision| Some((value.as_bytes().to_vec(), revision));
        assert_eq!(before, [None, was("1", first), was("2", first + 1), None]);
        assert_eq!(told[2].iter().map(numbers).collect::<Vec<_>>(), [all[2]]);
        assert_eq!(
            told[3].iter().map(numbers).collect::<Vec<_>>(),
            [all[0], all[1], all[3]]
        );
        assert!(told[3].iter().all(|event| event.prev_kv.is_none()));
        setup.assert_quiet(&mut stream).await;
    });
}

#[test]
fn ranges_hold_what_etcd_says_they_hold() {
    raw::block_on(async {
        let mut setup = Setup::new().await;
        let mut stream = setup.stream();
        let range = |watch_id, key: &[u8], end: &[u8]| WatchCreate {
            key: key.to_vec(),
            range_end: end.to_vec(),
            watch_id,
            ..WatchCreate::default()
        };
        for request in [
            range(1, b"b", b""),
            range(2, b"b", b"d"),
            range(3, b"c", b"\0"),
            range(4, b"", b"\0"),
            range(5, b"", b"c"),
            range(6, b"", b""),
        ] {
            stream.create(request).await;
        }
        for key in ["a", "b", "ba", "c", "d"] {
            setup.put(key, "").await;
        }
        let mut told = vec![String::new(); 7];
        for _ in 0..1 + 3 + 2 + 5 + 3 {
            let message = stream.next().await.expect("an event");
            for event in &message.events {
                told[message.watch_id as usize] += &event.text();
            }
            if told
                .iter()
                .map(|keys| keys.matches('=').count())
                .sum::<usize>()
                == 14
            {
                break;
            }
        }
        assert_eq!(
            told[1..],
            ["b=", "b=ba=c=", "c=d=", "a=b=ba=c=d=", "a=b=ba=", ""]
        );
        setup.assert_quiet(&mut stream).await;
    });
}

#[test]
fn a_revision_is_told_in_one_message() {
    raw::block_on(async {
        let mut setup = Setup::new().await;
        let pairs: Vec<(String, String)> = (0..100)
            .map(|n| (format!("k{n:03}"), "v".repeat(900)))
            .collect();
        let pairs: Vec<(&str, String)> =
            pairs.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
        let mut live = setup.stream();
        live.create(watch_all()).await;
        for _ in 0..3 {
            setup.put_all(&pairs).await;
        }
        let mut past = setup.stream();
        past.create(WatchCreate {
            start_revision: 1,
            ..watch_all()
        })
        .await;
        for stream in [&mut live, &mut past] {
            let mut count = 0;
            while count < 300 {
                let message = stream.next().await.expect("events");
                assert_eq!(message.events.len() % 100, 0);
                count += message.events.len();
            }
        }
    });
}

#[test]
fn a_large_message_is_cut_for_those_who_allow_it() {
    raw::block_on(async {
        let mut setup = Setup::new().await;
        let pairs = |letter: &str| -> Vec<(&'static str, String)> {
            ["a", "b", "c"]
                .map(|key| (key, letter.repeat(400 << 10)))
                .to_vec()
        };
        setup.put_all(&pairs("x")).await;
        let mut stream = setup.stream();
        for (watch_id, fragment) in [(1, false), (2, true)] {
            let request = WatchCreate {
                watch_id,
                fragment,
                prev_kv: true,
                ..watch_all()
            };
            stream.create(request).await;
        }
        // With the records before it is more than etcd's 2 MiB.
        let revision = setup.put_all(&pairs("y")).await;
        let mut parts = [Vec::new(), Vec::new()];
        let mut keys = [String::new(), String::new()];
        while keys.iter().any(|keys| keys.len() < 3) {
            let message = stream.next().await.expect("events");
            assert_eq!(message.revision(), revision);
            let slot = message.watch_id as usize - 1;
            parts[slot].push((message.events.len(), message.fragment));
            for event in message.events {
                keys[slot] += &event.text()[..1];
                assert!(event.prev_kv.is_some_and(|kv| kv.value.len() == 400 << 10));
            }
        }
        assert_eq!(parts, [vec![(3, false)], vec![(2, true), (1, false)]]);
        assert_eq!(keys, ["abc", "abc"]);
    });
}

#[test]
fn compacted_history_ends_a_watcher_and_says_from_where_it_is_there() {
    raw::block_on(async {
        let mut setup = Setup::new().await;
        for value in 0..5 {
            setup.put("k", &value.to_string()).await;
        }
        let now = setup.put("k", "5").await;
        setup.compact(now - 2).await;
        let mut stream = setup.stream();
        let from = |watch_id, start_revision| WatchCreate {
            watch_id,
            start_revision,
            ..watch("k")
        };
        let answer = stream.create(from(7, now - 3)).await;
        assert_eq!(
            (answer.watch_id, answer.canceled, answer.revision()),
            (7, false, now)
        );
        let end = stream.next().await.expect("an end");
        assert!(end.canceled && !end.created && end.events.is_empty());
        assert_eq!((end.watch_id, end.compact_revision), (7, now - 2));
        assert_eq!((end.cancel_reason.as_str(), end.revision()), ("", 0));
        // Its id is in use until it is cancelled, and progress waits for it.
        assert!(stream.create(from(7, 0)).await.canceled);
        stream.send(Union::Progress(WatchProgress {}));
        assert_eq!(stream.cancel(7).await.watch_id, 7);
        // The compact revision itself can be watched.
        stream.create(from(7, now - 2)).await;
        assert_eq!(stream.events(3).await, ["k=3", "k=4", "k=5"]);
        setup.assert_quiet(&mut stream).await;
    });
}

#[test]
fn progress_is_told_when_everybody_has_everything() {
    raw::block_on(async {
        let mut setup = Setup::new().await;
        let now = setup.put("k", "").await;
        let mut stream = setup.stream();
        let progress = || Union::Progress(WatchProgress {});
        // Without a watcher there is no answer.
        stream.send(progress());
        let first = stream.create(watch("k")).await;
        stream.send(progress());
        let told = stream.next().await.expect("progress");
        assert!(told.is_progress());
        assert_eq!((told.watch_id, told.revision()), (-1, now));
        // One that waits for the future keeps the stream from it.
        let future = WatchCreate {
            start_revision: now + 3,
            ..watch("other")
        };
        let future = stream.create(future).await;
        stream.send(progress());
        stream.cancel(first.watch_id).await;
        setup.put("other", "1").await;
        setup.put("other", "2").await;
        setup.put("other", "3").await;
        assert_eq!(stream.events(1).await, ["other=3"]);
        stream.send(progress());
        let told = stream.next().await.expect("progress");
        assert_eq!((told.watch_id, told.revision()), (-1, now + 3));
        stream.cancel(future.watch_id).await;
        setup.assert_quiet(&mut stream).await;
    });
}

#[test]
fn progress_comes_by_itself_to_those_who_want_it() {
    raw::block_on(async {
        let flag = match Kind::subject() {
            Kind::Etcd351 => "--experimental-watch-progress-notify-interval=100ms",
            _ => "--watch-progress-notify-interval=100ms",
        };
        let mut setup = Setup::with(Options::new(Kind::subject()).flag(flag)).await;
        let now = setup.put("k", "").await;
        let mut stream = setup.stream();
        let with_progress = |watch_id, start_revision| WatchCreate {
            watch_id,
            start_revision,
            progress_notify: true,
            ..watch("k")
        };
        stream.create(with_progress(4, 0)).await;
        stream.create(with_progress(5, now + 2)).await;
        stream.create(watch("k")).await;
        for _ in 0..2 {
            let told = stream.next().await.expect("progress");
            assert!(told.is_progress());
            assert_eq!((told.watch_id, told.revision()), (4, now));
        }
        setup.put("k", "1").await;
        setup.put("k", "2").await;
        let (mut from_five, mut events) = (false, 0);
        while !from_five || events < 5 {
            let told = stream.next().await.expect("a message");
            events += told.events.len();
            // Progress comes after the events it speaks of.
            assert!(!told.is_progress() || told.revision() < now + 2 || events >= 2);
            from_five |= told.is_progress() && told.watch_id == 5;
        }
        assert_eq!(events, 5);
    });
}

#[test]
fn a_half_closed_stream_goes_on() {
    raw::block_on(async {
        let mut setup = Setup::new().await;
        let mut stream = setup.stream();
        stream.create(watch("k")).await;
        stream.half_close();
        setup.put("k", "1").await;
        setup.put("k", "2").await;
        assert_eq!(stream.events(2).await, ["k=1", "k=2"]);
    });
}

#[test]
fn a_stop_ends_streams_so_that_clients_go_elsewhere() {
    raw::block_on(async {
        let mut setup = Setup::new().await;
        let mut stream = setup.stream();
        stream.create(watch("k")).await;
        setup.server.send_term();
        let failure = loop {
            match stream.next().await {
                Ok(message) => assert!(message.events.is_empty()),
                Err(failure) => break failure,
            }
        };
        let (status, _) = setup.server.await_exit();
        // etcd waits some seconds and then cuts the connection.
        if setup.server.kind().is_pilaster() {
            let unavailable = 14;
            assert_eq!(failure.code, unavailable, "{failure:?}");
            assert!(status.success());
        }
    });
}

#[test]
fn many_streams_and_connections_are_told_the_same() {
    raw::block_on(async {
        let mut setup = Setup::new().await;
        let mut streams = Vec::new();
        for number in 0..40 {
            let client = if number % 4 == 0 {
                pilaster_tests::Client::connect(&setup.server).await
            } else {
                setup.client.clone()
            };
            let mut stream = pilaster_tests::watch::WatchStream::open(&client);
            for _ in 0..10 {
                stream.create(watch("k")).await;
            }
            streams.push(stream);
        }
        for value in 0..20 {
            setup.put("k", &value.to_string()).await;
        }
        for stream in &mut streams {
            let mut told = vec![Vec::new(); 10];
            while told.iter().map(Vec::len).sum::<usize>() < 200 {
                let message = stream.next().await.expect("events");
                told[message.watch_id as usize].extend(message.events.iter().map(Event::revision));
            }
            for revisions in &told {
                assert!(revisions.is_sorted() && revisions == &told[0] && revisions.len() == 20);
            }
        }
        // A message that holds two of the union's members: the last one counts.
        let stream = &mut streams[0];
        let mut bytes = prost::Message::encode_to_vec(&WatchRequest {
            union: Some(Union::Create(watch("k"))),
        });
        bytes.extend(prost::Message::encode_to_vec(&WatchRequest {
            union: Some(Union::Cancel(WatchCancel { watch_id: 2 })),
        }));
        stream.send_bytes(bytes);
        let answer = stream.next().await.expect("an answer");
        assert!(answer.canceled && !answer.created && answer.watch_id == 2);
    });
}
