//! Binds the addresses of clients, before anything else is touched.
//!
//! Always true here: every net core has its own socket on every address of the network, over which the kernel spreads
//! connections, and a share of the one socket behind a path; an address that somebody else serves is an error with a
//! remedy, never a second server that gets half of the clients. Nothing is accepted yet.

use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::AnyError;
use crate::config::{Config, Url};
use crate::net::Serves;
use crate::net::core::BoundListener;
use crate::runtime::Listener;

/// How long a start waits for an address that an ended server still holds, and between two looks.
const PORT_PATIENCE: Duration = Duration::from_secs(3);
const PORT_PAUSE: Duration = Duration::from_millis(5);

/// The sockets of all net cores, and the paths that some of them made.
pub(super) struct Listeners {
    /// For each net core.
    pub(super) sets: Vec<Vec<BoundListener>>,
    paths: Vec<PathBuf>,
}

impl Listeners {
    /// Every URL once for each net core.
    pub(super) fn bind(config: &Config, nets: usize) -> Result<Listeners, AnyError> {
        let mut listeners = Listeners {
            sets: (0..nets).map(|_| Vec::new()).collect(),
            paths: Vec::new(),
        };
        let clients = match config.listen_client_http_urls.is_empty() {
            true => Serves::Everything,
            false => Serves::OnlyGrpc,
        };
        for (urls, serves) in [
            (&config.listen_client_urls, clients),
            (&config.listen_client_http_urls, Serves::OnlyHttp),
            (&config.listen_metrics_urls, Serves::OnlyMetrics),
        ] {
            for url in urls {
                if url.is_unix() {
                    listeners.bind_path(url, serves)?;
                } else {
                    listeners.bind_url(url, serves, config)?;
                }
            }
        }
        Ok(listeners)
    }

    fn bind_url(&mut self, url: &Url, serves: Serves, config: &Config) -> Result<(), AnyError> {
        let is_shared = self.sets.len() > 1 || config.socket_reuse_port;
        for address in resolve(&url.host, url.port).map_err(|error| format!("{url}: {error}"))? {
            let is_both = takes_both_families(address, config);
            if !config.socket_reuse_port {
                await_free(address, is_both)
                    .map_err(|error| cannot_listen(url, address, &error))?;
            }
            for set in &mut self.sets {
                let socket = Listener::bind(address, is_shared, is_both)
                    .map_err(|error| cannot_listen(url, address, &error))?;
                set.push(BoundListener {
                    socket,
                    is_tls: url.is_tls(),
                    serves,
                    shown: address.to_string(),
                });
            }
        }
        Ok(())
    }

    fn bind_path(&mut self, url: &Url, serves: Serves) -> Result<(), AnyError> {
        let path = PathBuf::from(&url.host);
        let refuse = |why: String| format!("{url}: cannot listen on {}: {why}", path.display());
        clear_path(&path).map_err(&refuse)?;
        let socket = UnixListener::bind(&path).map_err(|error| {
            refuse(format!(
                "{error}; check that its directory exists and may be written"
            ))
        })?;
        self.paths.push(path.clone());
        for set in &mut self.sets {
            let socket = socket
                .try_clone()
                .map_err(|error| refuse(error.to_string()))?;
            set.push(BoundListener {
                socket: socket.into(),
                is_tls: url.is_tls(),
                serves,
                shown: path.display().to_string(),
            });
        }
        Ok(())
    }

    /// Takes the sockets out, for the cores; the paths stay to be removed.
    pub(super) fn take_sets(&mut self) -> Vec<Vec<BoundListener>> {
        std::mem::take(&mut self.sets)
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for path in &self.paths {
            // Somebody may have removed it before, which is what we want.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Removes the socket that a member which was killed left behind.
fn clear_path(path: &Path) -> Result<(), String> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(
            "there is a file that is no socket; remove it, or choose another path".to_owned(),
        );
    }
    if UnixStream::connect(path).is_ok() {
        return Err(
            "another server is listening there; stop it, or choose another path".to_owned(),
        );
    }
    std::fs::remove_file(path).map_err(|error| {
        format!("a socket that nobody serves is in the way and cannot be removed: {error}")
    })
}

/// Names the address, and what to do about this kind of error.
fn cannot_listen(url: &Url, address: SocketAddr, error: &std::io::Error) -> String {
    let remedy = match (error.kind(), error.raw_os_error()) {
        (ErrorKind::AddrInUse, _) => {
            "another server is listening there; stop it, or choose another port"
        }
        (ErrorKind::AddrNotAvailable, _) => {
            "no interface of this host has that address; name one that `ip address` lists, or 0.0.0.0 for all"
        }
        (ErrorKind::PermissionDenied, _) => {
            "only privileged processes listen on low ports; choose one above 1023, or grant CAP_NET_BIND_SERVICE"
        }
        (_, Some(libc::EAFNOSUPPORT)) => {
            "this host has no addresses of that kind (IPv6 is off); name an IPv4 address"
        }
        _ => "check --listen-client-urls and the kernel log",
    };
    format!("{url}: cannot listen on {address}: {error}; {remedy}")
}

/// With SO_REUSEPORT two servers could share a port unnoticed, each with half of the clients.
fn check_free(address: SocketAddr, is_both: bool) -> std::io::Result<()> {
    Listener::bind(address, false, is_both).map(drop)
}

/// As [`check_free`], but gives a server that has just ended time to let go: the kernel takes a ring
/// apart in the background, and the polls on it hold the old listening sockets a moment longer than
/// the process lives.
fn await_free(address: SocketAddr, is_both: bool) -> std::io::Result<()> {
    let until = Instant::now() + PORT_PATIENCE;
    let mut has_waited = false;
    loop {
        match check_free(address, is_both) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                if !std::mem::replace(&mut has_waited, true) {
                    tracing::info!(%address, "the address is in use; waiting for it");
                }
                std::thread::sleep(PORT_PAUSE);
            }
            ended => return ended,
        }
    }
}

fn resolve(host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    if host.is_empty() {
        return Ok(vec![SocketAddr::from(([0, 0, 0, 0], port))]);
    }
    let mut addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    addresses.sort_unstable();
    addresses.dedup();
    // `localhost` often names both families; etcd listens on the first alone, and so do we when the
    // other is not there. Whoever names an IPv6 address means it.
    if addresses.iter().any(SocketAddr::is_ipv4) {
        addresses.retain(|address| address.is_ipv4() || check_free(*address, false).is_ok());
    }
    Ok(addresses)
}

/// Whether `[::]` is to take IPv4 clients too, as it does in etcd: unless another URL has that port on IPv4.
fn takes_both_families(address: SocketAddr, config: &Config) -> bool {
    let urls = [
        &config.listen_client_urls,
        &config.listen_client_http_urls,
        &config.listen_metrics_urls,
    ];
    let mut others = urls.into_iter().flatten().filter(|url| !url.is_unix());
    address.is_ipv6()
        && address.ip().is_unspecified()
        && !others.any(|url| url.port == address.port() && !url.host.contains(':'))
}
