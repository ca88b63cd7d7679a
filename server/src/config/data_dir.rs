//! The member's directory: looked at first, created after everything was accepted; refused if it cannot or must not be used.
//!
//! Always true here: `inspect` changes nothing, and what it accepts holds nothing but what a member puts there and can be
//! written; every refusal names the path and the remedy. After `create` the directories exist and their names are
//! durable, so that nothing acknowledged can go with a directory that a loss of power takes away. `is_initialized` tells a
//! used directory from a fresh one.
//!
//! Called once at start-up, blocking. Locks nothing and looks into no file; the storage layer does both.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf, absolute};

use rustix::fs::{Access, AtFlags, CWD, accessat, statfs};

use super::Notice;

/// Owner only: the files hold every key and password hash.
const MODE: u32 = 0o700;

/// In any of the directories: made by file systems, and left by a start of etcd that was cut short while it tried to write.
const TOLERATED: &[&str] = &["lost+found", ".touch"];
/// In the data directory, besides `member`: made by etcd for generated certificates.
const FIXTURES: &str = "fixtures";
/// The tree file and its page sums.
const TREE_FILES: &[&str] = &["db", "db.sum"];

/// `f_type` of file systems that live in memory.
const TMPFS_MAGIC: u64 = 0x0102_1994;
const RAMFS_MAGIC: u64 = 0x8584_58f6;

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
    #[error("{path}: cannot be created ({source}); {}", creation_remedy(source))]
    Create { path: PathBuf, source: io::Error },
    #[error("{path}: cannot be read ({source}); give it to the server's user, mode 0700")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: is not a directory; move it away or choose another place for it")]
    NotADirectory { path: PathBuf },
    #[error(
        "{path}: is a symbolic link to {target}, which is not there; mount or make the target, or remove the link"
    )]
    DanglingLink { path: PathBuf, target: PathBuf },
    #[error("{path}: cannot be written ({source}); {}", writing_remedy(source))]
    NotWritable { path: PathBuf, source: io::Error },
    #[error("{path}: does not belong in a member's directory; move it elsewhere and start again")]
    Foreign { path: PathBuf },
    #[error(
        "{path}: is the `member` folder of a data directory; leave it as it is and start with --data-dir {parent}"
    )]
    MemberFolder { path: PathBuf, parent: PathBuf },
    #[error(
        "{path}: was left by an `etcdutl defrag` that was cut short; remove it and start again"
    )]
    DefragLeftover { path: PathBuf },
    #[error(
        "{path}: belongs to an etcd member, whose log only etcd can read and may hold writes that its data file lacks; \
         leave this directory as it is, start etcd on it, stop its clients, run `etcdctl snapshot save FILE` and \
         `etcdutl snapshot restore FILE --data-dir NEW`, remove NEW/member/wal and NEW/member/snap/*.snap, and start \
         with --data-dir NEW. If this directory is such a restored one, only the removal is left to do"
    )]
    Etcd { path: PathBuf },
    #[error(
        "--wal-dir {wal}: holds the data directory's own files ({inside}); give the log a directory of its own"
    )]
    WalHoldsData { wal: PathBuf, inside: PathBuf },
}

fn writing_remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "the file system is mounted read-only; remount it for writing, or choose another place"
        }
        _ => "give it to the server's user, mode 0700",
    }
}

/// What helps where a directory cannot be made.
fn creation_remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotADirectory => {
            "something above it is a file; choose a place whose parents are directories"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "the file system is mounted read-only; remount it for writing, or choose another place"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the file system is full; make room there, or choose another place"
        }
        _ => "create it, owned by the server's user, mode 0700",
    }
}

impl DataDir {
    /// Looks at the directories and refuses what must not be used. Changes nothing.
    pub fn inspect(
        root: &Path,
        wal: &Path,
        notices: &mut Vec<Notice>,
    ) -> Result<DataDir, DataDirError> {
        let member = root.join("member");
        let snap = member.join("snap");
        let is_inside = |dir: &Path, path: &Path| match (absolute(dir), absolute(path)) {
            (Ok(dir), Ok(path)) => path.starts_with(dir),
            _ => path.starts_with(dir),
        };
        let holds_wal = |dir: &Path| is_inside(dir, wal);
        if is_inside(wal, &snap) {
            return Err(DataDirError::WalHoldsData {
                wal: wal.to_owned(),
                inside: snap,
            });
        }
        refuse_member_folder(root)?;
        // What etcd left is said first: its directories hold other things that do not belong here, too.
        let mut is_initialized = false;
        for dir in [wal, &snap] {
            let names = names_in(dir)?;
            if let Some(name) = names.iter().find(|name| is_etcds(name)) {
                let path = dir.join(name);
                return Err(DataDirError::Etcd { path });
            }
            is_initialized |= names.iter().any(|name| !is_tolerated(name));
        }
        examine(root, notices)?;
        refuse_foreign(root, |name| {
            name == "member" || name == FIXTURES || holds_wal(&root.join(name))
        })?;
        examine(&member, notices)?;
        refuse_foreign(&member, |name| {
            name == "snap" || name == "wal" || holds_wal(&member.join(name))
        })?;
        examine(&snap, notices)?;
        refuse_foreign(&snap, |name| TREE_FILES.contains(&name))?;
        examine(wal, notices)?;
        refuse_foreign(wal, storage::wal::is_name_of_log)?;
        note_memory(&snap, wal, notices);
        Ok(DataDir {
            root: root.to_owned(),
            snap,
            wal: wal.to_owned(),
            is_initialized,
        })
    }

