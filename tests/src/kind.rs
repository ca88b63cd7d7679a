//! Which server program a suite runs against, and where it and the real peers lie.
//!
//! Every suite takes its subject from `PILASTER_SUBJECT` (`pilaster`, `etcd-3.7.1` or `etcd-3.5.1`), so each check is first
//! proven against the server it copies. Nothing is downloaded or built here; `cargo xtask peers` does that.

use std::env;
use std::path::PathBuf;

/// One kind of server program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Pilaster,
    Etcd371,
    Etcd351,
}

impl Kind {
    /// The server under test: `PILASTER_SUBJECT`, by default Pilaster.
    pub fn subject() -> Kind {
        match env::var("PILASTER_SUBJECT").as_deref() {
            Err(_) | Ok("") | Ok("pilaster") => Kind::Pilaster,
            Ok("etcd-3.7.1") => Kind::Etcd371,
            Ok("etcd-3.5.1") => Kind::Etcd351,
            Ok(other) => panic!(
                "PILASTER_SUBJECT is {other:?}; it may be pilaster, etcd-3.7.1 or etcd-3.5.1"
            ),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Pilaster => "pilaster",
            Kind::Etcd371 => "etcd-3.7.1",
            Kind::Etcd351 => "etcd-3.5.1",
        }
    }

    pub fn is_pilaster(self) -> bool {
        self == Kind::Pilaster
    }

    /// The program file when it is there.
    pub fn found(self) -> Option<PathBuf> {
        let file = match self {
            Kind::Pilaster => match env::var_os("PILASTER_BIN") {
                Some(program) => PathBuf::from(program),
                None => build_root().join("release/pilaster"),
            },
            Kind::Etcd371 => peers_root().join("3.7.1/etcd"),
            Kind::Etcd351 => peers_root().join("3.5.1/etcd"),
        };
        file.is_file().then_some(file)
    }

    /// The program file. Panics with the command that makes it when it is not there.
    pub fn program(self) -> PathBuf {
        self.found().unwrap_or_else(|| match self {
            Kind::Pilaster => panic!(
                "no pilaster program: run `cargo build --release`, or name one in PILASTER_BIN"
            ),
            _ => panic!("no {}: run `cargo xtask peers`", self.name()),
        })
    }
}

/// A file of the peer cache, named by its path inside it, such as `3.7.1/etcdctl`. When the cache lacks it, says what is
/// left out and returns nothing; the caller then skips what needs it.
pub fn peer(inside: &str) -> Option<PathBuf> {
    let file = peers_root().join(inside);
    if file.is_file() {
        return Some(file);
    }
    println!("left out: what needs {inside}; `cargo xtask peers` says why it is missing");
    None
}

/// The peer cache: `PILASTER_PEERS`, by default `~/.cache/pilaster/peers`.
pub fn peers_root() -> PathBuf {
    if let Some(root) = env::var_os("PILASTER_PEERS") {
        return PathBuf::from(root);
    }
    let home = env::var_os("HOME").expect("HOME names the folder that holds the peer cache");
    PathBuf::from(home).join(".cache/pilaster/peers")
}

/// Scratch room for data directories: beside the build, so on the disk that holds it and not in memory.
pub fn scratch_root() -> PathBuf {
    let root = build_root().join("suite-data");
    std::fs::create_dir_all(&root).expect("the build folder is writable");
    root
}

/// The cargo target folder: programs lie in `<target>/<profile>`, tests a folder deeper.
fn build_root() -> PathBuf {
    let program = env::current_exe().expect("a running program knows its file");
    let profiles = ["debug", "release"];
    let profile = program
        .ancestors()
        .find(|dir| profiles.iter().any(|name| dir.ends_with(name)));
    let root = profile.and_then(|dir| dir.parent());
    root.expect("built by cargo").to_path_buf()
}
