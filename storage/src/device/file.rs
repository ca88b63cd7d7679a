//! One file with positioned, blocking reads and writes; the surface the B+tree file and segment
//! preparation are written against.
//!
//! What is always true here
//! - `write_at` is all or error; what it wrote is durable only after a later `sync` returned.
//! - A failed `sync` says nothing about which bytes are durable. Callers latch the failure and
//!   stop; calling `sync` again and believing it is the classic way to lose data.
//! - All methods take `&self`, so a reader and the one writer may share a file.
//!
//! Called by helper threads and at startup; never by a core that serves requests. Does no caching
//! of its own and does not know pages or records.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// A file that can be read and written at any position and made durable.
pub trait BlockFile: Send + Sync {
    /// Reads into `into` from `offset`; fewer bytes than asked only at the end of the file.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`, extending the file if need be. Not durable yet.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes all completed writes and the length durable (`fdatasync`). Never retry a failure.
    fn sync(&self) -> io::Result<()>;

    /// Cuts or zero-extends the file. Durable only after a later [`BlockFile::sync`].
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Length in bytes as seen now.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file holds no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reserves disk space up to `bytes` and extends the file to it, so that a full disk is
    /// reported here and not in the middle of a later write.
    fn preallocate(&self, bytes: u64) -> io::Result<()>;

    /// Hints that the cached pages of this file will not be read again soon.
    fn drop_cache(&self) {}

    /// The operating-system file behind this one, for mapping it. `None` for simulated files.
    fn as_std(&self) -> Option<&File> {
        None
    }

    /// Reads exactly `into.len()` bytes or fails with `UnexpectedEof`.
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let got = self.read_at(offset, into)?;
        if got < into.len() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "file ends at byte {}, wanted {}",
                    offset + got as u64,
                    into.len()
                ),
            ));
        }
        Ok(())
    }
}

/// A file of the operating system, through its page cache.
#[derive(Debug)]
pub struct RealFile {
    file: File,
}

impl RealFile {
    /// Wraps a file that is open for reading, and for writing if it will be written.
    pub fn new(file: File) -> RealFile {
        RealFile { file }
    }

    /// Gives the descriptor up.
    pub fn into_fd(self) -> OwnedFd {
        self.file.into()
    }
}

impl BlockFile for RealFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match self.file.read_at(&mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        let length = i64::try_from(bytes)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "length exceeds i64"))?;
        // SAFETY: plain system call on a descriptor that `self.file` keeps open.
        let refused = unsafe { libc::posix_fallocate(self.file.as_raw_fd(), 0, length) };
        match refused {
            0 => Ok(()),
            // Filesystems without extents refuse; the zero-fill that follows allocates instead.
            libc::EOPNOTSUPP | libc::EINVAL => {
                if self.len()? < bytes {
                    self.set_len(bytes)
                } else {
                    Ok(())
                }
            }
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn drop_cache(&self) {
        // SAFETY: advice on an open descriptor; it changes no memory of this process.
        let _refused =
            unsafe { libc::posix_fadvise(self.file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }

    fn as_std(&self) -> Option<&File> {
        Some(&self.file)
    }
}
