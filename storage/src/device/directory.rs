//! A flat folder of files: what the log needs of a file system.
//!
//! What is always true here
//! - Names are plain file names without separators.
//! - `create`, `rename` and `remove` are durable only after a later `sync` of the directory.
//! - `rename` replaces an existing target in one step or not at all.
//!
//! Called at startup and by helper threads; blocking throughout. Knows nothing of segments.

use std::io;
use std::path::Path;

use super::file::BlockFile;
use super::queue::{GroupFile, QueueOptions, WriteQueue};

/// Blocking operations on one folder.
pub trait Directory: Send + Sync {
    /// Where the folder is, for messages.
    fn path(&self) -> &Path;

    /// Everything in the folder, sorted by name.
    fn list(&self) -> io::Result<Vec<Listed>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Box<dyn BlockFile>>;

    /// Creates a file that must not exist yet.
    fn create(&self, name: &str) -> io::Result<Box<dyn BlockFile>>;

    /// Renames, replacing the target.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes completed creations, renames and removals durable.
    fn sync(&self) -> io::Result<()>;

    /// Takes the exclusive lock of the folder; fails with `WouldBlock` while another holds it.
    fn lock(&self) -> io::Result<DirectoryLock>;

    /// How files here want to be written; asks the file `name`, which must exist.
    fn geometry(&self, name: &str) -> io::Result<Geometry>;

    /// Opens an existing file the way group writes want it (direct I/O where allowed).
    fn open_group_file(&self, name: &str) -> io::Result<GroupFile>;

    /// Makes the queue that writes groups to files of this folder.
    fn write_queue(&self, options: &QueueOptions) -> io::Result<Box<dyn WriteQueue>>;
}

/// One entry of [`Directory::list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// File name without the folder.
    pub name: String,
    /// Length in bytes; 0 for what is not a regular file.
    pub bytes: u64,
    /// Whether it is a regular file.
    pub is_file: bool,
}

/// What direct I/O asks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Whether reads and writes may bypass the page cache in units of [`super::BLOCK_BYTES`].
    pub is_direct: bool,
    /// Alignment the file system asks of memory, 0 if it does not say.
    pub memory_align_bytes: u32,
    /// Alignment the file system asks of offsets and lengths, 0 if it does not say.
    pub offset_align_bytes: u32,
}

/// Holds a folder's exclusive lock until dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    pub(super) held: LockHeld,
}

#[derive(Debug)]
pub(super) enum LockHeld {
    /// An open, `flock`ed descriptor of the folder. Shared with the ring, which keeps the lock
    /// until the kernel has finished every write in flight even if the process dies first.
    Descriptor(std::sync::Arc<std::os::fd::OwnedFd>),
    /// A simulated disk's flag.
    Flag(std::sync::Arc<std::sync::atomic::AtomicBool>),
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        if let LockHeld::Flag(flag) = &self.held {
            flag.store(false, std::sync::atomic::Ordering::Release);
        }
    }
}
