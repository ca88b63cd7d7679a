//! The data file goes both ways with its users: etcd opens ours with authentication on, and we open etcd's.

use std::fs;

use pilaster_tests::auth::{Ask, READ, WRITE};
use pilaster_tests::raw::block_on;
use pilaster_tests::server::scratch_dir;
use pilaster_tests::{Client, Kind, Options, Server, kind, tool};

use super::*;

fn fill(server: &Server) -> Vec<String> {
    block_on(async {
        let mut nobody = Client::connect(server).await;
        let mut root = turn_on(&mut nobody).await;
        let mut ann = add_user(&mut root, "ann", "a", "c").await;
        let asks = [
            Ask::UserAddWithout(text("cert")),
            Ask::RoleAdd(text("root")),
            Ask::RoleAdd(text("none")),
            grant("ann", READ, "m", ""),
            grant("ann", WRITE, "x", "\0"),
        ];
        all(&mut root, &asks).await;
        ann.put(&put("a")).await.expect("her own");
        told(&mut root).await
    })
}

/// All that root is told of users and roles.
async fn told(root: &mut Client) -> Vec<String> {
    let mut all = Vec::new();
    let mut asks = vec![Ask::Status, Ask::UserList, Ask::RoleList];
    for name in ["root", "ann", "cert"] {
        asks.push(Ask::UserGet(text(name)));
    }
    for name in ["root", "ann", "none"] {
        asks.push(Ask::RoleGet(text(name)));
    }
    for ask in asks {
        let told = root.ask(&ask).await.expect("root may");
        all.push(format!("{ask:?}: {:?}", told.rest));
    }
    all
}

fn judge(server: &Server, wanted: &[String]) {
    block_on(async {
        let mut nobody = Client::connect(server).await;
        assert!(nobody.put(&put("a")).await.is_err(), "it is on");
        let mut root = nobody.sign_in("root", "rootpw").await.expect("known");
        assert_eq!(told(&mut root).await, wanted);
        let mut ann = nobody.sign_in("ann", "annpw").await.expect("known");
        ann.put(&put("b")).await.expect("her own");
        assert_eq!(refusal(ann.put(&put("m")).await), denied());
        assert!(nobody.sign_in("ann", "wrong").await.is_err());
    });
}

#[test]
fn etcd_opens_ours() {
    let Some(etcdutl) = kind::peer("3.7.1/etcdutl") else {
        return;
    };
    let mut server = start();
    let wanted = fill(&server);
    server.terminate();
    let home = scratch_dir();
    let mut etcd = Server::prepare(
        Options::new(Kind::Etcd371)
            .flag(CHEAP)
            .data_dir(home.path().join("data")),
    );
    let arguments = [
        "snapshot".to_owned(),
        "restore".to_owned(),
        server.db_file().display().to_string(),
        "--skip-hash-check".to_owned(),
        "--name=one".to_owned(),
        format!("--data-dir={}", etcd.data_dir().display()),
        format!("--initial-cluster=one={}", etcd.peer_url()),
        format!("--initial-advertise-peer-urls={}", etcd.peer_url()),
    ];
    tool::run(&etcdutl, &arguments, "").expect_ok("etcdutl snapshot restore");
    etcd.launch();
    judge(&etcd, &wanted);
}

#[test]
fn ours_opens_etcds() {
    if Kind::Etcd371.found().is_none() || !Kind::subject().is_pilaster() {
        println!("left out: needs etcd 3.7.1, and ours to open its file without a log");
        return;
    }
    let mut etcd = Server::start(Options::new(Kind::Etcd371).flag(CHEAP));
    let wanted = fill(&etcd);
    etcd.terminate();
    let home = scratch_dir();
    let place = home.path().join("data/member/snap");
    fs::create_dir_all(&place).expect("a scratch directory is writable");
    fs::copy(etcd.db_file(), place.join("db")).expect("a stopped server leaves its file");
    let mut server = Server::start(options().data_dir(home.path().join("data")));
    judge(&server, &wanted);
    server.kill9();
    server.launch();
    judge(&server, &wanted);
}
