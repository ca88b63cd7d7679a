//! A simulated disk that keeps only what was synced.
//!
//! What is always true here
//! - Every changing call is one numbered operation. The disk can lose power in any one of them:
//!   that operation has begun, is not reported as done, and everything after it fails.
//! - After a power loss each file holds its durable bytes plus, of the writes not yet synced, any
//!   subset of 512-byte sectors; each unsynced change of a length or of a name happened or not.
//!   The subset follows from a seed, so a failing case repeats.
//! - `sync` of a file covers that file's bytes and length, not its name; names need `sync` of the
//!   folder, and of that folder only. A queue write that completed is durable by itself and makes nothing else durable.
//! - Bytes that a queue write acknowledged are never written again while the file keeps its name.
//!   The disk panics if they are, across power losses too.
//!
//! For tests of the log and of the tree ([`CrashDisk`] is a [`Directory`], its files are
//! [`BlockFile`]s). It does not model sectors that decay or reads that fail; tests that damage
//! bytes do so with [`CrashDisk::damage`].

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::SECTOR_BYTES;
use super::buffer::AlignedBuffer;
use super::directory::{Directory, DirectoryLock, Geometry, Listed, LockHeld};
use super::file::BlockFile;
use super::memory::{copy_in, copy_out, registered};
use super::queue::{
    Completion, FileSlot, GroupFile, QueueOptions, QueueReport, Waker, WriteOp, WriteQueue,
};

/// How a disk comes back after [`CrashDisk::restart`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Power was lost; nothing that was not synced survives.
    LoseAll,
    /// Power was lost, but everything issued had reached the disk.
    KeepAll,
    /// Power was lost; a subset of unsynced sectors, lengths and names survives, by this seed.
    Subset(u64),
    /// Only the process died: everything issued is readable but still not durable.
    ProcessOnly,
}

/// What goes wrong, and in which operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Operation `at` begins and the power goes; it and all later ones fail.
    PowerLoss {
        /// Number of the operation, counted from 0 since the disk was made or restarted.
        at: u64,
    },
    /// Operation `at` fails with this OS error and has no effect; later ones work.
    Error {
        /// Number of the operation.
        at: u64,
        /// An `errno` value.
        errno: i32,
    },
}

/// One operation, for tests that want to aim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Blocking write.
    Write {
        name: String,
        offset: u64,
        bytes: usize,
    },
    /// Sync of one file.
    Sync { name: String },
    /// Change of length.
    SetLen { name: String, bytes: u64 },
    /// Creation, rename or removal.
    Name { from: String, to: String },
    /// Sync of the folder.
    SyncDirectory,
    /// A queue write was started.
    Submit {
        name: String,
        offset: u64,
        bytes: usize,
    },
    /// A queue write became durable and was reported.
    Complete {
        name: String,
        offset: u64,
        bytes: usize,
    },
}

/// A folder on a disk that can lose power; clones share it.
#[derive(Clone)]
pub struct CrashDisk {
    path: PathBuf,
    /// Goes before the names of this folder's files: empty for the disk's first folder.
    prefix: String,
    state: Arc<Mutex<State>>,
    is_locked: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    files: Vec<FileState>,
    /// What the running program sees.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    /// Of each folder that was asked for, by prefix.
    locks: BTreeMap<String, Arc<AtomicBool>>,
    journal: Vec<Operation>,
    faults: Vec<Fault>,
    is_powered: bool,
    is_stalled: bool,
    space_bytes_max: Option<u64>,
}

#[derive(Clone)]
struct NameChange {
    from: Option<String>,
    to: Option<String>,
    file: usize,
}

#[derive(Clone, Default)]
struct FileState {
    /// What the running program reads.
    bytes: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
    /// Acknowledged ranges, start to end.
    acknowledged: BTreeMap<u64, u64>,
}

#[derive(Clone)]
enum Pending {
    Write {
        token: Option<u64>,
        offset: u64,
        bytes: Vec<u8>,
    },
    SetLen(u64),
}

impl CrashDisk {
    /// An empty folder on a disk in good order.
    pub fn new() -> CrashDisk {
        let state = State {
            is_powered: true,
            ..State::default()
        };
        CrashDisk::with(state)
    }

