//! Leases end by themselves, with everything attached, and only they.

use pilaster_tests::raw::{self, block_on};
use pilaster_tests::{Client, Kind};

use tokio::task::JoinSet;

use super::{all, revision, start, until, with_lease};

#[test]
fn a_lease_that_is_kept_alive_outlives_one_that_is_not() {
    let server = start();
    block_on(async {
        let mut client = Client::connect(&server).await;
        let mut stream = client.keep_alives().await;
        client.grant(1, 2).await.expect("a grant");
        client.put(&with_lease("kept", 1)).await.expect("a put");
        client.put(&raw::put("free", "v")).await.expect("a put");
        // Three others end one after the other while the first is kept: three times its time to live.
        for round in 0..3 {
            let id = 10 + round;
            client.grant(id, 2).await.expect("a grant");
            for key in ["y", "x", "z"] {
                client.put(&with_lease(key, id)).await.expect("a put");
            }
            let before = revision(&mut client).await;
            until("the lease ends", async || {
                stream.send(1);
                assert_eq!(stream.ttl(1).await, 2, "kept alive");
                let ttl = client.time_to_live(id, false).await.expect("an answer").ttl;
                assert!(ttl <= 2, "{ttl}");
                let left = all(&mut client).await;
                assert!(left.len() == 5 || left.len() == 2, "one revision: {left:?}");
                (left.len() == 2).then_some(())
            })
            .await;
            assert_eq!(revision(&mut client).await, before + 1);
            stream.send(id);
            assert_eq!(stream.ttl(id).await, 0, "gone");
            let gone = client.time_to_live(id, true).await.expect("an answer");
            assert_eq!((gone.ttl, gone.granted_ttl), (-1, 0));
        }
        let list = client.leases().await.expect("an answer").leases;
        assert_eq!(list.len(), 1, "{list:?}");
        // And now the first one, too.
        until("the kept lease ends", async || {
            (all(&mut client).await.len() == 1).then_some(())
        })
        .await;
        assert_eq!(all(&mut client).await[0].key, b"free");
    });
}

/// Many at once: every lease takes its own key and no other, each at a revision of its own.
#[test]
fn thousands_end_together() {
    const ALL: i64 = 3000;
    const SIDE_BY_SIDE: usize = 100;
    let server = start();
    block_on(async {
        let mut client = Client::connect(&server).await;
        client.put(&raw::put("free", "v")).await.expect("a put");
        // Made side by side, and long enough that none ends while the others are made.
        for first in (1..=ALL).step_by(SIDE_BY_SIDE) {
            let mut making = JoinSet::new();
            for id in first..first + SIDE_BY_SIDE as i64 {
                let mut client = client.clone();
                making.spawn(async move {
                    client.grant(id, 20).await.expect("a grant");
                    let key = format!("key{id}");
                    client.put(&with_lease(&key, id)).await.expect("a put");
                });
            }
            making.join_all().await;
        }
        let before = revision(&mut client).await;
        let list = client.leases().await.expect("an answer").leases;
        assert_eq!(list.len() as i64, ALL);
        until("all leases end", async || {
            (all(&mut client).await.len() == 1).then_some(())
        })
        .await;
        assert_eq!(revision(&mut client).await, before + ALL);
        let list = client.leases().await.expect("an answer").leases;
        assert!(list.is_empty());
        if Kind::subject().is_pilaster() {
            let metrics = pilaster_tests::plain::get(&server, "/metrics").body;
            for wanted in [
                format!("etcd_debugging_lease_granted_total {ALL}"),
                format!("etcd_debugging_lease_revoked_total {ALL}"),
                format!("etcd_debugging_server_lease_expired_total {ALL}"),
                format!("etcd_debugging_lease_ttl_total_bucket{{le=\"32\"}} {ALL}"),
            ] {
                assert!(metrics.lines().any(|line| line == wanted), "{wanted}");
            }
        }
    });
}
