//! Elections: who leads, what leaders say, who hears it.

use pilaster_tests::Client;
use pilaster_tests::election::LeaderKey;

use super::{grant, key_of, queue, run, start, unknown, until_queued};

#[test]
fn a_leader_campaigns_proclaims_and_resigns() {
    let server = start();
    run(async {
        let mut client = Client::connect(&server).await;
        let none = client.leader("e").await.expect_err("nobody leads");
        assert_eq!(none, unknown("election: no leader"));
        let lease = grant(&mut client).await;
        let won = client.campaign("e", lease, "one").await.expect("alone");
        assert_eq!(won.header.expect("a header").revision, 2);
        let leader = won.leader.expect("a leader");
        let expected = LeaderKey {
            name: b"e".to_vec(),
            key: key_of("e", lease),
            rev: 2,
            lease,
        };
        assert_eq!(leader, expected);
        let seen = client.leader("e").await.expect("it leads");
        assert_eq!(seen.header.expect("a header").revision, 2);
        assert_eq!(seen.kv.expect("a pair").value, b"one");

        let said = client.proclaim(Some(leader.clone()), "two").await;
        assert_eq!(
            said.expect("it leads").header.expect("a header").revision,
            3
        );
        // It campaigns again: the same place, and another value is said.
        let again = client
            .campaign("e", lease, "three")
            .await
            .expect("it leads");
        assert_eq!(again.header.expect("a header").revision, 3);
        assert_eq!(again.leader.expect("a leader"), leader);
        let kv = client
            .leader("e")
            .await
            .expect("it leads")
            .kv
            .expect("a pair");
        assert_eq!(
            (&kv.value[..], kv.mod_revision, kv.version),
            (&b"three"[..], 4, 3)
        );

        let gone = client.resign(Some(leader.clone())).await.expect("it leads");
        assert_eq!(gone.header.expect("a header").revision, 5);
        let again = client
            .resign(Some(leader.clone()))
            .await
            .expect("no matter");
        assert_eq!(again.header.expect("a header").revision, 5);
        let late = client.proclaim(Some(leader), "four").await;
        assert_eq!(
            late.expect_err("it resigned"),
            unknown("election: not leader")
        );
        assert_eq!(queue(&mut client, "e").await, []);
    });
}

#[test]
fn refusals_have_etcds_words_and_codes() {
    let server = start();
    run(async {
        let mut client = Client::connect(&server).await;
        let missing = unknown("\"leader\" field must be provided");
        assert_eq!(
            client.proclaim(None, "x").await.expect_err("no leader"),
            missing
        );
        assert_eq!(client.resign(None).await.expect_err("no leader"), missing);
        let refused = client.campaign("e", 77, "x").await.expect_err("no lease");
        assert_eq!(refused, unknown("etcdserver: requested lease not found"));
        let nobody = LeaderKey {
            lease: 77,
            ..LeaderKey::default()
        };
        let refused = client
            .proclaim(Some(nobody), "x")
            .await
            .expect_err("no key");
        assert_eq!(refused, unknown("etcdserver: key is not provided"));
        let other = LeaderKey {
            key: b"e/1".to_vec(),
            rev: 9,
            lease: 77,
            ..LeaderKey::default()
        };
        let refused = client.proclaim(Some(other), "x").await.expect_err("not it");
        assert_eq!(refused, unknown("election: not leader"));
    });
}

#[test]
fn candidates_wait_their_turn_and_leave_when_they_go() {
    let server = start();
    run(async {
        let mut client = Client::connect(&server).await;
        let [first, second, third] = [
            grant(&mut client).await,
            grant(&mut client).await,
            grant(&mut client).await,
        ];
        let won = client.campaign("e", first, "one").await.expect("alone");
        let mut other = Client::connect(&server).await;
        let gone = tokio::spawn(async move { other.campaign("e", second, "two").await });
        until_queued(&mut client, "e", 2).await;
        let mut other = Client::connect(&server).await;
        let next = tokio::spawn(async move { other.campaign("e", third, "three").await });
        until_queued(&mut client, "e", 3).await;
        gone.abort();
        until_queued(&mut client, "e", 2).await;
        assert!(!next.is_finished(), "it is not its turn");
        client.resign(won.leader).await.expect("it leads");
        let won = next.await.expect("no panic").expect("its turn");
        let leader = won.leader.expect("a leader");
        assert_eq!(leader.key, key_of("e", third));
        // The header is that of its entry into the queue.
        assert_eq!(won.header.expect("a header").revision, leader.rev);
        let kv = client.leader("e").await.expect("it leads").kv;
        assert_eq!(kv.expect("a pair").value, b"three");
    });
}

