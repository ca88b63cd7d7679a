//! The writer half of the tree: makes one batch durable at a time.
//!
//! Always true here
//! - The two roots on disk and every snapshot that is held stay whole: a commit writes only pages none of them reach.
//! - Pages and their sums are durable before the meta page that leads to them is written.
//! - The first failed write or sync is remembered. A sync is never tried again, and no later commit is accepted.
//! - Growing comes before the first write, so that a full disk refuses a commit and harms nothing.
//!
//! Owned by the tree thread, which blocks on the files; readers never wait for it. Reads no clock: a caller that wants
//! to time a commit is told its phases. Commits of a [`Defragmentation`] also move leaves to the front, lower the high-water mark
//! and cut the files; without one the file is never shortened.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::device::BlockFile;

use super::backup::BackupFile;
use super::batch::{BucketChanges, Change, WriteBatch, check_key};
use super::defrag::{Defragmentation, Moves, Situation};
use super::edit::{self, EditError};
use super::error::{TreeError, damaged, io_error};
use super::files::TreeFiles;
use super::format::{
    ELEMENT_BUCKET, Meta, NO_FREELIST, PAGE_BYTES_MAX, PAGE_BYTES_MIN, PageNumber, TxId,
};
use super::free::{Allocator, Run};
use super::map::Mapping;
use super::open::{self, Backing, Opened};
use super::options::{CommitPhase, OpenReport, TreeOptions, TreeStats};
use super::pack::{Built, Output};
use super::scrub::mismatch;
use super::snapshot::{Snapshot, SnapshotWatch};
use super::source::PageSource;
use super::sums::{self, Header, Root, SECTOR_BYTES, SumTable, page_sum};

/// The side file grows in steps of this; one covers 32 MiB of 4 KiB pages.
const SUMS_GROW_BYTES: u64 = 32 << 10;
/// A meta page is written up to here; what lies behind is zero since the file was made.
const META_WRITE_BYTES: usize = 4096;
/// Most that one commit cuts off the file: giving blocks back takes the filesystem time.
const CUT_BYTES_MAX: u64 = 64 << 20;
/// Most of the page buffer that is kept from one commit to the next.
const PAGES_BUFFER_KEPT: usize = 16 << 20;

/// The one writer of a tree file.
pub struct Tree {
    files: TreeFiles,
    options: TreeOptions,
    /// The last published state.
    current: Snapshot,
    backing: Backing,
    file_bytes: u64,
    sums_bytes: u64,
    alloc: Allocator,
    table: SumTable,
    /// The whole file is kept in memory, as the options ask.
    is_memory_locked: bool,
    /// Pages of a freelist that another program stored, until the first commit.
    freelist: Option<Run>,
    /// Ties the side file to `current`.
    root: Root,
    /// Published states that readers may still hold, oldest first; the current one is not among them.
    held: VecDeque<SnapshotWatch>,
    /// The first write or sync that failed; every later commit is refused with it.
    failed: Option<Failure>,
    /// Buffers kept from commit to commit.
    pages_buffer: Vec<u8>,
    sums_buffer: Vec<u8>,
}

/// A tree that was read and found sound, and not changed.
pub struct ReadTree {
    files: TreeFiles,
    options: TreeOptions,
    opened: Opened,
}

impl ReadTree {
    /// What the file holds.
    pub fn snapshot(&self) -> &Snapshot {
        &self.opened.snapshot
    }

    /// What reading found.
    pub fn report(&self) -> &OpenReport {
        &self.opened.report
    }

    /// Makes what was read durable, writes page sums that are missing or damaged, and gets ready to go on.
    pub fn open(self) -> Result<(Tree, Snapshot, OpenReport), TreeError> {
        let ReadTree {
            mut files,
            options,
            opened,
        } = self;
        files.create_sums()?;
        open::make_durable(&files).map_err(|e| io_error(&files.path, "sync", e))?;
        open::repair(&files, &opened).map_err(|e| io_error(&files.path, "repair page sums", e))?;
        let sums_bytes = files
            .sums
            .len()
            .map_err(|e| io_error(&files.path, "read length", e))?;
        let Opened {
            snapshot,
            backing,
            file_bytes,
            table,
            root,
            walked,
            report,
            ..
        } = opened;
        let alloc = Allocator::new(snapshot.page_count(), |page| walked.used.contains(page));
        let first = PageNumber(snapshot.meta().freelist);
        let freelist = match walked.freelist_pages {
            0 => None,
            pages => Some(Run { first, pages }),
        };
        let is_memory_locked = options.lock_memory;
        let tree = Tree {
            files,
            options,
            current: snapshot.clone(),
            backing,
            file_bytes,
            sums_bytes,
            alloc,
            table,
            is_memory_locked,
            freelist,
            root,
            held: VecDeque::new(),
            failed: None,
            pages_buffer: Vec::new(),
            sums_buffer: Vec::new(),
        };
        Ok((tree, snapshot, report))
    }
}

