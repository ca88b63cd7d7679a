//! Leases and what is attached to them are there again after a stop, a kill and under other settings.

use pilaster_tests::raw::{self, block_on};
use pilaster_tests::{Client, Kind, Options, Server};

use super::{all, start, until, with_lease};

/// Everything there is to see of leases: ids in order, granted times, keys.
async fn seen(client: &mut Client) -> Vec<(i64, i64, Vec<Vec<u8>>)> {
    let mut seen = Vec::new();
    for lease in client.leases().await.expect("an answer").leases {
        let found = client
            .time_to_live(lease.id, true)
            .await
            .expect("an answer");
        seen.push((lease.id, found.granted_ttl, found.keys));
    }
    seen.sort();
    seen
}

async fn fill(client: &mut Client) {
    for id in 1..=20 {
        let id = if id % 2 == 0 { -id } else { id };
        client.grant(id, 600 + id).await.expect("a grant");
        for key in 0..id.abs() {
            let key = format!("{key}");
            client.put(&with_lease(&key, id)).await.expect("a put");
        }
    }
    client.put(&raw::put("3", "detached")).await.expect("a put");
    client.revoke(5).await.expect("a revocation");
}

#[test]
fn after_a_stop_and_after_a_kill() {
    let mut server = start();
    let before = block_on(async {
        let mut client = Client::connect(&server).await;
        fill(&mut client).await;
        (seen(&mut client).await, all(&mut client).await)
    });
    for round in 0..4 {
        if round % 2 == 0 {
            server.kill9();
        } else {
            server.terminate();
        }
        server.launch();
        let after = block_on(async {
            let mut client = Client::connect(&server).await;
            (seen(&mut client).await, all(&mut client).await)
        });
        assert_eq!(before, after, "round {round}");
    }
    block_on(async {
        let mut client = Client::connect(&server).await;
        // They live: renewed, moved, revoked.
        let mut stream = client.keep_alives().await;
        stream.send(-20);
        assert_eq!(stream.ttl(-20).await, 580);
        stream.send(5);
        assert_eq!(stream.ttl(5).await, 0);
        client.revoke(-20).await.expect("a revocation");
        let left = all(&mut client).await;
        assert!(left.iter().all(|kv| kv.lease != -20), "{left:?}");
    });
}

/// Its time was over while the server was down: it ends soon after, and not before its time began anew.
#[test]
fn a_lease_ends_after_a_restart() {
    let mut server = start();
    block_on(async {
        let mut client = Client::connect(&server).await;
        client.grant(7, 2).await.expect("a grant");
        client.put(&with_lease("k", 7)).await.expect("a put");
    });
    server.kill9();
    server.launch();
    block_on(async {
        let mut client = Client::connect(&server).await;
        until("the lease ends", async || {
            all(&mut client).await.is_empty().then_some(())
        })
        .await;
        let failure = client.revoke(7).await.expect_err("it is gone");
        assert_eq!(failure.code, 5);
    });
}

/// Another election timeout has another shortest time to live, for old leases, too.
#[test]
fn a_longer_election_timeout_raises_short_leases() {
    let mut server = start();
    block_on(async {
        let mut client = Client::connect(&server).await;
        client.grant(7, 3).await.expect("a grant");
        client.grant(8, 100).await.expect("a grant");
    });
    server.terminate();
    server
        .options_mut()
        .flags
        .push("--election-timeout=10000".to_owned());
    server.launch();
    block_on(async {
        let mut client = Client::connect(&server).await;
        let granted = async |client: &mut Client, id| {
            let found = client.time_to_live(id, false).await.expect("an answer");
            found.granted_ttl
        };
        assert_eq!(granted(&mut client, 7).await, 15);
        assert_eq!(granted(&mut client, 8).await, 100);
        assert_eq!(client.grant(9, 3).await.expect("a grant").ttl, 15);
    });
}

#[test]
fn feature_gates_are_taken_as_etcd_takes_them() {
    let gates = |text: &str| {
        let flag = format!("--feature-gates={text}");
        Server::try_start(Options::new(Kind::subject()).flag(flag))
    };
    for text in [
        "LeaseCheckpoint=true",
        "LeaseCheckpoint=true,LeaseCheckpointPersist=true",
        "FastLeaseKeepAlive=false,PriorityRequest=true",
    ] {
        let server = gates(text).unwrap_or_else(|refused| panic!("{text}: {}", refused.text()));
        block_on(async {
            let mut client = Client::connect(&server).await;
            client.grant(7, 600).await.expect("a grant");
            let mut stream = client.keep_alives().await;
            for id in [7, 8] {
                stream.send(id);
                assert_eq!(stream.ttl(id).await, if id == 7 { 600 } else { 0 });
            }
        });
    }
    for (text, why) in [
        (
            "LeaseCheckpointPersist=true",
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
        ("Speed=true", "unrecognized feature gate: Speed"),
    ] {
        let Err(refused) = gates(text) else {
            panic!("{text} is taken");
        };
        assert!(refused.text().contains(why), "{text}: {}", refused.text());
    }
}
