//! Alarms, hashes, the leader, downgrades and the one member: what is answered, what is refused, and what lasts.

use std::fs;
use std::time::{Duration, Instant};

use pilaster_tests::content::write_some;
use pilaster_tests::pb::{AlarmRequest, CompactionRequest};
use pilaster_tests::raw::Failure;
use pilaster_tests::{Client, Kind, Options, Server, kind, raw, tool};

use super::start;

/// etcd takes some seconds for what follows from a downgrade.
const HAPPEN_MAX: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

#[test]
fn alarms_are_raised_listed_and_taken_back() {
    let server = start();
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        let ask = |action, member_id, alarm| AlarmRequest {
            action,
            member_id,
            alarm,
        };
        assert_eq!(
            client.alarm(&ask(0, 0, 0)).await.expect("a list").alarms,
            []
        );
        client.alarm(&ask(1, 7, 1)).await.expect("an activation");
        client.alarm(&ask(1, 8, 2)).await.expect("an activation");
        let listed = async |client: &mut Client, kind| {
            let listed = client.alarm(&ask(0, 99, kind)).await.expect("a list");
            let header = listed.header.expect("a header");
            assert_eq!(header.revision, 1);
            let alarms = listed.alarms.iter();
            let mut alarms: Vec<(u64, i32)> =
                alarms.map(|one| (one.member_id, one.alarm)).collect();
            alarms.sort_unstable();
            alarms
        };
        assert_eq!(listed(&mut client, 0).await, [(7, 1), (8, 2)]);
        assert_eq!(listed(&mut client, 1).await, [(7, 1)]);
        assert_eq!(listed(&mut client, 2).await, [(8, 2)]);
        let status = client.status().await.expect("a status");
        assert_eq!(status.errors.len(), 2, "{:?}", status.errors);
        client.alarm(&ask(2, 7, 1)).await.expect("a deactivation");
        client.alarm(&ask(2, 8, 2)).await.expect("a deactivation");
        assert_eq!(listed(&mut client, 0).await, []);
    });
}

#[test]
fn the_leader_moves_to_itself_and_to_nobody_else() {
    let server = start();
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        let own = client.status().await.expect("a status").leader;
        client.move_leader(own).await.expect("it leads already");
        for other in [0, own ^ 1] {
            let refused = client.move_leader(other).await.expect_err("no such member");
            assert_eq!(refused, failure(9, "etcdserver: bad leader transferee"));
        }
    });
}

/// Judged, begun, in the way of another, shown, kept through a restart, and taken back.
#[test]
fn a_downgrade_is_begun_and_cancelled() {
    const VALIDATE: i32 = 0;
    const ENABLE: i32 = 1;
    const CANCEL: i32 = 2;
    let mut server = start();
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        for target in ["3.6", "3.6.0", "3.6.5", "3.6.0-rc.1"] {
            let judged = client.downgrade(VALIDATE, target).await;
            assert_eq!(judged.expect("one minor below").version, "3.7", "{target}");
        }
        for action in [VALIDATE, ENABLE] {
            for target in ["3.5", "3.7.0", "3.8.0", "4.6.0", "2.6.0"] {
                let refused = client.downgrade(action, target).await;
                assert_eq!(
                    refused.expect_err(target),
                    failure(3, "etcdserver: invalid downgrade target version")
                );
            }
            for target in ["", "x", "3", "3.6.0.0", "v3.6.0", "3.-6.0", "3.6-rc"] {
                let refused = client.downgrade(action, target).await;
                assert_eq!(
                    refused.expect_err(target),
                    failure(3, "etcdserver: wrong downgrade target version format")
                );
            }
        }
        let refused = client.downgrade(7, "3.6.0").await;
        assert_eq!(
            refused.expect_err("no such action"),
            failure(2, "etcdserver: unknown method")
        );
        let cancelled = client.downgrade(CANCEL, "").await;
        assert_eq!(cancelled.expect("nothing to cancel").version, "3.7");

        let begun = client.downgrade(ENABLE, "3.6").await.expect("one below");
        assert_eq!(begun.version, "3.7");
        assert_eq!(begun.header.expect("a header").revision, 1);
        let refused = client.downgrade(VALIDATE, "3.6").await.expect_err("begun");
        let in_process = failure(9, "etcdserver: cluster has a downgrade job in progress");
        let now_lower = failure(3, "etcdserver: invalid downgrade target version");
        assert!(refused == in_process || refused == now_lower, "{refused:?}");
        until_storage_version(&mut client, "3.6.0").await;
        let info = client.status().await.expect("a status").downgrade_info;
        let info = info.expect("always there");
        assert_eq!(
            (info.enabled, info.target_version.as_str()),
            (true, "3.6.0")
        );
    });
    server.terminate();
    server.launch();
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        let status = client.status().await.expect("a status");
        let info = status.downgrade_info.expect("always there");
        assert!(info.enabled, "it is kept");
        assert_eq!(status.storage_version, "3.6.0");
        let cancelled = client.downgrade(CANCEL, "").await;
        assert_eq!(cancelled.expect("one is under way").version, "3.6");
        until_storage_version(&mut client, "3.7.0").await;
        let info = client.status().await.expect("a status").downgrade_info;
        let info = info.expect("always there");
        assert_eq!((info.enabled, info.target_version.as_str()), (false, ""));
    });
}