    fn with(state: State) -> CrashDisk {
        CrashDisk {
            path: PathBuf::from("crash"),
            prefix: String::new(),
            state: Arc::new(Mutex::new(state)),
            is_locked: Arc::default(),
        }
    }

    /// Another folder on the same disk: it shares power, space and the numbering of operations with
    /// this one, and has names, a sync and a lock of its own. Its files appear in the journal, and
    /// to [`CrashDisk::contents`] of the first folder, as `name/file`.
    pub fn folder(&self, name: &str) -> CrashDisk {
        let prefix = format!("{}{name}/", self.prefix);
        let is_locked = self
            .state()
            .locks
            .entry(prefix.clone())
            .or_default()
            .clone();
        CrashDisk {
            path: self.path.join(name),
            prefix,
            state: self.state.clone(),
            is_locked,
        }
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The name in this folder of a file called `full` on the disk, if it lies here.
    fn local<'n>(&self, full: &'n str) -> Option<&'n str> {
        full.strip_prefix(&self.prefix)
            .filter(|name| !name.contains('/'))
    }

    /// Arranges a fault; several may be pending.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Limits the space all files together may take; writes beyond it fail with `ENOSPC`.
    pub fn limit_space(&self, bytes_max: Option<u64>) {
        self.state().space_bytes_max = bytes_max;
    }

    /// The space that all files together take.
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// While stalled, queue writes stay in flight.
    pub fn stall(&self, is_stalled: bool) {
        self.state().is_stalled = is_stalled;
    }

    /// How many operations have begun.
    pub fn operations(&self) -> u64 {
        self.state().journal.len() as u64
    }

    /// Every operation that has begun, in order.
    pub fn journal(&self) -> Vec<Operation> {
        self.state().journal.clone()
    }

    /// What the disk holds when power returns, seen from its first folder. `self` keeps its state, so that one run can be
    /// restarted with many seeds; its open handles stay with it.
    pub fn restart(&self, crash: Crash) -> CrashDisk {
        let state = self.state();
        let mut lottery = Lottery::new(crash);
        let mut names = state.durable_names.clone();
        for change in &state.pending_names {
            if lottery.keeps_whole() {
                change.apply(&mut names);
            }
        }
        let files = state
            .files
            .iter()
            .map(|file| file.after(crash, &mut lottery))
            .collect();
        let mut after = State {
            files,
            is_powered: true,
            ..State::default()
        };
        if crash == Crash::ProcessOnly {
            after.names = state.names.clone();
            after.durable_names = state.durable_names.clone();
            after.pending_names = state.pending_names.clone();
        } else {
            after.names = names.clone();
            after.durable_names = names;
        }
        after.space_bytes_max = state.space_bytes_max;
        CrashDisk::with(after)
    }

    /// The bytes of a file as the program sees them now.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state
            .names
            .get(&self.full(name))
            .map(|&file| state.files[file].bytes.clone())
    }

    /// Changes bytes behind everyone's back, as a failing disk would.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let found = state.names.get(&self.full(name)).copied();
        let file = found.expect("the damaged file exists");
        let file = &mut state.files[file];
        change(&mut file.bytes);
        file.durable = file.bytes.clone();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held is a failed test; later users see a consistent state
        // because each operation changes it in one go.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn handle(&self, name: &str) -> io::Result<CrashFile> {
        let name = self.full(name);
        let file = self.state().find(&name)?;
        Ok(CrashFile {
            disk: self.clone(),
            name,
            file,
        })
    }

    fn change_name(&self, from: Option<&str>, to: Option<&str>, file: usize) -> io::Result<()> {
        let mut state = self.state();
        let (from, to) = (
            from.map(|name| self.full(name)),
            to.map(|name| self.full(name)),
        );
        let verdict = state.begin(Operation::Name {
            from: from.clone().unwrap_or_default(),
            to: to.clone().unwrap_or_default(),
        });
        if let Verdict::Refused(error) = verdict {
            return Err(error);
        }
        let change = NameChange { from, to, file };
        change.apply(&mut state.names);
        state.pending_names.push(change);
        verdict.finish()
    }
}

impl Default for CrashDisk {
    fn default() -> CrashDisk {
        CrashDisk::new()
    }
}

/// How far an operation gets.
enum Verdict {
    /// Happens and is reported.
    Done,
    /// Happens, as far as a crash allows, but is reported as failed because the power went.
    PowerWent,
    /// Does not happen.
    Refused(io::Error),
}