#[derive(Debug, Clone)]
struct Failure {
    operation: &'static str,
    txid: TxId,
    message: String,
}

impl Tree {
    /// Opens the tree in `files`, or makes a new one if the file is empty.
    pub fn open(
        files: TreeFiles,
        options: TreeOptions,
    ) -> Result<(Tree, Snapshot, OpenReport), TreeError> {
        Tree::read(files, options)?.open()
    }

    /// Reads and checks the tree in `files`; an empty file becomes a new tree, but of one that holds something nothing is
    /// changed before [`ReadTree::open`].
    pub fn read(mut files: TreeFiles, options: TreeOptions) -> Result<ReadTree, TreeError> {
        let size = options.page_bytes as usize;
        if !size.is_power_of_two() || !(PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&size) {
            return Err(TreeError::BadChange {
                what: "the page size must be a power of two from 1 KiB to 16 MiB",
            });
        }
        if open::is_unborn(&files, &options)? {
            files.create_sums()?;
            open::create(&files, &options)?;
        }
        let opened = open::load(&files, &options)?;
        Ok(ReadTree {
            files,
            options,
            opened,
        })
    }

    /// Opens without writing anything, not even repairs of page sums. The files must stay as they are while the
    /// snapshot lives; see [`TreeFiles::open_read_only`].
    pub fn open_read_only(
        files: &TreeFiles,
        options: &TreeOptions,
    ) -> Result<(Snapshot, OpenReport), TreeError> {
        let opened = open::load(files, options)?;
        Ok((opened.snapshot, opened.report))
    }

    /// The file for copies of held states, read beside this writer.
    ///
    /// # Errors
    /// The process is out of file descriptors, or the file is a simulated one.
    pub fn backup_file(&self) -> io::Result<BackupFile> {
        let file = self.files.db.as_std();
        let file = file.ok_or(io::ErrorKind::Unsupported)?.try_clone()?;
        Ok(BackupFile::new(file))
    }

    /// The last published state.
    pub fn current(&self) -> &Snapshot {
        &self.current
    }

    /// Makes `batch` durable as one transaction and returns the state that contains it.
    ///
    /// All or nothing. After [`TreeError::Failed`] the tree takes no more commits. After any other error the
    /// published state stands, nothing was written, and the same batch may be committed again.
    pub fn commit(&mut self, batch: &WriteBatch<'_>) -> Result<Snapshot, TreeError> {
        self.commit_observed(batch, &mut |_| {})
    }

    /// As [`Tree::commit`], telling `phase` how far it got.
    pub fn commit_observed(
        &mut self,
        batch: &WriteBatch<'_>,
        phase: &mut dyn FnMut(CommitPhase),
    ) -> Result<Snapshot, TreeError> {
        self.commit_all(batch, None, phase)
    }

    /// As [`Tree::commit_observed`], taking a defragmentation one step further on the way. The batch may be empty. After
    /// [`TreeError::NoSpace`] the same batch may be committed again, better without the defragmentation.
    pub fn commit_and_move(
        &mut self,
        batch: &WriteBatch<'_>,
        defragmentation: &mut Defragmentation,
        phase: &mut dyn FnMut(CommitPhase),
    ) -> Result<Snapshot, TreeError> {
        self.commit_all(batch, Some(defragmentation), phase)
    }