async fn until_storage_version(client: &mut Client, wanted: &str) {
    let began = Instant::now();
    loop {
        let status = client.status().await.expect("a status");
        if status.storage_version == wanted {
            return;
        }
        assert!(began.elapsed() < HAPPEN_MAX, "still {status:?}");
        tokio::time::sleep(LOOK).await;
    }
}

#[test]
fn peer_urls_change_and_stay_changed() {
    let mut server = start();
    let (id, before) = raw::block_on(async {
        let mut client = Client::connect(&server).await;
        let before = client.member_list().await.expect("a list").members;
        let id = before[0].id;
        let not_found = failure(5, "etcdserver: member not found");
        let refused = client.member_update(id ^ 1, &["http://a:1"]).await;
        assert_eq!(refused.expect_err("no such member"), not_found);
        let urls = ["http://10.0.0.1:2380", "http://10.0.0.2:2380"];
        let updated = client.member_update(id, &urls).await.expect("an update");
        assert_eq!(updated.header.expect("a header").revision, 0);
        assert_eq!(updated.members[0].peer_urls, urls);
        assert_eq!(updated.members[0].client_urls, before[0].client_urls);
        let listed = client.member_list().await.expect("a list");
        assert_eq!(listed.members, updated.members);
        (id, before)
    });
    server.terminate();
    server.launch();
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        let listed = client.member_list().await.expect("a list").members;
        assert_eq!(listed[0].peer_urls.len(), 2, "{listed:?}");
        let urls: Vec<&str> = before[0].peer_urls.iter().map(String::as_str).collect();
        let updated = client.member_update(id, &urls).await.expect("an update");
        assert_eq!(updated.members, before);
    });
}

#[test]
fn other_changes_of_members_are_refused_with_a_reason() {
    let server = start();
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        let member = client
            .member_list()
            .await
            .expect("a list")
            .members
            .remove(0);
        let not_found = failure(5, "etcdserver: member not found");
        let refused = client.member_remove(member.id ^ 1).await;
        assert_eq!(refused.expect_err("no such member"), not_found);
        let refused = client.member_promote(member.id ^ 1).await;
        assert_eq!(refused.expect_err("no such member"), not_found);
        let refused = client.member_promote(member.id).await;
        let text = "etcdserver: can only promote a learner member";
        assert_eq!(refused.expect_err("a voter"), failure(9, text));
        let refused = client.member_remove(member.id).await.expect_err("the last");
        let text = "etcdserver: re-configuration failed due to not enough started members";
        assert_eq!(refused.text, text);
        for urls in [&[][..], &["nothing"], &["http://a"], &["http://a:1/path"]] {
            let refused = client.member_add(urls).await.expect_err("bad URLs");
            let text = "etcdserver: given member URLs are invalid";
            assert_eq!(refused, failure(3, text), "{urls:?}");
        }
        let refused = client.member_add(&[&member.peer_urls[0]]).await;
        let text = "etcdserver: Peer URLs already exists";
        assert_eq!(refused.expect_err("ours"), failure(9, text));
        if Kind::subject().is_pilaster() {
            let refused = client.member_add(&["http://127.0.0.1:1"]).await;
            let refused = refused.expect_err("not there yet");
            assert_eq!(refused.code, 12, "{refused:?}");
            assert!(refused.text.contains("one member yet"), "{refused:?}");
        }
    });
}

/// The hash of all is the same for an etcd and for the subject on its file, with the same name and addresses.
#[test]
fn hash_is_etcds_for_the_same_file() {
    if !Kind::subject().is_pilaster() || kind::peer("3.7.1/etcd").is_none() {
        println!("left out: it takes a real etcd and Pilaster");
        return;
    }
    let mut server = Server::start(Options::new(Kind::Etcd371));
    let (before, revision) = raw::block_on(async {
        let mut client = Client::connect(&server).await;
        write_some(&mut client, 3).await;
        client.grant(5, 1_000_000).await.expect("a grant");
        let hash = client.hash().await.expect("a hash");
        (hash.hash, hash.header.expect("a header").revision)
    });
    server.terminate();
    let member = server.data_dir().join("member");
    fs::remove_dir_all(member.join("wal")).expect("etcd's log");
    for entry in fs::read_dir(member.join("snap")).expect("etcd's folder") {
        let path = entry.expect("readable").path();
        if path.file_name().is_some_and(|name| name != "db") {
            fs::remove_file(path).expect("etcd's file");
        }
    }
    server.options_mut().kind = Kind::subject();
    server.launch();
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        let hash = client.hash().await.expect("a hash");
        assert_eq!(hash.hash, before, "Hash");
        assert_eq!(hash.header.expect("a header").revision, revision);
        client.put(&raw::put("one", "more")).await.expect("a put");
        let other = client.hash().await.expect("a hash");
        assert_ne!(other.hash, before, "it sees what was put just now");
    });
}

