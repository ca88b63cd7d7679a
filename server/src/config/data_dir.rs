//! The member's directory: created if absent, refused if it cannot or must not be used.
//!
//! Always true here: after `open`, the directories exist, belong to this user, can be written, and hold
//! nothing but what a member puts there; every refusal names the path and the remedy. `is_initialized`
//! tells a used directory from a fresh one.
//!
//! Called once at start-up, blocking. Locks nothing and looks into no file; the storage layer does both.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Notice;

/// Owner only: the files hold every key and password hash.
const MODE: u32 = 0o700;

/// Besides `member`: made by file systems, and by etcd for generated certificates.
const TOLERATED: &[&str] = &["lost+found", "fixtures"];

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataDir {
    pub root: PathBuf,
    /// `<root>/member/snap`, home of the tree file.
    pub snap: PathBuf,
    /// Home of the log; elsewhere with `--wal-dir`.
    pub wal: PathBuf,
    /// A member has lived here: there are log or tree files.
    pub is_initialized: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error(
        "{path}: cannot be created ({source}); create it, owned by the server's user, mode 0700"
    )]
    Create { path: PathBuf, source: io::Error },
    #[error("{path}: cannot be read ({source}); give it to the server's user, mode 0700")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: is not a directory; move it away or choose another --data-dir")]
    NotADirectory { path: PathBuf },
    #[error(
        "{path}: belongs to user {owner} but the server runs as user {user}; \
         run `chown -R {user}` on it or start the server as its owner"
    )]
    WrongOwner {
        path: PathBuf,
        owner: u32,
        user: u32,
    },
    #[error("{path}: cannot be written ({source}); remount it for writing or fix its permissions")]
    NotWritable { path: PathBuf, source: io::Error },
    #[error("{path}: does not belong in a member's directory; move it elsewhere and start again")]
    Foreign { path: PathBuf },
}

impl DataDir {
    /// Makes the directories ready for the member.
    pub fn open(
        root: &Path,
        wal: &Path,
        notices: &mut Vec<Notice>,
    ) -> Result<DataDir, DataDirError> {
        let member = root.join("member");
        let snap = member.join("snap");
        prepare(root, notices)?;
        refuse_foreign(root, |name| {
            name == "member" || TOLERATED.contains(&name) || wal.starts_with(root.join(name))
        })?;
        prepare(&member, notices)?;
        refuse_foreign(&member, |name| {
            name == "snap" || name == "wal" || wal.starts_with(member.join(name))
        })?;
        prepare(&snap, notices)?;
        prepare(wal, notices)?;
        let is_initialized = holds_files(&snap)? || holds_files(wal)?;
        Ok(DataDir {
            root: root.to_owned(),
            snap,
            wal: wal.to_owned(),
            is_initialized,
        })
    }
}

fn prepare(path: &Path, notices: &mut Vec<Notice>) -> Result<(), DataDirError> {
    let create_error = |source| DataDirError::Create {
        path: path.to_owned(),
        source,
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new()
                .recursive(true)
                .mode(MODE)
                .create(path)
                .map_err(create_error)?;
            fs::metadata(path).map_err(create_error)?
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(create_error(error));
        }
        Err(source) => {
            return Err(DataDirError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    if !metadata.is_dir() {
        return Err(DataDirError::NotADirectory {
            path: path.to_owned(),
        });
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode != MODE {
        notices.push(Notice::warning(format!(
            "{}: has mode {mode:04o}; 0700 is recommended, so that others cannot read the data",
            path.display()
        )));
    }
    if let Some(user) = effective_user()
        && user != 0
        && user != metadata.uid()
    {
        let owner = metadata.uid();
        return Err(DataDirError::WrongOwner {
            path: path.to_owned(),
            owner,
            user,
        });
    }
    let probe = path.join(".touch");
    fs::write(&probe, b"")
        .and_then(|()| fs::remove_file(&probe))
        .map_err(|source| DataDirError::NotWritable {
            path: path.to_owned(),
            source,
        })
}

fn refuse_foreign(path: &Path, belongs: impl Fn(&str) -> bool) -> Result<(), DataDirError> {
    let mut foreign: Vec<PathBuf> = entries(path)?
        .into_iter()
        .filter(|name| !name.to_str().is_some_and(&belongs))
        .map(|name| path.join(name))
        .collect();
    foreign.sort();
    match foreign.into_iter().next() {
        Some(path) => Err(DataDirError::Foreign { path }),
        None => Ok(()),
    }
}

fn holds_files(path: &Path) -> Result<bool, DataDirError> {
    Ok(entries(path)?
        .iter()
        .any(|name| !TOLERATED.iter().any(|tolerated| name == tolerated)))
}

fn entries(path: &Path) -> Result<Vec<std::ffi::OsString>, DataDirError> {
    let error = |source| DataDirError::Read {
        path: path.to_owned(),
        source,
    };
    fs::read_dir(path)
        .map_err(error)?
        .map(|entry| entry.map(|entry| entry.file_name()).map_err(error))
        .collect()
}

/// The user whose rights this process has: the owner of its own `/proc` entry.
fn effective_user() -> Option<u32> {
    fs::metadata("/proc/self")
        .ok()
        .map(|metadata| metadata.uid())
}
