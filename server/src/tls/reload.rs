//! Notices changed certificate files, so that new connections use them without a restart.
//!
//! Always true here: `current` is a configuration that loaded whole; a broken new one is reported once
//! and the old one stays; files are looked at no more often than every `RECHECK_INTERVAL`, however many
//! connections arrive. Sessions already open keep the configuration they began with.
//!
//! Called by a net core when it accepts a connection; owned by that core. A look costs three `stat`
//! calls, a change a few small file reads.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use super::files::{TlsFiles, TlsLoadError};

/// Least time between two looks at the files.
pub const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

pub struct CertReloader {
    files: TlsFiles,
    current: Arc<ServerConfig>,
    /// What the files looked like when they were last read, usable or not.
    seen: Vec<Fingerprint>,
    next_look: Instant,
}

/// What tells one version of a file from the next. A swapped symlink changes the inode, an edit in place
/// the times or the size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Fingerprint {
    device: u64,
    inode: u64,
    bytes: u64,
    changed_seconds: i64,
    changed_nanoseconds: i64,
}

impl CertReloader {
    /// Loads the files for the first time; here a broken file is an error.
    pub fn new(files: TlsFiles, now: Instant) -> Result<CertReloader, TlsLoadError> {
        // Looked at before they are read: a change in between is seen again, never missed.
        let seen = fingerprints(&files);
        let current = files.load()?;
        Ok(CertReloader {
            files,
            current,
            seen,
            next_look: now + RECHECK_INTERVAL,
        })
    }

    /// The configuration for a connection accepted now.
    pub fn current(&mut self, now: Instant) -> &Arc<ServerConfig> {
        if self.next_look <= now {
            self.next_look = now + RECHECK_INTERVAL;
            self.look();
        }
        &self.current
    }

    fn look(&mut self) {
        let seen = fingerprints(&self.files);
        if seen == self.seen {
            return;
        }
        self.seen = seen;
        match self.files.load() {
            Ok(config) => {
                self.current = config;
                tracing::info!("re-read the changed TLS files");
            }
            // Certificate and key are often replaced one after the other; the second change heals it.
            Err(error) => tracing::warn!(
                error = %error,
                "changed TLS files cannot be used; new connections keep the old ones"
            ),
        }
    }
}

fn fingerprints(files: &TlsFiles) -> Vec<Fingerprint> {
    files.paths().map(fingerprint).collect()
}

/// A file that cannot be looked at counts as an empty one, so its return is a change.
fn fingerprint(path: &Path) -> Fingerprint {
    let mut fingerprint = Fingerprint {
        device: 0,
        inode: 0,
        bytes: 0,
        changed_seconds: 0,
        changed_nanoseconds: 0,
    };
    if let Ok(metadata) = fs::metadata(path) {
        fingerprint = Fingerprint {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            changed_seconds: metadata.ctime(),
            changed_nanoseconds: metadata.ctime_nsec(),
        };
    }
    fingerprint
}