impl Verdict {
    fn finish(self) -> io::Result<()> {
        match self {
            Verdict::Done => Ok(()),
            Verdict::PowerWent => Err(power_lost()),
            Verdict::Refused(error) => Err(error),
        }
    }
}

fn power_lost() -> io::Error {
    io::Error::other("the simulated disk has no power")
}

impl State {
    fn begin(&mut self, operation: Operation) -> Verdict {
        if !self.is_powered {
            return Verdict::Refused(power_lost());
        }
        let number = self.journal.len() as u64;
        self.journal.push(operation);
        for fault in &self.faults {
            match *fault {
                Fault::PowerLoss { at } if at == number => {
                    self.is_powered = false;
                    return Verdict::PowerWent;
                }
                Fault::Error { at, errno } if at == number => {
                    return Verdict::Refused(io::Error::from_raw_os_error(errno));
                }
                _ => {}
            }
        }
        Verdict::Done
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        if !self.is_powered {
            return Err(power_lost());
        }
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn used_bytes(&self) -> u64 {
        let lengths = self.names.values().map(|&file| &self.files[file].bytes);
        lengths.map(|bytes| bytes.len() as u64).sum()
    }

    fn check_space(&self, file: usize, end: u64) -> io::Result<()> {
        let Some(max) = self.space_bytes_max else {
            return Ok(());
        };
        let grown = end.saturating_sub(self.files[file].bytes.len() as u64);
        if self.used_bytes() + grown <= max || grown == 0 {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::ENOSPC))
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        if let Some(from) = &self.from
            && names.get(from) == Some(&self.file)
        {
            names.remove(from);
        }
        if let Some(to) = &self.to {
            names.insert(to.clone(), self.file);
        }
    }
}

impl FileState {
    fn after(&self, crash: Crash, lottery: &mut Lottery) -> FileState {
        let acknowledged = self.acknowledged.clone();
        if crash == Crash::ProcessOnly {
            // What the dead process had in flight ends before its successor can take the lock, so
            // a sync by the successor covers it.
            let mut after = FileState {
                acknowledged,
                ..self.clone()
            };
            for pending in &mut after.pending {
                if let Pending::Write { token, .. } = pending {
                    *token = None;
                }
            }
            return after;
        }
        let mut bytes = self.durable.clone();
        for pending in &self.pending {
            match pending {
                Pending::SetLen(length) => {
                    if lottery.keeps_whole() {
                        bytes.resize(*length as usize, 0);
                    }
                }
                Pending::Write {
                    offset,
                    bytes: written,
                    ..
                } => {
                    lottery.begin_write();
                    for (start, end) in sectors(*offset, written.len()) {
                        if lottery.keeps_sector() {
                            copy_in(&mut bytes, offset + start as u64, &written[start..end]);
                        }
                    }
                }
            }
        }
        FileState {
            durable: bytes.clone(),
            bytes,
            pending: Vec::new(),
            acknowledged,
        }
    }

    fn assert_never_acknowledged(&self, name: &str, offset: u64, bytes: usize) {
        let end = offset + bytes as u64;
        let before = self.acknowledged.range(..end).next_back();
        if let Some((&from, &to)) = before {
            assert!(
                to <= offset,
                "{name}: write of {offset}..{end} touches acknowledged bytes {from}..{to}"
            );
        }
    }
}

/// The pieces of a write that are whole or absent, as ranges within it.
fn sectors(offset: u64, bytes: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        if start == bytes {
            return None;
        }
        let into_sector = (offset as usize + start) % SECTOR_BYTES;
        let end = bytes.min(start + SECTOR_BYTES - into_sector);
        let piece = (start, end);
        start = end;
        Some(piece)
    })
}

/// Decides what survives. SplitMix64: small, well mixed, the same on every machine.
struct Lottery {
    crash: Crash,
    state: u64,
    /// Of 256: how likely a sector of the current write is kept.
    keep_of_256: u64,
}