    fn commit_all(
        &mut self,
        batch: &WriteBatch<'_>,
        mut defragmentation: Option<&mut Defragmentation>,
        phase: &mut dyn FnMut(CommitPhase),
    ) -> Result<Snapshot, TreeError> {
        if let Some(failure) = &self.failed {
            return Err(self.failure_error(failure.clone()));
        }
        let before = self.current.clone();
        let txid = TxId(before.txid().0 + 1);
        self.held.retain(|watch| !watch.is_released());
        let oldest_held = self.held.front().map_or(before.txid(), |watch| watch.txid);
        self.alloc.begin(txid, oldest_held);
        let mut moves = Moves::default();
        if let Some(defragmentation) = &mut defragmentation {
            let page_bytes = before.page_bytes() as u64;
            let situation = Situation {
                alloc: &self.alloc,
                held_commits: before.txid().0 - oldest_held.0,
                file_pages: self.file_bytes / page_bytes,
            };
            moves = defragmentation
                .choose(&before, &situation)
                .map_err(|damage| damaged(&self.files.path, page_bytes, damage))?;
        }

        let bytes = std::mem::take(&mut self.pages_buffer);
        let mut out = Output::new(&mut self.alloc, bytes, before.page_bytes());
        let built = build(&mut out, &before, batch, &moves);
        let Output {
            bytes,
            built: mut built_runs,
            mut freed,
            ..
        } = out;
        let root_page = match built {
            Ok(Some(root_page)) => root_page,
            Ok(None) => {
                self.alloc.roll_back();
                self.pages_buffer = bytes;
                return Ok(before);
            }
            Err(error) => {
                self.alloc.roll_back();
                self.pages_buffer = bytes;
                let (path, page_bytes) = (&self.files.path, before.page_bytes() as u64);
                return Err(error.into_tree_error(|damage| damaged(path, page_bytes, damage)));
            }
        };
        phase(CommitPhase::Built);
        if let Err(error) = self.make_room() {
            self.alloc.roll_back();
            self.pages_buffer = bytes;
            return Err(error);
        }

        let meta = Meta {
            root: root_page,
            freelist: NO_FREELIST,
            high_water: match defragmentation {
                Some(_) => self.alloc.high_water_at_least(),
                None => self.alloc.high_water(),
            },
            txid,
            ..*before.meta()
        };
        built_runs.sort_unstable_by_key(|built| built.run);
        let done = self.write(&meta, &bytes, &built_runs, phase);
        let root = match done {
            Ok(root) => root,
            Err((operation, error)) => {
                let failure = Failure {
                    operation,
                    txid,
                    message: error.to_string(),
                };
                self.failed = Some(failure.clone());
                return Err(self.failure_error(failure));
            }
        };
        // From now on the file stores no freelist, and the pages of the old one are free like any other.
        freed.extend(self.freelist.take());
        self.alloc.finish(txid, freed);
        self.alloc.lower(meta.high_water);
        self.root = root;
        if let Backing::Image(image) = &mut self.backing {
            let page_bytes = u64::from(meta.page_bytes);
            for (built, at) in built_runs.iter().map(|b| (b, b.at)) {
                let len = (built.run.pages * page_bytes) as usize;
                image.write(built.run.first.0 * page_bytes, &bytes[at..at + len]);
            }
        }
        if let Some(defragmentation) = &defragmentation {
            let least = match defragmentation.is_settling() {
                true => 1,
                false => self.options.grow_bytes,
            };
            if let Err(error) = self.cut(&before, &meta, least) {
                let failure = Failure {
                    operation: "shortening of the files",
                    txid,
                    message: error.to_string(),
                };
                self.failed = Some(failure.clone());
                return Err(self.failure_error(failure));
            }
        }
        let source = self.backing.source(self.file_bytes);
        if self.options.populate {
            map_ahead(&source, &built_runs, u64::from(meta.page_bytes));
        }
        self.current = Snapshot::new(source, meta);
        self.held.push_back(before.watch());
        self.pages_buffer = bytes;
        self.pages_buffer.shrink_to(PAGES_BUFFER_KEPT);
        Ok(self.current.clone())
    }

    /// Compares a page with its sum; false if the page is free or a meta page, which have none.
    pub fn verify_page(&self, page: PageNumber) -> Result<bool, TreeError> {
        if page.0 < 2 || page >= self.alloc.high_water() || self.alloc.is_free(page) {
            return Ok(false);
        }
        let damage = |damage| damaged(&self.files.path, self.current.page_bytes() as u64, damage);
        let bytes = self.current.pages(page, 1).map_err(damage)?;
        if page_sum(page, bytes) == self.table.get(page) {
            Ok(true)
        } else {
            Err(damage(mismatch(page)))
        }
    }

    pub fn stats(&self) -> TreeStats {
        TreeStats {
            txid: self.current.txid(),
            page_bytes: self.current.page_bytes() as u64,
            file_bytes: self.file_bytes,
            is_memory_locked: self.is_memory_locked,
            pages_high_water: self.alloc.high_water().0,
            pages_free: self.alloc.pages_free(),
            pages_pending: self.alloc.pages_pending(),
            snapshots_held: self
                .held
                .iter()
                .filter(|watch| !watch.is_released())
                .count(),
        }
    }

