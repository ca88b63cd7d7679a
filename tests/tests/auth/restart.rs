//! Restarts and kills: users, roles and the switch itself are as they were acknowledged, and tokens of before are gone.

use pilaster_tests::auth::{Ask, READ};
use pilaster_tests::raw::{self, block_on};
use pilaster_tests::{Client, Server};

use super::*;

#[test]
fn users_and_roles_outlive_a_stop_and_tokens_do_not() {
    let mut server = start();
    let mut before = block_on(async {
        let mut nobody = Client::connect(&server).await;
        let mut root = turn_on(&mut nobody).await;
        add_user(&mut root, "ann", "a", "c").await;
        all(&mut root, &[Ask::UserAddWithout(text("cert"))]).await;
        root.ask(&Ask::Status)
            .await
            .expect("anybody may ask")
            .status()
    });
    for is_kill in [false, true] {
        match is_kill {
            true => drop(server.kill9()),
            false => drop(server.terminate()),
        }
        server.launch();
        before = block_on(async {
            let mut nobody = Client::connect(&server).await;
            let told = nobody.ask(&Ask::Status).await.expect("anybody may ask");
            assert_eq!(told.status(), before);
            let empty = refused(INVALID_ARGUMENT, "user name is empty");
            assert_eq!(refusal(nobody.put(&put("a")).await), empty);
            let mut ann = nobody.sign_in("ann", "annpw").await.expect("known");
            ann.put(&put("a")).await.expect("her own");
            assert_eq!(refusal(ann.put(&put("d")).await), denied());
            let mut root = nobody.sign_in("root", "rootpw").await.expect("known");
            let users = root.ask(&Ask::UserList).await.expect("root may").names();
            assert_eq!(users, ["ann", "cert", "root"]);
            all(&mut root, &[grant("ann", READ, "m", "n")]).await;
            root.ask(&Ask::Status)
                .await
                .expect("anybody may ask")
                .status()
        });
    }
}

/// Every change that was acknowledged before a kill is there after it, and at most one more: the one under way.
#[test]
fn kills_lose_no_change() {
    let mut server = start();
    let mut expected: Vec<String> = Vec::new();
    for round in 0..6 {
        block_on(async {
            let mut client = Client::connect(&server).await;
            for number in 0..10 {
                let name = format!("u{round}{number}");
                all(&mut client, &[Ask::UserAddWithout(name.clone())]).await;
                expected.push(name);
            }
            // On its way when the server is killed.
            let mut other = client.clone();
            let late = Ask::UserAddWithout(format!("v{round}"));
            tokio::select! {
                biased;
                _ = other.ask(&late) => {}
                () = std::future::ready(()) => {}
            }
        });
        server.kill9();
        server.launch();
        block_on(async {
            let mut client = Client::connect(&server).await;
            let users = client.ask(&Ask::UserList).await.expect("it is off").names();
            let kept: Vec<&String> = users.iter().filter(|name| name.starts_with('u')).collect();
            assert_eq!(kept, expected.iter().collect::<Vec<_>>());
            let told = client.ask(&Ask::Status).await.expect("anybody may ask");
            assert_eq!(told.status(), (false, 1 + users.len() as u64));
        });
    }
}

/// The switch is as durable as the users.
#[test]
fn kills_do_not_turn_it_off() {
    let mut server: Server = start();
    block_on(async {
        let mut nobody = Client::connect(&server).await;
        turn_on(&mut nobody).await;
    });
    for is_on in [true, false, true] {
        server.kill9();
        server.launch();
        block_on(async {
            let mut nobody = Client::connect(&server).await;
            let told = nobody.ask(&Ask::Status).await.expect("anybody may ask");
            assert_eq!(told.status().0, is_on);
            if is_on {
                assert!(nobody.range(&raw::get("a")).await.is_err());
                let mut root = nobody.sign_in("root", "rootpw").await.expect("known");
                all(&mut root, &[Ask::Disable]).await;
            } else {
                nobody.range(&raw::get("a")).await.expect("it is off");
                all(&mut nobody, &[Ask::Enable]).await;
            }
        });
    }
}