/// HashKV at the head is etcd's at every step of compactions, tombstones and emptiness.
#[test]
fn hash_kv_is_etcds_around_compactions() {
    let Some(_) = kind::peer("3.7.1/etcd") else {
        return;
    };
    let servers = [start(), Server::start(Options::new(Kind::Etcd371))];
    raw::block_on(async {
        let mut answers = Vec::new();
        for server in &servers {
            let mut client = Client::connect(server).await;
            let mut seen = Vec::new();
            let mut look = async |client: &mut Client| {
                let found = client.hash_kv(0).await.expect("a hash");
                let header = found.header.expect("a header").revision;
                seen.push((
                    header,
                    found.hash,
                    found.compact_revision,
                    found.hash_revision,
                ));
            };
            look(&mut client).await;
            for step in [
                "a", "a", "b", "=3", "=4", "c", "-a", "=6", "-b", "-c", "=8", "d",
            ] {
                if let Some(revision) = step.strip_prefix('=') {
                    let compact = CompactionRequest {
                        revision: revision.parse().expect("a number"),
                        physical: true,
                    };
                    client.compact(&compact).await.expect("a compaction");
                } else if let Some(key) = step.strip_prefix('-') {
                    let delete = pilaster_tests::pb::DeleteRangeRequest {
                        key: key.into(),
                        ..Default::default()
                    };
                    client.delete_range(&delete).await.expect("a delete");
                } else {
                    client.put(&raw::put(step, step)).await.expect("a put");
                }
                look(&mut client).await;
            }
            answers.push(seen);
        }
        assert_eq!(answers[0], answers[1]);
    });
}

/// What operators type, with three generations of etcdctl, prints the same with a real etcd.
#[test]
fn etcdctl_prints_what_it_prints_with_etcd() {
    let Some(_) = kind::peer("3.7.1/etcd") else {
        return;
    };
    for version in ["3.4.23", "3.5.1", "3.7.1"] {
        let Some(etcdctl) = kind::peer(&format!("{version}/etcdctl")) else {
            continue;
        };
        let servers = [start(), Server::start(Options::new(Kind::Etcd371))];
        let [ours, theirs] = servers.map(|server| {
            let id = raw::block_on(async {
                let mut client = Client::connect(&server).await;
                client.status().await.expect("a status").leader
            });
            let hex = format!("{id:x}");
            let stories: [&[&str]; 11] = [
                &["put", "a", "b"],
                &["alarm", "list"],
                &["alarm", "disarm"],
                &["move-leader", &hex],
                &["move-leader", "1"],
                &["downgrade", "validate", "3.6.0"],
                &["downgrade", "validate", "3.4.0"],
                &["downgrade", "cancel"],
                &["member", "update", &hex, "--peer-urls=http://a:1"],
                &["member", "update", "1", "--peer-urls=http://a:1"],
                &["endpoint", "hashkv"],
            ];
            let printed = stories.map(|arguments| {
                let output = tool::etcdctl(&etcdctl, &server, arguments, "");
                // Lines of the tool's own log have times in them.
                let is_said = |line: &&str| !line.starts_with('{');
                let said: Vec<&str> = output.stderr.lines().filter(is_said).collect();
                let text = format!("{arguments:?}\n{}{said:?}\n", output.stdout);
                let cluster = text
                    .replace(&server.url(), "URL")
                    .replace(&server.address(), "URL");
                let mut words: Vec<String> = cluster
                    .replace(&hex, "ID")
                    .split_whitespace()
                    .map(|word| match u64::from_str_radix(word, 16) {
                        Ok(_) if word.len() > 12 => "ID".to_owned(),
                        _ => word.to_owned(),
                    })
                    .collect();
                words.push(format!("{:?}", output.status.code()));
                words.join(" ")
            });
            printed.join("\n")
        });
        assert_eq!(ours, theirs, "etcdctl {version}");
        println!("etcdctl {version}:\n{ours}");
    }
}

fn failure(code: i32, text: &str) -> Failure {
    Failure {
        code,
        text: text.to_owned(),
    }
}
