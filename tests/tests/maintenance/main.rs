//! Maintenance and cluster calls as operators use them: backups while the server works, hashes, alarms, moves and downgrades.
//!
//! Everything here also passes against a real etcd (`--subject etcd-3.7.1`), except what is ours alone and says so.

mod cluster;
mod snapshot;

use std::path::Path;

use pilaster_tests::{Client, Kind, Options, Server, kind, raw, tool};

fn start() -> Server {
    Server::start(Options::new(Kind::subject()))
}

/// Overwrites `keys` keys of `bytes` each.
async fn fill(client: &mut Client, keys: usize, bytes: usize, fill: u8) -> i64 {
    let mut revision = 0;
    for key in 0..keys {
        let put = raw::put(format!("key {key:04}"), vec![fill; bytes]);
        let reply = client.put(&put).await.expect("a put");
        revision = reply.header.expect("a header").revision;
    }
    revision
}

/// A server of `kind` that starts from a backup, as etcdutl restores it; not yet launched.
fn restore(backup: &Path, home: &Path, kind: Kind) -> Option<Server> {
    let etcdutl = kind::peer("3.7.1/etcdutl")?;
    let data_dir = home.join("data");
    let server = Server::prepare(Options::new(kind).data_dir(&data_dir));
    let peer = server.peer_url();
    // Without a switch that skips the check of the digest.
    let arguments = [
        "snapshot".to_owned(),
        "restore".to_owned(),
        name(backup),
        "--data-dir".to_owned(),
        name(&data_dir),
        "--name=one".to_owned(),
        format!("--initial-cluster=one={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
    ];
    tool::run(&etcdutl, &arguments, "").expect_ok("etcdutl snapshot restore");
    Some(server)
}

fn name(path: &Path) -> String {
    path.display().to_string()
}