impl Lottery {
    fn new(crash: Crash) -> Lottery {
        let state = if let Crash::Subset(seed) = crash {
            seed
        } else {
            0
        };
        Lottery {
            crash,
            state,
            keep_of_256: 0,
        }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn keeps_whole(&mut self) -> bool {
        match self.crash {
            Crash::LoseAll => false,
            Crash::KeepAll | Crash::ProcessOnly => true,
            Crash::Subset(_) => self.next() & 1 == 0,
        }
    }

    /// Each write draws its own share, so that single missing sectors and single surviving ones
    /// both come up often, not only halves.
    fn begin_write(&mut self) {
        let choice = self.next() % 6;
        self.keep_of_256 = [0, 256, 24, 232, 128, 128][choice as usize];
    }

    fn keeps_sector(&mut self) -> bool {
        match self.crash {
            Crash::LoseAll => false,
            Crash::KeepAll | Crash::ProcessOnly => true,
            Crash::Subset(_) => self.next() % 256 < self.keep_of_256,
        }
    }
}

/// A file on a [`CrashDisk`].
pub struct CrashFile {
    disk: CrashDisk,
    name: String,
    file: usize,
}

impl BlockFile for CrashFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.state();
        if !state.is_powered {
            return Err(power_lost());
        }
        Ok(copy_out(&state.files[self.file].bytes, offset, into))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        state.check_space(self.file, offset + bytes.len() as u64)?;
        let operation = Operation::Write {
            name: self.name.clone(),
            offset,
            bytes: bytes.len(),
        };
        let verdict = state.begin(operation);
        if let Verdict::Refused(error) = verdict {
            return Err(error);
        }
        let file = &mut state.files[self.file];
        file.assert_never_acknowledged(&self.name, offset, bytes.len());
        copy_in(&mut file.bytes, offset, bytes);
        file.pending.push(Pending::Write {
            token: None,
            offset,
            bytes: bytes.to_vec(),
        });
        verdict.finish()
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let verdict = state.begin(Operation::Sync {
            name: self.name.clone(),
        });
        if matches!(verdict, Verdict::Done) {
            let file = &mut state.files[self.file];
            // A queue write still in flight is not covered by a sync that overtakes it.
            let mut durable = std::mem::take(&mut file.durable);
            file.pending.retain(|pending| match pending {
                Pending::Write { token: Some(_), .. } => true,
                Pending::Write { offset, bytes, .. } => {
                    copy_in(&mut durable, *offset, bytes);
                    false
                }
                Pending::SetLen(length) => {
                    durable.resize(*length as usize, 0);
                    false
                }
            });
            file.durable = durable;
        }
        verdict.finish()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.check_space(self.file, bytes)?;
        let verdict = state.begin(Operation::SetLen {
            name: self.name.clone(),
            bytes,
        });
        if let Verdict::Refused(error) = verdict {
            return Err(error);
        }
        let file = &mut state.files[self.file];
        file.bytes.resize(bytes as usize, 0);
        file.pending.push(Pending::SetLen(bytes));
        verdict.finish()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.file].bytes.len() as u64)
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        if self.len()? < bytes {
            self.set_len(bytes)
        } else {
            Ok(())
        }
    }
}

