//! Locks: keys, headers, turns, waiters that go, leases that end.

use std::time::Duration;

use pilaster_tests::pb::DeleteRangeRequest;
use pilaster_tests::{Client, Kind, plain, raw};
use tokio::task::JoinSet;

use super::{grant, key_of, queue, run, start, unknown, until_queued};

#[test]
fn a_free_lock_is_taken_at_once() {
    let server = start();
    run(async {
        let mut client = Client::connect(&server).await;
        let lease = grant(&mut client).await;
        let locked = client.lock("a", lease).await.expect("it is free");
        assert_eq!(locked.key, key_of("a", lease));
        assert_eq!(locked.header.expect("a header").revision, 2);
        let held = queue(&mut client, "a").await.remove(0);
        assert_eq!((held.lease, held.value.len(), held.version), (lease, 0, 1));
        // The same owner comes again.
        let again = client.lock("a", lease).await.expect("it has it");
        assert_eq!(again.key, locked.key);
        assert_eq!(again.header.expect("a header").revision, 2);
        let freed = client.unlock(&locked.key).await.expect("it is there");
        assert_eq!(freed.header.expect("a header").revision, 3);
        // Nobody asks whose key it is, or whether it is there.
        let freed = client.unlock(&locked.key).await.expect("nothing to do");
        assert_eq!(freed.header.expect("a header").revision, 3);
        // An empty name is a name.
        let locked = client.lock("", lease).await.expect("it is free");
        assert_eq!(locked.key, key_of("", lease));
    });
}

#[test]
fn a_lock_without_a_lease_gets_one_of_a_minute() {
    let server = start();
    run(async {
        let mut client = Client::connect(&server).await;
        let locked = client.lock("a", 0).await.expect("it is free");
        let leases = client.leases().await.expect("a list").leases;
        let found = client.time_to_live(leases[0].id, true).await;
        let found = found.expect("an answer");
        assert_eq!(found.granted_ttl, 60);
        assert_eq!(found.keys, std::slice::from_ref(&locked.key));
        assert_eq!(locked.key, key_of("a", leases[0].id));
    });
}

#[test]
fn refusals_have_etcds_words_and_codes() {
    let server = start();
    run(async {
        let mut client = Client::connect(&server).await;
        let refused = client.lock("a", 12_345).await.expect_err("no such lease");
        assert_eq!(refused, unknown("etcdserver: requested lease not found"));
        let refused = client.lock("a", -31).await.expect_err("no such lease");
        assert_eq!(refused, unknown("etcdserver: requested lease not found"));
        let refused = client.unlock(b"").await.expect_err("no key");
        assert_eq!(refused, unknown("etcdserver: key is not provided"));
        assert_eq!(queue(&mut client, "a").await, []);
        // Leases may be negative, and their keys show it.
        client.grant(-31, 600).await.expect("a grant");
        let locked = client.lock("a", -31).await.expect("it is free");
        assert_eq!(locked.key, b"a/-1f");
    });
}

/// Each end of a turn lets exactly the next in the queue go on, and tells nobody else.
#[test]
fn turns_are_in_order() {
    const WAITERS: usize = 20;
    let server = start();
    run(async {
        let mut client = Client::connect(&server).await;
        let mut leases = Vec::new();
        let mut waiting = JoinSet::new();
        for turn in 0..WAITERS {
            let lease = grant(&mut client).await;
            leases.push(lease);
            let mut client = client.clone();
            waiting.spawn(async move { (turn, client.lock("a", lease).await) });
            until_queued(&mut self::other(&server).await, "a", turn + 1).await;
        }
        let mut last = 0;
        for (turn, lease) in leases.iter().enumerate() {
            let (who, locked) = waiting
                .join_next()
                .await
                .expect("one waits")
                .expect("no panic");
            assert_eq!(who, turn, "whose turn it is");
            let locked = locked.expect("its turn");
            assert_eq!(locked.key, key_of("a", *lease));
            let revision = locked.header.expect("a header").revision;
            assert!(last < revision, "{last} and {revision}");
            last = revision;
            assert!(waiting.try_join_next().is_none(), "one at a time");
            client.unlock(&locked.key).await.expect("its own key");
        }
        assert_eq!(queue(&mut client, "a").await, []);
    });
    if Kind::subject().is_pilaster() {
        // The whole queue took one event for each waiter that was woken.
        let name = "etcd_debugging_mvcc_events_total";
        let began = std::time::Instant::now();
        loop {
            let text = plain::get(&server, "/metrics").body;
            let line = text.lines().find(|line| line.starts_with(name));
            let events = line.and_then(|line| line.split(' ').nth(1));
            let events: f64 = events.expect("it is shown").parse().expect("a number");
            assert!(
                events < WAITERS as f64,
                "{events} events for {WAITERS} turns"
            );
            if events as usize == WAITERS - 1 {
                break;
            }
            assert!(began.elapsed() < super::HAPPEN_MAX, "{events} events");
            std::thread::sleep(super::LOOK);
        }
    }
}

