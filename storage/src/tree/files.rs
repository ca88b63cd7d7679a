//! The two files of a tree, opened and locked.
//!
//! Always true here: a real tree file is open only under bbolt's own lock, exclusive for a writer and shared for readers,
//! so that neither a second member nor a tool that uses bbolt can change what we have mapped. The lock belongs to the
//! open file, which a map keeps alive: it is held until the last snapshot is gone too.
//!
//! Called by the thread that starts the member and by offline tools. Knows nothing of pages.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::device::{BlockFile, Directory, RealFile};

use super::error::{TreeError, io_error};

/// The two files of a tree: pages and page sums.
pub struct TreeFiles {
    pub(crate) db: Box<dyn BlockFile>,
    pub(crate) sums: Box<dyn BlockFile>,
    /// What errors call the pages' file.
    pub(crate) path: PathBuf,
    /// Where the page sums will be made, as long as there are none.
    missing_sums: Option<PathBuf>,
}

impl TreeFiles {
    /// Whether there is a tree file in `dir`, whatever it holds.
    pub fn exist(dir: &Path) -> bool {
        dir.join("db").symlink_metadata().is_ok()
    }

    /// Opens, or creates empty, `db` in `dir`, and takes the exclusive lock that bbolt takes. The lock
    /// is held until the files are closed and the last snapshot's map is gone; a process that ends any way at all
    /// gives it up. A missing `db.sum` is made when something is written to it first.
    pub fn open(dir: &Path) -> Result<TreeFiles, TreeError> {
        let path = dir.join("db");
        let db = open_file(&path, true)?;
        lock(&db, &path)?;
        // The name must be as durable as what will be written under it.
        sync_folder(dir)?;
        let sums_path = dir.join("db.sum");
        let (sums, missing_sums): (Box<dyn BlockFile>, _) = match open_file(&sums_path, false) {
            Ok(sums) => (Box::new(RealFile::new(sums)), None),
            Err(TreeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                (Box::new(NoFile), Some(sums_path))
            }
            Err(error) => return Err(error),
        };
        Ok(TreeFiles {
            db: Box::new(RealFile::new(db)),
            sums,
            path,
            missing_sums,
        })
    }

    /// Makes the page sums' file if it is missing, durably.
    pub(crate) fn create_sums(&mut self) -> Result<(), TreeError> {
        let Some(path) = &self.missing_sums else {
            return Ok(());
        };
        self.sums = Box::new(RealFile::new(open_file(path, true)?));
        sync_folder(path.parent().expect("a file lies in a folder"))?;
        self.missing_sums = None;
        Ok(())
    }

    /// Opens the existing files in `dir` for reading, with the shared lock that bbolt's read-only opens take: it is
    /// refused while a writer has the file open, because a writer reuses pages that another process cannot hold.
    pub fn open_read_only(dir: &Path) -> Result<TreeFiles, TreeError> {
        let path = dir.join("db");
        let db = File::open(&path).map_err(|e| io_error(&path, "open", e))?;
        match db.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(TreeError::Locked { path }),
            Err(TryLockError::Error(source)) => return Err(io_error(&path, "lock", source)),
        }
        let sums_path = dir.join("db.sum");
        let sums: Box<dyn BlockFile> = match File::open(&sums_path) {
            Ok(file) => Box::new(RealFile::new(file)),
            // A file that another program wrote has no sums beside it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Box::new(NoFile),
            Err(e) => return Err(io_error(&sums_path, "open", e)),
        };
        Ok(TreeFiles {
            db: Box::new(RealFile::new(db)),
            sums,
            path,
            missing_sums: None,
        })
    }

    /// As [`TreeFiles::open`], in any kind of folder. Files of a simulated one are locked by nobody.
    pub fn open_in(folder: &dyn Directory) -> Result<TreeFiles, TreeError> {
        let path = folder.path().join("db");
        let open = |name: &str| match folder.open(name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => folder.create(name),
            result => result,
        };
        let error = |source| io_error(&path, "open", source);
        let db = open("db").map_err(error)?;
        if let Some(file) = db.as_std() {
            lock(file, &path)?;
        }
        let sums = open("db.sum").map_err(error)?;
        folder.sync().map_err(error)?;
        Ok(TreeFiles {
            db,
            sums,
            path,
            missing_sums: None,
        })
    }
}

/// Stands for a side file that is not there.
struct NoFile;

impl BlockFile for NoFile {
    fn read_at(&self, _offset: u64, _into: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }

    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn preallocate(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

fn lock(db: &File, path: &Path) -> Result<(), TreeError> {
    match db.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(TreeError::Locked {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(io_error(path, "lock", source)),
    }
}

fn sync_folder(dir: &Path) -> Result<(), TreeError> {
    File::open(dir)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| io_error(dir, "sync folder", e))
}

fn open_file(path: &Path, may_create: bool) -> Result<File, TreeError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(may_create)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| TreeError::Io {
            path: path.to_owned(),
            operation: "open",
            source,
        })
}