    /// Grows both files, and the map, to hold every page below the high-water mark. On failure nothing that was
    /// published has changed, so the commit may be tried again.
    fn make_room(&mut self) -> Result<(), TreeError> {
        let page_bytes = self.current.page_bytes() as u64;
        let high_water = self.alloc.high_water().0;
        let need = high_water * page_bytes;
        if need > self.file_bytes {
            let step = self.options.grow_bytes.max(page_bytes);
            let mut lock_from = self.file_bytes;
            self.file_bytes = grow(&*self.files.db, &self.files.path, need, step)?;
            match &mut self.backing {
                Backing::Map(map) if map.reserved() < self.file_bytes => {
                    // Doubling keeps new maps rare; snapshots keep the old one as long as they need it.
                    let reserve = (2 * map.reserved()).max(self.file_bytes);
                    let file = self.files.db.as_std().expect("a mapped file is a real one");
                    let new = Mapping::new(file, reserve as usize)
                        .map_err(|e| io_error(&self.files.path, "map", e))?;
                    *map = Arc::new(new);
                    lock_from = 0;
                }
                Backing::Map(_) => {}
                Backing::Image(image) => image.set_len(self.file_bytes),
            }
            if self.options.lock_memory
                && let Backing::Map(map) = &self.backing
            {
                // Not worth refusing a commit for; the figures tell.
                self.is_memory_locked &= map.lock(lock_from, self.file_bytes - lock_from).is_ok();
            }
        }
        let need = sums::file_bytes(high_water);
        if need > self.sums_bytes {
            let path = self.files.path.with_extension("sum");
            self.sums_bytes = grow(&*self.files.sums, &path, need, SUMS_GROW_BYTES)?;
        }
        Ok(())
    }

    /// Cuts off what lies behind the last page that a root on disk or a snapshot somebody holds may lead to, if that is
    /// `least` bytes or more. `before` and `now` are the two roots on disk, both durable, so it does not matter when the new
    /// length becomes so.
    fn cut(&mut self, before: &Snapshot, now: &Meta, least: u64) -> io::Result<()> {
        let held = self.held.iter().filter(|watch| !watch.is_released());
        let held = held.map(|watch| watch.pages).max().unwrap_or(0);
        let pages = now.high_water.0.max(before.page_count()).max(held);
        let need = pages * u64::from(now.page_bytes);
        if need.saturating_add(least) > self.file_bytes {
            return Ok(());
        }
        self.file_bytes = need.max(self.file_bytes.saturating_sub(CUT_BYTES_MAX));
        self.files.db.set_len(self.file_bytes)?;
        if let Backing::Image(image) = &mut self.backing {
            image.set_len(self.file_bytes);
        }
        let need = sums::file_bytes(self.file_bytes / u64::from(now.page_bytes));
        if need < self.sums_bytes {
            self.sums_bytes = need;
            self.files.sums.set_len(need)?;
        }
        Ok(())
    }

    /// Writes a commit in its order: pages and sums, sync, meta page, sync. `built` is in file order.
    fn write(
        &mut self,
        meta: &Meta,
        bytes: &[u8],
        built: &[Built],
        phase: &mut dyn FnMut(CommitPhase),
    ) -> Result<Root, (&'static str, io::Error)> {
        let page_bytes = meta.page_bytes as usize;
        let (db, side) = (&*self.files.db, &*self.files.sums);

        let mut chain = self.root.chain;
        let mut sectors = Vec::new();
        let mut pieces = built.iter().peekable();
        while let Some(first) = pieces.next() {
            let mut end = first.at + first.run.pages as usize * page_bytes;
            let mut next_page = first.run.first.0 + first.run.pages;
            // Neighbours in the file that are neighbours in the buffer go out in one write.
            while let Some(next) =
                pieces.next_if(|next| next.run.first.0 == next_page && next.at == end)
            {
                end += next.run.pages as usize * page_bytes;
                next_page += next.run.pages;
            }
            let piece = &bytes[first.at..end];
            for (slot, page_data) in piece.chunks(page_bytes).enumerate() {
                let page = PageNumber(first.run.first.0 + slot as u64);
                let sum = page_sum(page, page_data);
                chain = chain.add(page, sum);
                self.table.set(page, sum);
                let sector = SumTable::sector_of(page);
                if sectors.last() != Some(&sector) {
                    sectors.push(sector);
                }
            }
            db.write_at(first.run.first.0 * page_bytes as u64, piece)
                .map_err(|e| ("write of pages", e))?;
        }

        let mut head = vec![0; page_bytes.min(META_WRITE_BYTES)];
        let meta_sum = open::encode_meta_page(meta, chain, &mut head);
        let now = Root { meta_sum, chain };
        let header = Header {
            page_bytes: meta.page_bytes,
            txid: meta.txid,
            now,
            before: self.root,
        };
        let write_side = |sector: u64, bytes: &[u8]| {
            side.write_at(sector * SECTOR_BYTES as u64, bytes)
                .map_err(|e| ("write of page sums", e))
        };
        let mut from = 0;
        while from < sectors.len() {
            self.sums_buffer.clear();
            let mut to = from;
            while to < sectors.len() && sectors[to] == sectors[from] + (to - from) as u64 {
                self.table.encode_sector(sectors[to], &mut self.sums_buffer);
                to += 1;
            }
            write_side(sectors[from], &self.sums_buffer)?;
            from = to;
        }
        write_side(header.sector(), &header.encode())?;
        phase(CommitPhase::Written);

        db.sync().map_err(|e| ("sync of pages", e))?;
        side.sync().map_err(|e| ("sync of page sums", e))?;
        phase(CommitPhase::Synced);

        let meta_at = (meta.txid.0 % 2) * page_bytes as u64;
        db.write_at(meta_at, &head)
            .map_err(|e| ("write of the meta page", e))?;
        db.sync().map_err(|e| ("sync of the meta page", e))?;
        phase(CommitPhase::Published);
        Ok(now)
    }