#[test]
fn a_waiter_that_goes_leaves_the_queue() {
    let server = start();
    run(async {
        let mut client = Client::connect(&server).await;
        let [first, second, third] = [
            grant(&mut client).await,
            grant(&mut client).await,
            grant(&mut client).await,
        ];
        let held = client.lock("a", first).await.expect("it is free");
        // One is cancelled, on a connection that goes on; the one behind it waits on.
        let mut other = self::other(&server).await;
        let cancelled = tokio::spawn(async move { other.lock("a", second).await });
        until_queued(&mut client, "a", 2).await;
        let mut behind = self::other(&server).await;
        let behind = tokio::spawn(async move { behind.lock("a", third).await });
        until_queued(&mut client, "a", 3).await;
        cancelled.abort();
        until_queued(&mut client, "a", 2).await;
        assert!(!behind.is_finished(), "it is not its turn");
        let leases = client.leases().await.expect("a list").leases.len();
        assert_eq!(leases, 3, "leases are their owners'");
        client.unlock(&held.key).await.expect("its own key");
        let locked = behind.await.expect("no panic").expect("its turn");
        assert_eq!(locked.key, key_of("a", third));
        // A client whose connection breaks leaves as well.
        let gone = tokio::spawn({
            let mut other = self::other(&server).await;
            async move { other.lock("a", second).await }
        });
        until_queued(&mut client, "a", 2).await;
        gone.abort();
        assert!(gone.await.is_err());
        until_queued(&mut client, "a", 1).await;
    });
}

#[test]
fn a_deadline_ends_the_wait() {
    let server = start();
    run(async {
        let mut client = Client::connect(&server).await;
        let (first, second) = (grant(&mut client).await, grant(&mut client).await);
        client.lock("a", first).await.expect("it is free");
        let failed = client
            .lock_within("a", second, Duration::from_millis(300))
            .await;
        let failed = failed.expect_err("it is held");
        assert!(matches!(failed.code, 1 | 4), "{failed:?}");
        until_queued(&mut client, "a", 1).await;
    });
}

#[test]
fn leases_that_end_free_what_they_hold() {
    let server = start();
    run(async {
        let mut client = Client::connect(&server).await;
        let [first, second, third] = [
            grant(&mut client).await,
            grant(&mut client).await,
            grant(&mut client).await,
        ];
        client.lock("a", first).await.expect("it is free");
        let mut other = self::other(&server).await;
        let lost = tokio::spawn(async move { other.lock("a", second).await });
        until_queued(&mut client, "a", 2).await;
        let mut other = self::other(&server).await;
        let next = tokio::spawn(async move { other.lock("a", third).await });
        until_queued(&mut client, "a", 3).await;
        // A waiter whose lease ends learns it when its turn would have come.
        client.revoke(second).await.expect("a revocation");
        until_queued(&mut client, "a", 2).await;
        assert!(!next.is_finished(), "it is not its turn");
        client.revoke(first).await.expect("a revocation");
        let failed = lost.await.expect("no panic").expect_err("its key is gone");
        assert_eq!(failed, unknown("mutex: session is expired"));
        let locked = next.await.expect("no panic").expect("its turn");
        assert_eq!(locked.key, key_of("a", third));
    });
}

/// The keys are those of clients that build locks themselves, and who deletes one ends its turn.
#[test]
fn keys_written_by_hand_stand_in_the_same_queue() {
    let server = start();
    run(async {
        let mut client = Client::connect(&server).await;
        let lease = grant(&mut client).await;
        client.put(&raw::put("a/mine", "x")).await.expect("a put");
        let mut other = self::other(&server).await;
        let waiting = tokio::spawn(async move { other.lock("a", lease).await });
        until_queued(&mut client, "a", 2).await;
        // Written again it is as old as before.
        client.put(&raw::put("a/mine", "y")).await.expect("a put");
        // Neighbours of the name are none of the queue.
        for neighbour in ["a", "a.", "a0", "aa/x"] {
            client.put(&raw::put(neighbour, "z")).await.expect("a put");
        }
        assert!(!waiting.is_finished(), "it is not its turn");
        let delete = DeleteRangeRequest {
            key: b"a/mine".to_vec(),
            ..Default::default()
        };
        client.delete_range(&delete).await.expect("a delete");
        let locked = waiting.await.expect("no panic").expect("its turn");
        assert_eq!(locked.key, key_of("a", lease));
    });
}

/// A member that dies while clients wait: their keys are there afterwards, and they come back to their places.
#[test]
fn a_kill_keeps_the_queue() {
    let mut server = start();
    let leases = run(async {
        let mut client = Client::connect(&server).await;
        let (first, second) = (grant(&mut client).await, grant(&mut client).await);
        client.lock("a", first).await.expect("it is free");
        let mut other = self::other(&server).await;
        let waiting = tokio::spawn(async move { other.lock("a", second).await });
        until_queued(&mut client, "a", 2).await;
        server.kill9();
        waiting
            .await
            .expect("no panic")
            .expect_err("the server died");
        (first, second)
    });
    server.launch();
    run(async {
        let mut client = Client::connect(&server).await;
        assert_eq!(queue(&mut client, "a").await.len(), 2);
        let mut other = self::other(&server).await;
        let waiting = tokio::spawn(async move { other.lock("a", leases.1).await });
        client.unlock(&key_of("a", leases.0)).await.expect("a key");
        waiting.await.expect("no panic").expect("its turn");
    });
}

async fn other(server: &pilaster_tests::Server) -> Client {
    Client::connect(server).await
}
