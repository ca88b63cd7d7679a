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
}

impl TreeFiles {
    /// Opens, or creates empty, `db` and `db.sum` in `dir`, and takes the exclusive lock that bbolt takes. The lock
    /// is held until the files are closed and the last snapshot's map is gone; a process that ends any way at all
    /// gives it up.
    pub fn open(dir: &Path) -> Result<TreeFiles, TreeError> {
        let path = dir.join("db");
        let db = open_file(&path)?;
        lock(&db, &path)?;
        let sums = open_file(&dir.join("db.sum"))?;
        // The names must be as durable as what will be written under them.
        File::open(dir)
            .and_then(|d| d.sync_all())
            .map_err(|e| io_error(dir, "sync folder", e))?;
        Ok(TreeFiles {
            db: Box::new(RealFile::new(db)),
            sums: Box::new(RealFile::new(sums)),
            path,
        })
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
        Ok(TreeFiles { db, sums, path })
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

fn open_file(path: &Path) -> Result<File, TreeError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| TreeError::Io {
            path: path.to_owned(),
            operation: "open",
            source,
        })
}