    fn failure_error(&self, failure: Failure) -> TreeError {
        let Failure {
            operation,
            txid,
            message,
        } = failure;
        TreeError::Failed {
            path: self.files.path.clone(),
            operation,
            txid,
            message,
        }
    }
}

/// Maps the pages just written, which are in memory, so that no reader's core takes the page faults. `built` is in file order.
fn map_ahead(source: &PageSource, built: &[Built], page_bytes: u64) {
    let mut runs = built.iter().map(|built| built.run).peekable();
    while let Some(mut run) = runs.next() {
        while let Some(next) = runs.next_if(|next| next.first.0 == run.first.0 + run.pages) {
            run.pages += next.pages;
        }
        // A hint: a reader that faults after all reads the same bytes a little later.
        let _faults_later = source.populate(run.first.0 * page_bytes, run.pages * page_bytes);
    }
}

/// Builds the pages of a commit and returns the new root, or `None` if the batch changes nothing and nothing is moved.
fn build(
    out: &mut Output<'_>,
    before: &Snapshot,
    batch: &WriteBatch<'_>,
    moves: &Moves<'_>,
) -> Result<Option<PageNumber>, EditError> {
    let top = before.root_bucket();
    let mut values = Vec::with_capacity(batch.buckets.len());
    let none = BucketChanges::default();
    let moved = moves.buckets.keys().filter(|name| !name.is_empty());
    let names: BTreeSet<&[u8]> = batch.buckets.keys().chain(moved).copied().collect();
    for name in names {
        let changes = batch.buckets.get(name).unwrap_or(&none);
        check_key(name).map_err(EditError::BadChange)?;
        changes.check().map_err(EditError::BadChange)?;
        let old = top.nested(name)?;
        if old.is_none() && top.element(name)?.is_some() {
            return Err(EditError::BadChange(
                "a bucket name is a plain key of the file",
            ));
        }
        let mut sorted = changes.ascending();
        let kept = old.filter(|_| !changes.clear);
        if let Some(old) = old.filter(|_| changes.clear) {
            edit::free_bucket(out, before, old)?;
        } else if let Some(merged) = moves.merge(name, &sorted) {
            sorted = merged.into();
        }
        if let Some(root) = edit::edit_bucket(out, before, kept, &sorted, 0)? {
            let sequence = old.map_or(0, |old| old.sequence());
            values.push((name, edit::bucket_value(root, sequence)));
        }
    }
    let mut changes: Vec<Change<'_>> = values
        .iter()
        .map(|(name, value)| Change::put(name, value))
        .collect();
    if let Some(merged) = moves.merge(b"", &changes) {
        changes = merged;
    }
    let mut root = edit::edit_bucket(out, before, Some(top), &changes, ELEMENT_BUCKET)?;
    // An empty change list leaves the root as it is.
    if changes.is_empty() {
        root = None;
    }
    Ok(root)
}

/// Extends a file to at least `need` bytes, in steps, and returns its new length.
fn grow(file: &dyn BlockFile, path: &Path, need: u64, step: u64) -> Result<u64, TreeError> {
    let wanted = need.next_multiple_of(step);
    // On a nearly full disk less than a whole step may still be enough.
    let (done, len) = match file.preallocate(wanted) {
        Ok(()) => (Ok(()), wanted),
        Err(_) => (file.preallocate(need), need),
    };
    match done {
        Ok(()) => Ok(len),
        Err(error) => match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Err(TreeError::NoSpace {
                path: path.to_owned(),
                need,
            }),
            _ => Err(io_error(path, "grow", error)),
        },
    }
}
