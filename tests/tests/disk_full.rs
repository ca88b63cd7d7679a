//! A full disk: writes are refused with a clear error, reads go on, nothing acknowledged is lost, and room brings service back.
//!
//! The data directory lies on a small ext4 file system in a file, mounted for this test alone; a filler takes the rest of its
//! room. That needs root and a loop device; without them the suite says so and is left out.
//! A real etcd ends itself when its log cannot grow; of it only the last part is asked.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use pilaster_tests::pb::AlarmRequest;
use pilaster_tests::server::scratch_dir;
use pilaster_tests::{Client, Kind, Options, Server, plain, raw};

const DISK_BYTES: u64 = 512 << 20;
/// Room left beside the filler.
const ROOM_BYTES: u64 = 6 << 20;
const VALUE_BYTES: usize = 64 << 10;
/// Far more than fits into the room and what a log keeps ready.
const PUTS_MAX: u32 = 12_000;
const NO_SPACE: (i32, &str) = (8, "etcdserver: mvcc: database space exceeded");

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    let disk = match Disk::mount() {
        Ok(disk) => disk,
        Err(reason) => {
            println!("left out: a full disk ({reason})");
            return;
        }
    };
    let data_dir = disk.place.join("data");
    // The quota must not be what refuses.
    let options = Options::new(Kind::subject()).data_dir(&data_dir);
    let mut server = Server::start(options.flag("--quota-backend-bytes=4294967296"));
    let filler = disk.fill();
    let stored = raw::block_on(async {
        let mut client = Client::connect(&server).await;
        for number in 0..PUTS_MAX {
            let put = raw::put(format!("key {number:05}"), value(number));
            let Err(failure) = client.put(&put).await else {
                continue;
            };
            println!("{number} values of {VALUE_BYTES} bytes fit, then: {failure:?}");
            if server.kind().is_pilaster() {
                assert_eq!((failure.code, failure.text.as_str()), NO_SPACE);
                refuses(&mut client).await;
                check(&mut client, number).await;
                client.status().await.expect("status goes on");
            }
            return number;
        }
        panic!("{PUTS_MAX} values fit on a full disk");
    });
    if server.kind().is_pilaster() {
        let health = plain::get(&server, "/health");
        println!("/health: {} {}", health.status, health.body.trim_end());
        server.kill9();
        server.launch();
        let (status, log) = server.terminate();
        assert!(
            status.success(),
            "a full disk is no reason not to stop in order: {status}\n{}",
            log.join("\n")
        );
        server.launch();
        raw::block_on(async {
            let mut client = Client::connect(&server).await;
            check(&mut client, stored).await;
            // What the start found out may take a moment to reach the log; some more small values may fit.
            while client.put(&raw::put("small", "x")).await.is_ok() {}
            refuses(&mut client).await;
        });
        println!("killed, stopped and started on the full disk: reads go on, writes are refused");
        fs::remove_file(&filler).expect("the filler is ours");
        assert!(
            server.await_log(|line| line.contains("the disk has room again")),
            "room is not noticed"
        );
        raw::block_on(async {
            let mut client = Client::connect(&server).await;
            let put = client.put(&raw::put("room", "again")).await;
            put.expect("room brings writes back without a start");
        });
        println!("room brings writes back without a start");
        server.kill9();
    } else {
        server.kill9();
        fs::remove_file(filler).expect("the filler is ours");
    }
    server.launch();
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        check(&mut client, stored).await;
        client
            .put(&raw::put("room", "again"))
            .await
            .expect("room brings writes back");
    });
    drop(server);
    println!("after a kill and with room again: all {stored} values are there, writes go on");
}

async fn refuses(client: &mut Client) {
    let put = client.put(&raw::put("small", "x")).await;
    let failure = put.expect_err("the disk is full");
    assert_eq!((failure.code, failure.text.as_str()), NO_SPACE);
    // What is wrong can be seen all the same.
    client
        .alarm(&AlarmRequest::default())
        .await
        .expect("alarms are listed without room");
    client.status().await.expect("a status needs no room");
}

fn value(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(VALUE_BYTES / 4)
}

/// All acknowledged values are there; the refused one may be there whole.
async fn check(client: &mut Client, stored: u32) {
    for number in 0..stored {
        let reply = client
            .range(&raw::get(format!("key {number:05}")))
            .await
            .expect("reads go on");
        let found = reply
            .kvs
            .first()
            .map(|kv| (kv.version, kv.value == value(number)));
        assert_eq!(found, Some((1, true)), "key {number:05}");
    }
    let reply = client
        .range(&raw::get(format!("key {stored:05}")))
        .await
        .expect("reads go on");
    for kv in &reply.kvs {
        assert!(
            kv.version == 1 && kv.value == value(stored),
            "the refused write is torn"
        );
    }
}

/// A small file system of our own; unmounted when dropped.
struct Disk {
    place: PathBuf,
    _home: tempfile::TempDir,
}

impl Disk {
    fn mount() -> Result<Disk, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can mount a file system".into());
        }
        let home = scratch_dir();
        let (image, place) = (home.path().join("disk"), home.path().join("mounted"));
        fs::create_dir(&place).map_err(|error| error.to_string())?;
        let file = fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(DISK_BYTES)
            .map_err(|error| error.to_string())?;
        run("mkfs.ext4", &[Path::new("-q"), Path::new("-m0"), &image])?;
        run("mount", &[Path::new("-oloop"), &image, &place])?;
        Ok(Disk { place, _home: home })
    }

    /// Takes all room but [`ROOM_BYTES`], while the server may be taking room too.
    fn fill(&self) -> PathBuf {
        let name = self.place.join("filler");
        let mut file = fs::File::create(&name).expect("the file system is ours");
        let chunk = vec![0xa5; 1 << 20];
        let mut size = 0;
        while file.write_all(&chunk).is_ok() && file.sync_data().is_ok() {
            size += chunk.len() as u64;
        }
        file.set_len(size.saturating_sub(ROOM_BYTES))
            .and_then(|()| file.sync_all())
            .expect("a file can be cut on a full disk");
        name
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the kernel takes a killed server's rings apart in the background, and they hold files.
        if let Err(reason) = run("umount", &[Path::new("-l"), &self.place]) {
            eprintln!("{} stays mounted: {reason}", self.place.display());
        }
    }
}

fn run(program: &str, arguments: &[&Path]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{program}: {}",
        stderr.lines().next().unwrap_or_default()
    ))
}