#[test]
fn observers_hear_every_leader_and_what_it_says() {
    let server = start();
    run(async {
        let mut client = Client::connect(&server).await;
        let mut other = Client::connect(&server).await;
        // Before anybody leads, as far as one can tell: there is no answer until somebody does.
        let early = tokio::spawn(async move { other.observe("e").await });
        let (first, second) = (grant(&mut client).await, grant(&mut client).await);
        let won = client.campaign("e", first, "one").await.expect("alone");
        let leader = won.leader.expect("a leader");
        let mut early = early.await.expect("no panic").expect("a stream");
        let message = early.next().await.expect("a message").expect("no end");
        assert_eq!(message.header.expect("a header").revision, 2);
        let kv = message.kv.expect("a pair");
        assert_eq!((&kv.value[..], kv.lease), (&b"one"[..], first));
        // Of each value it hears, in order.
        for said in ["two", "three", "four"] {
            client
                .proclaim(Some(leader.clone()), said)
                .await
                .expect("it leads");
        }
        for said in ["two", "three", "four"] {
            assert_eq!(early.value().await, said);
        }
        // A late one hears the last.
        let mut other = Client::connect(&server).await;
        let mut late = other.observe("e").await.expect("a stream");
        assert_eq!(late.value().await, "four");
        // The next leader, once this one is gone.
        let mut candidate = Client::connect(&server).await;
        let next = tokio::spawn(async move { candidate.campaign("e", second, "five").await });
        until_queued(&mut client, "e", 2).await;
        client.resign(Some(leader)).await.expect("it leads");
        let leader = next.await.expect("no panic").expect("its turn").leader;
        assert_eq!(early.value().await, "five");
        assert_eq!(late.value().await, "five");
        // Nobody for a while, then somebody.
        client.resign(leader).await.expect("it leads");
        let again = client.campaign("e", first, "six").await.expect("alone");
        assert_eq!(early.value().await, "six");
        assert_eq!(late.value().await, "six");
        drop(late);
        client
            .proclaim(again.leader, "seven")
            .await
            .expect("it leads");
        assert_eq!(early.value().await, "seven");
    });
}

/// An observer that reads nothing for a while costs the member no queue, and hears everything all the same.
#[test]
fn an_observer_that_does_not_read_misses_nothing() {
    const VALUES: usize = 1500;
    let server = start();
    run(async {
        let mut client = Client::connect(&server).await;
        let lease = grant(&mut client).await;
        let won = client.campaign("e", lease, "first").await.expect("alone");
        let leader = won.leader.expect("a leader");
        let mut other = Client::connect(&server).await;
        let mut slow = other.observe("e").await.expect("a stream");
        assert_eq!(slow.value().await, "first");
        let value = |number: usize| format!("{number} {}", "x".repeat(20_000));
        for number in 0..VALUES {
            let said = client.proclaim(Some(leader.clone()), &value(number)).await;
            said.expect("it leads");
        }
        for number in 0..VALUES {
            assert!(slow.value().await == value(number), "value {number}");
        }
        client.resign(Some(leader)).await.expect("it leads");
    });
}

/// Many candidates at once: one leads at a time, all come to their turn.
#[test]
fn a_crowd_leads_one_by_one() {
    const CANDIDATES: usize = 200;
    let server = start();
    run(async {
        let mut client = Client::connect(&server).await;
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..CANDIDATES {
            let mut client = client.clone();
            waiting.spawn(async move {
                let lease = client.grant(0, 600).await.expect("a grant").id;
                client.campaign("e", lease, "me").await
            });
        }
        let mut last = 0;
        while let Some(won) = waiting.join_next().await {
            let won = won.expect("no panic").expect("its turn");
            let leader = won.leader.expect("a leader");
            assert!(last < leader.rev, "in order: {last} and {}", leader.rev);
            last = leader.rev;
            client.resign(Some(leader)).await.expect("it leads");
        }
        assert_eq!(queue(&mut client, "e").await, []);
    });
}