impl Directory for CrashDisk {
    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> io::Result<Vec<Listed>> {
        let state = self.state();
        if !state.is_powered {
            return Err(power_lost());
        }
        let listed = |(name, &file): (&String, &usize)| {
            self.local(name).map(|name| Listed {
                name: name.to_owned(),
                bytes: state.files[file].bytes.len() as u64,
                is_file: true,
            })
        };
        Ok(state.names.iter().filter_map(listed).collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn BlockFile>> {
        Ok(Box::new(self.handle(name)?))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn BlockFile>> {
        let file = {
            let mut state = self.state();
            if state.names.contains_key(&self.full(name)) {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists));
            }
            state.files.push(FileState::default());
            state.files.len() - 1
        };
        self.change_name(None, Some(name), file)?;
        Ok(Box::new(self.handle(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let file = self.state().find(&self.full(from))?;
        self.change_name(Some(from), Some(to), file)?;
        self.state().files[file].acknowledged.clear();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let file = self.state().find(&self.full(name))?;
        self.change_name(Some(name), None, file)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        let verdict = state.begin(Operation::SyncDirectory);
        if matches!(verdict, Verdict::Done) {
            let State {
                durable_names,
                pending_names,
                ..
            } = &mut *state;
            pending_names.retain(|change| {
                let name = change.from.as_ref().or(change.to.as_ref());
                let is_here = name.is_some_and(|name| self.local(name).is_some());
                if is_here {
                    change.apply(durable_names);
                }
                !is_here
            });
        }
        verdict.finish()
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
        self.state().find(&self.full(name))?;
        Ok(Geometry {
            is_direct: true,
            memory_align_bytes: 0,
            offset_align_bytes: 0,
        })
    }

    fn open_group_file(&self, name: &str) -> io::Result<GroupFile> {
        self.state().find(&self.full(name))?;
        Ok(GroupFile {
            name: name.to_owned(),
            is_direct: true,
            fd: None,
        })
    }

    fn write_queue(&self, options: &QueueOptions) -> io::Result<Box<dyn WriteQueue>> {
        Ok(Box::new(CrashQueue {
            disk: self.clone(),
            files: Vec::new(),
            buffers: registered(options),
            in_flight: Vec::new(),
            lock: None,
        }))
    }
}

struct CrashQueue {
    disk: CrashDisk,
    files: Vec<Option<CrashFile>>,
    buffers: Vec<AlignedBuffer>,
    in_flight: Vec<WriteOp>,
    lock: Option<DirectoryLock>,
}

impl CrashQueue {
    fn file(&self, slot: FileSlot) -> Option<&CrashFile> {
        self.files.get(usize::from(slot.0)).and_then(Option::as_ref)
    }

    fn start(&self, op: &WriteOp) -> io::Result<()> {
        let Some(file) = self.file(op.slot) else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        let mut state = self.disk.state();
        let (name, offset) = (file.name.clone(), op.offset);
        let verdict = state.begin(Operation::Submit {
            name,
            offset,
            bytes: op.bytes,
        });
        if let Verdict::Refused(error) = verdict {
            return Err(error);
        }
        let bytes = op.buffer[..op.bytes].to_vec();
        let target = &mut state.files[file.file];
        target.assert_never_acknowledged(&file.name, offset, op.bytes);
        copy_in(&mut target.bytes, offset, &bytes);
        target.pending.push(Pending::Write {
            token: Some(op.token),
            offset,
            bytes,
        });
        verdict.finish()
    }

    fn end(&self, op: &WriteOp) -> io::Result<usize> {
        let file = self
            .file(op.slot)
            .expect("an operation in flight has its file attached");
        let mut state = self.disk.state();
        let (name, offset) = (file.name.clone(), op.offset);
        state
            .begin(Operation::Complete {
                name,
                offset,
                bytes: op.bytes,
            })
            .finish()?;
        let target = &mut state.files[file.file];
        let ended = |pending: &Pending| matches!(pending, Pending::Write { token: Some(token), .. } if *token == op.token);
        target.pending.retain(|pending| !ended(pending));
        copy_in(&mut target.durable, offset, &op.buffer[..op.bytes]);
        target.acknowledged.insert(offset, offset + op.bytes as u64);
        Ok(op.bytes)
    }
}

impl WriteQueue for CrashQueue {
    fn attach(&mut self, slot: FileSlot, file: GroupFile) -> io::Result<()> {
        let place = usize::from(slot.0);
        while self.files.len() <= place {
            self.files.push(None);
        }
        self.files[place] = Some(self.disk.handle(&file.name)?);
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
        match self.start(&op) {
            Ok(()) => {
                self.in_flight.push(op);
                Ok(())
            }
            Err(error) => Err((error, op)),
        }
    }

    fn poll_completions(&mut self, out: &mut Vec<Completion>) -> usize {
        if self.disk.state().is_stalled {
            return 0;
        }
        let ended = std::mem::take(&mut self.in_flight);
        let count = ended.len();
        out.extend(ended.into_iter().map(|op| Completion {
            result: self.end(&op),
            op,
        }));
        count
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
            driver: "crash",
            ..QueueReport::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(disk: &CrashDisk) -> Box<dyn BlockFile> {
        let file = disk.create("file").unwrap();
        Directory::sync(disk).unwrap();
        file.write_at(0, &[1; 4096]).unwrap();
        file.sync().unwrap();
        file.write_at(0, &[2; 4096]).unwrap();
        file
    }

    #[test]
    fn synced_bytes_survive_and_others_are_a_matter_of_chance() {
        let disk = CrashDisk::new();
        written(&disk);
        let after = |crash| disk.restart(crash).contents("file").unwrap();
        assert_eq!(after(Crash::LoseAll), [1; 4096]);
        assert_eq!(after(Crash::KeepAll), [2; 4096]);
        let mut mixed = 0;
        for seed in 0..40 {
            let bytes = after(Crash::Subset(seed));
            for sector in bytes.chunks(SECTOR_BYTES) {
                assert!(
                    sector.iter().all(|&byte| byte == sector[0]),
                    "a sector is torn"
                );
            }
            mixed += u32::from(bytes.contains(&1) && bytes.contains(&2));
            assert_eq!(bytes, after(Crash::Subset(seed)), "a seed repeats");
        }
        assert!(10 < mixed, "{mixed} of 40 mixed old and new");
    }

    #[test]
    fn names_need_a_sync_of_the_folder() {
        let disk = CrashDisk::new();
        written(&disk).sync().unwrap();
        disk.rename("file", "other").unwrap();
        assert!(disk.restart(Crash::LoseAll).contents("file").is_some());
        assert!(disk.restart(Crash::LoseAll).contents("other").is_none());
        Directory::sync(&disk).unwrap();
        assert!(disk.restart(Crash::LoseAll).contents("other").is_some());
    }

    #[test]
    fn folders_share_power_and_space_and_nothing_else() {
        let disk = CrashDisk::new();
        let (one, two) = (disk.folder("one"), disk.folder("two"));
        written(&one).sync().unwrap();
        two.create("file").unwrap().write_at(0, &[7]).unwrap();
        assert_eq!(one.contents("file").unwrap(), [2; 4096]);
        assert_eq!(disk.contents("two/file").unwrap(), [7]);
        assert_eq!(two.list().unwrap().len(), 1);
        assert!(disk.list().unwrap().is_empty());
        let _held = one.lock().unwrap();
        assert!(disk.folder("one").lock().is_err());
        assert!(two.lock().is_ok());

        Directory::sync(&one).unwrap();
        let after = disk.restart(Crash::LoseAll);
        assert!(after.contents("one/file").is_some());
        assert!(
            after.contents("two/file").is_none(),
            "the other folder was not synced"
        );
        disk.limit_space(Some(5000));
        assert!(two.create("more").unwrap().write_at(0, &[0; 1000]).is_err());
        disk.inject(Fault::PowerLoss {
            at: disk.operations(),
        });
        assert!(Directory::sync(&two).is_err());
        assert!(one.list().is_err());
    }

    #[test]
    fn a_failed_operation_changes_nothing_and_a_dead_disk_answers_nothing() {
        let disk = CrashDisk::new();
        let file = written(&disk);
        disk.inject(Fault::Error {
            at: disk.operations(),
            errno: libc::EIO,
        });
        assert_eq!(
            file.write_at(0, &[3]).unwrap_err().raw_os_error(),
            Some(libc::EIO)
        );
        file.write_at(1, &[4]).unwrap();
        assert_eq!(disk.contents("file").unwrap()[..3], [2, 4, 2]);
        disk.inject(Fault::PowerLoss {
            at: disk.operations(),
        });
        assert!(file.sync().is_err());
        assert!(file.read_at(0, &mut [0]).is_err());
        assert_eq!(
            disk.restart(Crash::LoseAll).contents("file").unwrap(),
            [1; 4096]
        );
    }

    /// The check that the log's tests lean on does fire.
    #[test]
    #[should_panic(expected = "touches acknowledged bytes")]
    fn rewriting_acknowledged_bytes_is_caught() {
        let disk = CrashDisk::new();
        let file = written(&disk);
        let options = QueueOptions {
            depth_max: 1,
            files_max: 1,
            buffers: 1,
            buffer_bytes: 4096,
        };
        let mut queue = disk.write_queue(&options).unwrap();
        queue
            .attach(FileSlot(0), disk.open_group_file("file").unwrap())
            .unwrap();
        let buffer = queue.take_buffers().remove(0);
        let op = WriteOp {
            token: 1,
            slot: FileSlot(0),
            offset: 8192,
            bytes: 4096,
            buffer,
        };
        assert!(queue.submit_write(op).is_ok());
        let mut ended = Vec::new();
        assert_eq!(queue.poll_completions(&mut ended), 1);
        let _panics = file.write_at(8192 + 4095, &[1]);
    }
}
