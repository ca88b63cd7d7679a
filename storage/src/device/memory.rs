//! A disk in memory: fast, forgets nothing, fails never.
//!
//! What is always true here
//! - Handles of one file share its bytes; a renamed file keeps its open handles.
//! - A write is durable at once, so `sync` does nothing.
//!
//! For unit tests and simulations that do not crash the disk; see [`super::crash`] for those that
//! do. Never used by a running member.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::buffer::AlignedBuffer;
use super::directory::{Directory, DirectoryLock, Geometry, Listed, LockHeld};
use super::file::BlockFile;
use super::queue::{
    Completion, FileSlot, GroupFile, QueueOptions, QueueReport, Waker, WriteOp, WriteQueue,
};

/// A file whose bytes live in memory; clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryFile {
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl MemoryFile {
    /// An empty file.
    pub fn new() -> MemoryFile {
        MemoryFile::default()
    }

    /// A copy of everything it holds.
    pub fn contents(&self) -> Vec<u8> {
        self.locked().clone()
    }

    /// Replaces everything it holds.
    pub fn set_contents(&self, bytes: Vec<u8>) {
        *self.locked() = bytes;
    }

    fn locked(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes
            .lock()
            .expect("a holder of this lock never panics")
    }
}

impl BlockFile for MemoryFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        Ok(copy_out(&self.locked(), offset, into))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        copy_in(&mut self.locked(), offset, bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.locked().resize(bytes as usize, 0);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.locked().len() as u64)
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        let mut held = self.locked();
        let length = held.len().max(bytes as usize);
        held.resize(length, 0);
        Ok(())
    }
}

/// Copies from `from` at `offset`, as far as it reaches.
pub(super) fn copy_out(from: &[u8], offset: u64, into: &mut [u8]) -> usize {
    let start = from.len().min(offset as usize);
    let bytes = into.len().min(from.len() - start);
    into[..bytes].copy_from_slice(&from[start..start + bytes]);
    bytes
}

/// Copies `bytes` into `into` at `offset`, growing it with zeros.
pub(super) fn copy_in(into: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = offset as usize;
    let end = start + bytes.len();
    if into.len() < end {
        into.resize(end, 0);
    }
    into[start..end].copy_from_slice(bytes);
}

/// A folder of [`MemoryFile`]s; clones share it.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    path: PathBuf,
    files: Arc<Mutex<BTreeMap<String, MemoryFile>>>,
    is_locked: Arc<AtomicBool>,
}

impl MemoryDisk {
    /// An empty folder.
    pub fn new() -> MemoryDisk {
        MemoryDisk {
            path: PathBuf::from("memory"),
            files: Arc::default(),
            is_locked: Arc::default(),
        }
    }

    /// A copy of the folder that shares nothing with it.
    pub fn fork(&self) -> MemoryDisk {
        let fork = MemoryDisk::new();
        for (name, file) in self.files().iter() {
            let copy = MemoryFile::new();
            copy.set_contents(file.contents());
            fork.files().insert(name.clone(), copy);
        }
        fork
    }

    /// The file called `name`, for tests that look at or damage its bytes.
    pub fn file(&self, name: &str) -> Option<MemoryFile> {
        self.files().get(name).cloned()
    }

    /// Puts a file there, replacing one of that name.
    pub fn insert(&self, name: &str, bytes: Vec<u8>) {
        let file = MemoryFile::new();
        file.set_contents(bytes);
        self.files().insert(name.to_owned(), file);
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, MemoryFile>> {
        self.files
            .lock()
            .expect("a holder of this lock never panics")
    }

    fn named(&self, name: &str) -> io::Result<MemoryFile> {
        self.file(name)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl Default for MemoryDisk {
    fn default() -> MemoryDisk {
        MemoryDisk::new()
    }
}

impl Directory for MemoryDisk {
    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> io::Result<Vec<Listed>> {
        let listed = |(name, file): (&String, &MemoryFile)| Listed {
            name: name.clone(),
            bytes: file.locked().len() as u64,
            is_file: true,
        };
        Ok(self.files().iter().map(listed).collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn BlockFile>> {
        Ok(Box::new(self.named(name)?))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn BlockFile>> {
        let mut files = self.files();
        if files.contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let file = MemoryFile::new();
        files.insert(name.to_owned(), file.clone());
        Ok(Box::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files();
        let file = files
            .remove(from)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.files().remove(name);
        removed
            .map(drop)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self) -> io::Result<DirectoryLock> {
        if self.is_locked.swap(true, Ordering::AcqRel) {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        Ok(DirectoryLock {
            held: LockHeld::Flag(self.is_locked.clone()),
        })
    }

    fn geometry(&self, name: &str) -> io::Result<Geometry> {
        self.named(name)?;
        Ok(Geometry {
            is_direct: true,
            memory_align_bytes: 0,
            offset_align_bytes: 0,
        })
    }

    fn open_group_file(&self, name: &str) -> io::Result<GroupFile> {
        self.named(name)?;
        Ok(GroupFile {
            name: name.to_owned(),
            is_direct: true,
            fd: None,
        })
    }

    fn write_queue(&self, options: &QueueOptions) -> io::Result<Box<dyn WriteQueue>> {
        Ok(Box::new(MemoryQueue {
            disk: self.clone(),
            files: Vec::new(),
            buffers: registered(options),
            in_flight: Vec::new(),
            lock: None,
        }))
    }
}

/// The buffers a simulated queue hands out, numbered as a ring would.
pub(super) fn registered(options: &QueueOptions) -> Vec<AlignedBuffer> {
    let buffer = |slot| {
        let mut buffer = AlignedBuffer::new(options.buffer_bytes);
        buffer.set_slot(slot);
        buffer
    };
    (0..options.buffers).map(buffer).collect()
}

struct MemoryQueue {
    disk: MemoryDisk,
    files: Vec<Option<MemoryFile>>,
    buffers: Vec<AlignedBuffer>,
    in_flight: Vec<WriteOp>,
    lock: Option<DirectoryLock>,
}

impl WriteQueue for MemoryQueue {
    fn attach(&mut self, slot: FileSlot, file: GroupFile) -> io::Result<()> {
        let place = usize::from(slot.0);
        if self.files.len() <= place {
            self.files.resize(place + 1, None);
        }
        self.files[place] = Some(self.disk.named(&file.name)?);
        Ok(())
    }

    fn take_buffers(&mut self) -> Vec<AlignedBuffer> {
        std::mem::take(&mut self.buffers)
    }

    fn guard(&mut self, lock: DirectoryLock) -> io::Result<()> {
        self.lock = Some(lock);
        Ok(())
    }

    fn submit_write(&mut self, op: WriteOp) -> Result<(), (io::Error, WriteOp)> {
        let file = self
            .files
            .get(usize::from(op.slot.0))
            .and_then(Option::as_ref);
        let Some(file) = file else {
            return Err((io::Error::from(io::ErrorKind::NotFound), op));
        };
        copy_in(&mut file.locked(), op.offset, &op.buffer[..op.bytes]);
        self.in_flight.push(op);
        Ok(())
    }

    fn poll_completions(&mut self, out: &mut Vec<Completion>) -> usize {
        let ended = self.in_flight.len();
        out.extend(self.in_flight.drain(..).map(|op| Completion {
            result: Ok(op.bytes),
            op,
        }));
        ended
    }

    fn wait(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn clear_event(&mut self) {}

    fn waker(&self) -> Waker {
        Waker::default()
    }

    fn wake_through(&mut self, _: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }

    fn report(&self) -> QueueReport {
        QueueReport {
            driver: "memory",
            ..QueueReport::default()
        }
    }
}