    /// Makes the directories that are missing, durably, and says which.
    ///
    /// # Errors
    /// One cannot be made; those made before it are gone again.
    pub fn create(&self) -> Result<MadeFolders, DataDirError> {
        let mut folders = RealFolders::default();
        match self.create_in(&mut folders) {
            Ok(()) => Ok(folders.made),
            Err(error) => {
                folders.made.remove();
                Err(error)
            }
        }
    }

    fn create_in(&self, folders: &mut RealFolders) -> Result<(), DataDirError> {
        for dir in [&self.root, &self.root.join("member"), &self.snap, &self.wal] {
            make_durably(folders, dir).map_err(|source| DataDirError::Create {
                path: dir.clone(),
                source,
            })?;
        }
        // An earlier start may have been cut short between making these and making their names durable.
        for dir in [self.root.join("member"), self.root.clone()] {
            folders.sync(&dir).map_err(|source| DataDirError::Create {
                path: dir.clone(),
                source,
            })?;
        }
        for dir in [&self.root, &self.wal] {
            // Where we may not even look we have made nothing.
            let _not_ours = folders.sync(parent_of(dir));
        }
        Ok(())
    }
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The calls that make a directory, so that their order can be tested without one.
trait Folders {
    fn exists(&self, path: &Path) -> bool;
    /// Makes one directory.
    fn make(&mut self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync(&mut self, path: &Path) -> io::Result<()>;
}

/// Directories that this start has made, outermost first.
#[derive(Default)]
pub struct MadeFolders(Vec<PathBuf>);

impl MadeFolders {
    /// A start that is refused leaves no traces: those that are still empty go.
    pub fn remove(self) {
        for path in self.0.iter().rev() {
            // What holds something by now stays.
            let _holds_something = fs::remove_dir(path);
        }
    }
}

#[derive(Default)]
struct RealFolders {
    made: MadeFolders,
}

impl Folders for RealFolders {
    fn exists(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn make(&mut self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(MODE).create(path)?;
        self.made.0.push(path.to_owned());
        Ok(())
    }

    fn sync(&mut self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }
}

/// Makes `path` and what is missing above it, outermost first, each name durable before the next.
fn make_durably(folders: &mut impl Folders, path: &Path) -> io::Result<()> {
    if folders.exists(path) {
        return Ok(());
    }
    let parent = parent_of(path);
    make_durably(folders, parent)?;
    folders.make(path)?;
    folders.sync(parent)
}

/// `<data-dir>/member` is easily taken for the data directory, and moving what lies in it away would part data and log.
fn refuse_member_folder(root: &Path) -> Result<(), DataDirError> {
    let path = absolute(root).unwrap_or_else(|_| root.to_owned());
    let holds = |name: &str| root.join(name).is_dir();
    match path.parent() {
        Some(parent) if path.ends_with("member") && (holds("snap") || holds("wal")) => {
            Err(DataDirError::MemberFolder {
                path: root.to_owned(),
                parent: parent.to_owned(),
            })
        }
        _ => Ok(()),
    }
}

/// A directory that is there must be one that can be used.
fn examine(path: &Path, notices: &mut Vec<Notice>) -> Result<(), DataDirError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match fs::read_link(path) {
                Ok(target) => Err(DataDirError::DanglingLink {
                    path: path.to_owned(),
                    target,
                }),
                Err(_) => Ok(()),
            };
        }
        Err(source) if source.kind() == io::ErrorKind::NotADirectory => {
            return Err(DataDirError::Create {
                path: path.to_owned(),
                source,
            });
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
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        notices.push(Notice::warning(foreign_owner(path, owner, user)));
    }
    accessat(
        CWD,
        path,
        Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
        AtFlags::EACCESS,
    )
    .map_err(|error| DataDirError::NotWritable {
        path: path.to_owned(),
        source: error.into(),
    })
}

/// etcd starts in such a directory without a word, and on volumes that a group may write it must be so.
fn foreign_owner(path: &Path, owner: u32, user: u32) -> String {
    let path = path.display();
    if user == 0 {
        format!(
            "{path}: belongs to user {owner} but the server runs as root; its files will belong to root, and a later start as \
             user {owner} cannot open them: start as that user, or run `chown -R root` on it"
        )
    } else {
        format!(
            "{path}: belongs to user {owner} but the server runs as user {user}, whose files others may not be able to open"
        )
    }
}

/// What is acknowledged must outlive the host's power.
fn note_memory(snap: &Path, wal: &Path, notices: &mut Vec<Notice>) {
    for (path, what) in [(snap, "data"), (wal, "log")] {
        let there = path.ancestors().find(|path| path.is_dir());
        let there = there.unwrap_or(Path::new("."));
        let kind = match statfs(there).map(|about| about.f_type as u64 & 0xffff_ffff) {
            Ok(TMPFS_MAGIC) => "tmpfs",
            Ok(RAMFS_MAGIC) => "ramfs",
            _ => continue,
        };
        notices.push(Notice::warning(format!(
            "{}: lies in memory ({kind}); everything acknowledged is lost when the host stops: put the {what} on a disk",
            path.display()
        )));
    }
}

/// Whether etcd's log, its raft snapshots or their remains have such a name.
fn is_etcds(name: &OsString) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    [".wal", ".wal.broken", ".snap", ".snap.broken", ".snap.db"]
        .iter()
        .any(|end| name.ends_with(end))
        // A segment being prepared, and a snapshot being received.
        || name.strip_suffix(".tmp").is_some_and(is_number)
        || name.strip_prefix("tmp").is_some_and(is_number)
}

