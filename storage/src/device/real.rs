//! A folder of the operating system, written to by way of an io_uring ring, or of a thread where
//! the host forbids rings.
//!
//! What is always true here
//! - The folder stays open (and its lock held) for as long as the value or its ring lives, so a
//!   rename of the folder itself does not confuse us.
//! - Direct I/O is used where the file system allows it in units of [`BLOCK_BYTES`]; where it does
//!   not, files are written through the page cache and [`Geometry`] says so.
//!
//! Called at startup and by helper threads. Does not decide what to do about a refusal.

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::BLOCK_BYTES;
use super::directory::{Directory, DirectoryLock, Geometry, Listed, LockHeld};
use super::file::{BlockFile, RealFile};
use super::queue::{GroupFile, QueueOptions, WriteQueue};
use super::thread::ThreadQueue;
use super::uring::{UringQueue, is_ring_refused};

/// How often a busy lock is tried, and the pause between. A member that was killed keeps its lock
/// until the kernel has ended its writes and taken its ring apart; a supervisor may start the next
/// one sooner than that. A lock still busy after this belongs to a living process.
const LOCK_ATTEMPTS_MAX: usize = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A folder on a real file system.
#[derive(Debug)]
pub struct RealDirectory {
    path: PathBuf,
    folder: Arc<OwnedFd>,
    is_direct_allowed: bool,
    is_ring_allowed: bool,
}

impl RealDirectory {
    /// Opens an existing folder.
    pub fn open(path: &Path) -> io::Result<RealDirectory> {
        let folder = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC)
            .open(path)?;
        Ok(RealDirectory {
            path: path.to_owned(),
            folder: Arc::new(folder.into()),
            is_direct_allowed: true,
            is_ring_allowed: true,
        })
    }

    /// Creates the folder if it is missing, durably, and opens it. Its parent must exist.
    pub fn create(path: &Path) -> io::Result<RealDirectory> {
        match std::fs::create_dir(path) {
            Ok(()) => {
                if let Some(parent) = path.parent() {
                    let parent = if parent.as_os_str().is_empty() {
                        Path::new(".")
                    } else {
                        parent
                    };
                    File::open(parent)?.sync_all()?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        RealDirectory::open(path)
    }

    /// Treats the file system as one that refuses direct I/O.
    pub fn without_direct(self) -> RealDirectory {
        RealDirectory {
            is_direct_allowed: false,
            ..self
        }
    }

    /// Treats the host as one that forbids io_uring.
    pub fn without_ring(self) -> RealDirectory {
        RealDirectory {
            is_ring_allowed: false,
            ..self
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Directory for RealDirectory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let about = entry.metadata()?;
            listed.push(Listed {
                name: entry.file_name().to_string_lossy().into_owned(),
                bytes: if about.is_file() { about.len() } else { 0 },
                is_file: about.is_file(),
            });
        }
        listed.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(listed)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn BlockFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.at(name))?;
        Ok(Box::new(RealFile::new(file)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn BlockFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.at(name))?;
        Ok(Box::new(RealFile::new(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.at(name))
    }

    fn sync(&self) -> io::Result<()> {
        // SAFETY: plain system call on a descriptor that `self.folder` keeps open.
        match unsafe { libc::fsync(self.folder.as_raw_fd()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn lock(&self) -> io::Result<DirectoryLock> {
        // A description of its own: `flock` belongs to the description, so a lock on a shared one
        // would not keep a second opener in this process out.
        let folder = File::open(&self.path)?;
        for _ in 0..LOCK_ATTEMPTS_MAX {
            // SAFETY: plain system call on an open descriptor.
            let refused = unsafe { libc::flock(folder.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
            if refused == 0 {
                return Ok(DirectoryLock {
                    held: LockHeld::Descriptor(Arc::new(folder.into())),
                });
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(error);
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        Err(io::Error::from(io::ErrorKind::WouldBlock))
    }

    fn geometry(&self, name: &str) -> io::Result<Geometry> {
        let path = self.at(name);
        let asked = statx_direct(&path)?;
        let fits = |align: u32| (BLOCK_BYTES as u32).is_multiple_of(align.max(1));
        let is_allowed = match asked {
            // The kernel knows: 0 means refused.
            Some((memory, offset)) => offset != 0 && fits(memory) && fits(offset),
            // It does not say (before 6.1, or a file system that does not fill it in): try.
            None => true,
        };
        let is_direct = self.is_direct_allowed && is_allowed && open_direct(&path).is_ok();
        let (memory_align_bytes, offset_align_bytes) = asked.unwrap_or((0, 0));
        Ok(Geometry {
            is_direct,
            memory_align_bytes,
            offset_align_bytes,
        })
    }

    fn open_group_file(&self, name: &str) -> io::Result<GroupFile> {
        let path = self.at(name);
        let is_direct = self.geometry(name)?.is_direct;
        let file = if is_direct {
            open_direct(&path)?
        } else {
            OpenOptions::new().write(true).open(&path)?
        };
        Ok(GroupFile {
            name: name.to_owned(),
            is_direct,
            fd: Some(file.into()),
        })
    }

    fn write_queue(&self, options: &QueueOptions) -> io::Result<Box<dyn WriteQueue>> {
        let ring = match self.is_ring_allowed {
            true => UringQueue::new(options),
            false => Err(io::Error::from(io::ErrorKind::Unsupported)),
        };
        match ring {
            Ok(queue) => Ok(Box::new(queue)),
            Err(error) if is_ring_refused(&error) => {
                let note = format!("{error}; a thread writes the log instead, which is as safe");
                Ok(Box::new(ThreadQueue::new(options, vec![note])?))
            }
            Err(error) => Err(error),
        }
    }
}

/// Puts the calling thread behind everyone else at the disk. Without effect where the block
/// device has no scheduler that looks at priorities, which is why nothing relies on it.
pub fn lower_io_priority() {
    const WHO_PROCESS: libc::c_int = 1;
    const BEST_EFFORT_LAST: libc::c_int = (2 << 13) | 7;
    // SAFETY: changes the priority of the calling thread (0) and touches no memory.
    let _refused = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, BEST_EFFORT_LAST) };
}

fn open_direct(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
}

/// Memory and offset alignment for direct I/O, or `None` where the kernel does not say.
fn statx_direct(path: &Path) -> io::Result<Option<(u32, u32)>> {
    let name = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut about = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `name` is a terminated string and `about` is writable memory of the right type; both
    // outlive the call.
    let refused = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            name.as_ptr(),
            0,
            libc::STATX_DIOALIGN,
            about.as_mut_ptr(),
        )
    };
    if refused != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed before the call and filled by it; every bit pattern is a valid `statx`.
    let about = unsafe { about.assume_init() };
    if about.stx_mask & libc::STATX_DIOALIGN == 0 {
        return Ok(None);
    }
    Ok(Some((about.stx_dio_mem_align, about.stx_dio_offset_align)))
}