fn is_tolerated(name: &OsString) -> bool {
    TOLERATED.iter().any(|tolerated| name == tolerated)
}

fn refuse_foreign(path: &Path, belongs: impl Fn(&str) -> bool) -> Result<(), DataDirError> {
    let mut foreign: Vec<PathBuf> = names_in(path)?
        .into_iter()
        .filter(|name| !is_tolerated(name) && !name.to_str().is_some_and(&belongs))
        .map(|name| path.join(name))
        .collect();
    foreign.sort();
    let Some(path) = foreign.into_iter().next() else {
        return Ok(());
    };
    let name = path.file_name().unwrap_or_default();
    if name.as_encoded_bytes().starts_with(b"db.tmp.") {
        return Err(DataDirError::DefragLeftover { path });
    }
    Err(DataDirError::Foreign { path })
}

/// The names in a directory, sorted; none if it is not there or is none.
fn names_in(path: &Path) -> Result<Vec<OsString>, DataDirError> {
    let error = |source| DataDirError::Read {
        path: path.to_owned(),
        source,
    };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(source) => return Err(error(source)),
    };
    let mut names = entries
        .map(|entry| entry.map(|entry| entry.file_name()).map_err(error))
        .collect::<Result<Vec<OsString>, DataDirError>>()?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes each call; some paths are there from the beginning.
    struct Recorded {
        there: Vec<PathBuf>,
        calls: Vec<String>,
    }

    impl Folders for Recorded {
        fn exists(&self, path: &Path) -> bool {
            self.there.iter().any(|there| there == path)
        }

        fn make(&mut self, path: &Path) -> io::Result<()> {
            self.there.push(path.to_owned());
            self.calls.push(format!("make {}", path.display()));
            Ok(())
        }

        fn sync(&mut self, path: &Path) -> io::Result<()> {
            self.calls.push(format!("sync {}", path.display()));
            Ok(())
        }
    }

    #[test]
    fn each_new_name_is_durable_before_the_next_is_made() {
        let check = |there: &[&str], path: &str, expected: &[&str]| {
            let mut folders = Recorded {
                there: there.iter().map(PathBuf::from).collect(),
                calls: Vec::new(),
            };
            make_durably(&mut folders, Path::new(path)).expect("nothing fails here");
            assert_eq!(folders.calls, expected, "{path}");
        };
        check(&["/a"], "/a", &[]);
        check(&["/a"], "/a/b", &["make /a/b", "sync /a"]);
        check(
            &["/a"],
            "/a/b/c",
            &["make /a/b", "sync /a", "make /a/b/c", "sync /a/b"],
        );
        check(&["."], "b", &["make b", "sync ."]);
    }

    #[test]
    fn names_of_etcd_are_known() {
        let etcds = [
            "0000000000000000-0000000000000000.wal",
            "0.tmp",
            "12.tmp",
            "0000000000000001-0000000000000001.snap",
            "0000000000000001.snap.db",
            "0000000000000000-0000000000000000.wal.broken",
            "tmp123",
        ];
        for name in etcds {
            assert!(is_etcds(&name.into()), "{name}");
        }
        let others = [
            "db",
            "db.sum",
            "000000000000001f.segment",
            ".tmp",
            "x.tmp",
            "tmp",
            "db.tmp.1",
        ];
        for name in others {
            assert!(!is_etcds(&name.into()), "{name}");
        }
    }
}
