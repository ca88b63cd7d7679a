//! Opening a tree file: find the newest root, check every page in use against its sum, learn which pages are free.
//!
//! Always true here
//! - Nothing is believed before it is checked, and no bytes make this panic or loop.
//! - The file is read forwards once (bringing it into memory); the tree is then walked in memory.
//! - What was committed is never written here. Repairs touch the side file only.
//!
//! Called by the thread that starts the member, before anyone reads. The cases are listed in `docs/format-sums.md`.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::device::BlockFile;

use super::error::{TreeError, damaged, io_error};
use super::files::TreeFiles;
use super::format::{
    FLAG_LEAF, FLAG_META, Meta, NO_FREELIST, PAGE_BYTES_MAX, PAGE_BYTES_MIN, PAGE_HEADER_BYTES,
    PageHeader, PageNumber, TxId, get_u64,
};
use super::map::Mapping;
use super::options::{OpenReport, SumsState, TreeOptions};
use super::scrub::mismatch;
use super::snapshot::Snapshot;
use super::source::{Image, PageSource};
use super::sums::{
    self, Chain, HEADER_SECTORS, Header, MARK_AT, MARK_BYTES, Root, SECTOR_BYTES, SumTable,
    page_sum,
};
use super::walk::{Walked, walk};

/// The operation that fails when the limit of locked memory is too low, and what to do then.
const LOCK_IN_MEMORY: &str = "lock in memory (raise LimitMEMLOCK, `ulimit -l`, above the size of the file, or start without --memory-mlock)";

/// How much of a file is asked for at a time when it is brought in.
const POPULATE_BYTES: u64 = 16 << 20;

/// A file that was opened and found sound.
pub(crate) struct Opened {
    pub(crate) snapshot: Snapshot,
    pub(crate) backing: Backing,
    pub(crate) file_bytes: u64,
    pub(crate) table: SumTable,
    pub(crate) root: Root,
    pub(crate) walked: Walked,
    pub(crate) report: OpenReport,
    /// Sectors of the side file to be written anew.
    pub(crate) repairs: Vec<u64>,
    /// To be written once they are durable.
    new_header: Option<Header>,
}

/// What snapshots read through.
#[derive(Debug)]
pub(crate) enum Backing {
    Map(Arc<Mapping>),
    Image(Image),
}

/// A valid meta page and what stands beside it.
#[derive(Debug, Clone, Copy)]
struct FoundMeta {
    meta: Meta,
    meta_sum: u64,
    chain: Option<Chain>,
}

/// Reads and checks everything; writes nothing.
pub(crate) fn load(files: &TreeFiles, options: &TreeOptions) -> Result<Opened, TreeError> {
    let path = &files.path;
    let file_bytes = files
        .db
        .len()
        .map_err(|e| io_error(path, "read length", e))?;
    let (found, meta_invalid) = find_meta(&*files.db, path, file_bytes)?;
    let meta = found.meta;
    let page_bytes = u64::from(meta.page_bytes);
    let no_meta = |what| TreeError::NoMeta {
        path: path.to_owned(),
        what,
    };
    if meta.high_water.0 < 3 || meta.root.0 < 2 || meta.root >= meta.high_water {
        return Err(no_meta("the newest points outside the file's pages"));
    }
    if meta.freelist != NO_FREELIST && !(2..meta.high_water.0).contains(&meta.freelist) {
        return Err(no_meta(
            "the newest has its freelist outside the file's pages",
        ));
    }
    match meta.high_water.0.checked_mul(page_bytes) {
        Some(need) if need <= file_bytes => {}
        need => {
            let need = need.unwrap_or(u64::MAX);
            return Err(TreeError::Truncated {
                path: path.to_owned(),
                have: file_bytes,
                need,
            });
        }
    }

    let backing = make_backing(&*files.db, path, file_bytes, options)?;
    let source = backing.source(file_bytes);
    let used_bytes = meta.high_water.0 * page_bytes;
    if options.populate {
        bring_in(&source, used_bytes).map_err(|e| io_error(path, "read into memory", e))?;
    }
    if options.lock_memory {
        source
            .lock(0, file_bytes)
            .map_err(|e| io_error(path, LOCK_IN_MEMORY, e))?;
    }
    let snapshot = Snapshot::new(source, meta);

    let side = Side::read(&*files.sums, path, &found)?;
    let Side {
        mut table,
        bad_sectors,
        chain,
    } = side;
    let is_ours = chain.is_some();
    let bad = |page| {
        !is_ours
            || bad_sectors
                .binary_search(&SumTable::sector_of(page))
                .is_ok()
    };
    let walked = walk(&snapshot, 1, &mut |page, bytes| {
        let sum = page_sum(page, bytes);
        if bad(page) {
            table.set(page, sum);
            return Ok(());
        }
        if table.get(page) == sum {
            Ok(())
        } else {
            Err(mismatch(page))
        }
    });
    if let Some(damage) = walked.problems.first() {
        return Err(damaged(path, page_bytes, *damage));
    }

    let repairs: Vec<u64> = if is_ours {
        bad_sectors.clone()
    } else {
        table.sectors().collect()
    };
    let sums = match (is_ours, bad_sectors.len()) {
        (false, _) => SumsState::Rebuilt,
        (true, 0) => SumsState::Verified,
        (true, bad) => SumsState::SectorsRebuilt(bad as u64),
    };
    let pages_in_use = walked.used.len();
    let report = OpenReport {
        txid: meta.txid,
        page_bytes: meta.page_bytes,
        pages_high_water: meta.high_water.0,
        pages_in_use,
        pages_free: meta.high_water.0 - pages_in_use,
        meta_invalid,
        sums,
    };
    let root = Root {
        meta_sum: found.meta_sum,
        chain: found.chain.unwrap_or_default(),
    };
    // A meta page that another program wrote has no mark to tie a header to: the sums are computed at each open until
    // the first commit.
    let new_header = (!is_ours && found.chain.is_some()).then(|| Header {
        page_bytes: meta.page_bytes,
        txid: meta.txid,
        now: root,
        before: Root::default(),
    });
    Ok(Opened {
        snapshot,
        backing,
        file_bytes,
        table,
        root,
        walked,
        report,
        repairs,
        new_header,
    })
}

impl Backing {
    pub(crate) fn source(&self, file_bytes: u64) -> PageSource {
        match self {
            Backing::Map(map) => PageSource::from_map(map.clone(), file_bytes),
            Backing::Image(image) => PageSource::from_image(image.clone()),
        }
    }
}

/// Reads the used part of the file into memory, forwards, and maps it.
///
/// Mapping alone reads in small pieces and waits for each: 464 MiB took 2.1 s where `dd` takes 0.3 s. So the disk is
/// kept busy one window ahead of the one being mapped.
fn bring_in(source: &PageSource, used_bytes: u64) -> io::Result<()> {
    let window = |at: u64| POPULATE_BYTES.min(used_bytes.saturating_sub(at));
    source.read_ahead(0, window(0))?;
    let mut at = 0;
    while at < used_bytes {
        let next = at + POPULATE_BYTES;
        if next < used_bytes {
            source.read_ahead(next, window(next))?;
        }
        source.populate(at, window(at))?;
        at = next;
    }
    Ok(())
}

fn make_backing(
    db: &dyn BlockFile,
    path: &Path,
    file_bytes: u64,
    options: &TreeOptions,
) -> Result<Backing, TreeError> {
    if let Some(file) = db.as_std() {
        let reserve = options
            .map_bytes
            .max(file_bytes.next_multiple_of(options.grow_bytes.max(1)));
        let reserve = usize::try_from(reserve).unwrap_or(usize::MAX);
        let map = Mapping::new(file, reserve).map_err(|e| io_error(path, "map", e))?;
        return Ok(Backing::Map(Arc::new(map)));
    }
    let mut bytes = vec![0; file_bytes as usize];
    db.read_exact_at(0, &mut bytes)
        .map_err(|e| io_error(path, "read", e))?;
    Ok(Backing::Image(Image::new(bytes)))
}

/// The side file as far as it can be believed.
struct Side {
    table: SumTable,
    /// Sectors that are damaged or missing, ascending.
    bad_sectors: Vec<u64>,
    /// Of the state that is being opened; `None` when the side file is not that state's.
    chain: Option<Chain>,
}

impl Side {
    fn read(file: &dyn BlockFile, path: &Path, found: &FoundMeta) -> Result<Side, TreeError> {
        let high_water = found.meta.high_water.0;
        let mut bytes = vec![0; sums::file_bytes(high_water) as usize];
        let got = file
            .read_at(0, &mut bytes)
            .map_err(|e| io_error(path, "read page sums", e))?;
        bytes.truncate(got);
        let root = found.chain.map(|chain| Root {
            meta_sum: found.meta_sum,
            chain,
        });
        let speaks = (0..HEADER_SECTORS).any(|sector| {
            let at = sector as usize * SECTOR_BYTES;
            let header = bytes
                .get(at..)
                .and_then(|bytes| Header::decode(sector, bytes));
            header
                .zip(root)
                .is_some_and(|(header, root)| header.speaks_of(&found.meta, root))
        });
        let (table, bad_sectors) = SumTable::decode(high_water, &bytes);
        Ok(Side {
            table,
            bad_sectors,
            chain: root.filter(|_| speaks).map(|root| root.chain),
        })
    }
}

/// The newest valid meta, and whether the other one is invalid.
fn find_meta(
    db: &dyn BlockFile,
    path: &Path,
    file_bytes: u64,
) -> Result<(FoundMeta, bool), TreeError> {
    let read = |offset: u64| -> Result<Option<FoundMeta>, TreeError> {
        let mut head = [0; SECTOR_BYTES];
        let got = db
            .read_at(offset, &mut head)
            .map_err(|e| io_error(path, "read meta", e))?;
        Ok(decode_meta_page(&head[..got]))
    };
    let at_start = read(0)?;
    let at = |page_bytes: u64| -> Result<Option<FoundMeta>, TreeError> {
        Ok(read(page_bytes)?.filter(|f| u64::from(f.meta.page_bytes) == page_bytes))
    };
    let (first, second) = match at_start {
        Some(first) => {
            let page_bytes = first.meta.page_bytes as usize;
            if !page_bytes.is_power_of_two()
                || !(PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&page_bytes)
            {
                let what = "the page size is not a power of two from 1 KiB to 16 MiB";
                return Err(TreeError::NoMeta {
                    path: path.to_owned(),
                    what,
                });
            }
            (Some(first), at(page_bytes as u64)?)
        }
        // The page size is unknown: the second meta page says it itself.
        None => {
            let mut second = None;
            let mut page_bytes = PAGE_BYTES_MIN as u64;
            while second.is_none() && page_bytes <= (PAGE_BYTES_MAX as u64).min(file_bytes) {
                second = at(page_bytes)?;
                page_bytes *= 2;
            }
            (None, second)
        }
    };
    let invalid = first.is_none() || second.is_none();
    let newest = first.into_iter().chain(second).max_by_key(|f| f.meta.txid);
    let what = "not a tree file, or both roots are damaged";
    newest
        .map(|found| (found, invalid))
        .ok_or_else(|| TreeError::NoMeta {
            path: path.to_owned(),
            what,
        })
}

fn decode_meta_page(head: &[u8]) -> Option<FoundMeta> {
    let body = head.get(PAGE_HEADER_BYTES..)?;
    let meta = Meta::decode(body)?;
    let meta_sum = get_u64(body, 56)?;
    let chain = head
        .get(MARK_AT..MARK_AT + MARK_BYTES)
        .and_then(|mark| sums::decode_mark(&head[PAGE_HEADER_BYTES..MARK_AT], mark));
    Some(FoundMeta {
        meta,
        meta_sum,
        chain,
    })
}

/// The bytes that begin a meta page, and the meta's checksum.
pub(crate) fn encode_meta_page(meta: &Meta, chain: Chain, out: &mut [u8]) -> u64 {
    let id = PageNumber(meta.txid.0 % 2);
    let header = PageHeader {
        id,
        flags: FLAG_META,
        count: 0,
        overflow: 0,
    };
    let body = meta.encode();
    out[..PAGE_HEADER_BYTES].copy_from_slice(&header.encode());
    out[PAGE_HEADER_BYTES..MARK_AT].copy_from_slice(&body);
    out[MARK_AT..MARK_AT + MARK_BYTES].copy_from_slice(&sums::encode_mark(&body, chain));
    fnv_of(&body)
}

fn fnv_of(meta: &[u8]) -> u64 {
    get_u64(meta, 56).expect("an encoded meta has its checksum")
}

/// The pages of a new tree: two metas and an empty root leaf.
struct NewFile {
    metas: [Vec<u8>; 2],
    leaf: Vec<u8>,
    /// Headers and the one sector of sums.
    side: Vec<u8>,
}

impl NewFile {
    fn build(page_bytes: u32) -> NewFile {
        let size = page_bytes as usize;
        let root = PageNumber(2);
        let mut leaf = vec![0; size];
        let header = PageHeader {
            id: root,
            flags: FLAG_LEAF,
            count: 0,
            overflow: 0,
        };
        leaf[..PAGE_HEADER_BYTES].copy_from_slice(&header.encode());
        let mut table = SumTable::default();
        table.set(root, page_sum(root, &leaf));
        let chain = Chain::default().add(root, table.get(root));
        let roots = [0, 1].map(|txid| {
            let meta = Meta {
                page_bytes,
                flags: 0,
                root,
                sequence: 0,
                freelist: NO_FREELIST,
                high_water: PageNumber(3),
                txid: TxId(txid),
            };
            let mut page = vec![0; size];
            let meta_sum = encode_meta_page(&meta, chain, &mut page);
            (page, Root { meta_sum, chain })
        });
        let [(meta0, root0), (meta1, root1)] = roots;
        let mut side = Vec::new();
        for (txid, now, before) in [(0, root0, Root::default()), (1, root1, root0)] {
            side.extend(
                Header {
                    page_bytes,
                    txid: TxId(txid),
                    now,
                    before,
                }
                .encode(),
            );
        }
        table.encode_sector(HEADER_SECTORS, &mut side);
        NewFile {
            metas: [meta0, meta1],
            leaf,
            side,
        }
    }
}

/// True if `db` is empty, or holds no more than a creation that was cut short left behind.
pub(crate) fn is_unborn(files: &TreeFiles, options: &TreeOptions) -> Result<bool, TreeError> {
    let read_error = |e| io_error(&files.path, "read", e);
    let len = files.db.len().map_err(read_error)?;
    if len == 0 {
        return Ok(true);
    }
    let size = options.page_bytes as usize;
    if len > 3 * size as u64 {
        return Ok(false);
    }
    let mut bytes = vec![0; len as usize];
    files.db.read_exact_at(0, &mut bytes).map_err(read_error)?;
    let new = NewFile::build(options.page_bytes);
    // Metas are written last, so while neither is there nothing was ever committed. Only zeros and the very bytes
    // of the first leaf are taken for that; a file whose metas were wiped holds something else.
    let wanted = [vec![0; size], vec![0; size], new.leaf].concat();
    let is_cut_short = bytes
        .chunks(SECTOR_BYTES)
        .zip(wanted.chunks(SECTOR_BYTES))
        .all(|(found, wanted)| found == &wanted[..found.len()] || found.iter().all(|b| *b == 0));
    Ok(is_cut_short)
}

/// Writes a new tree, metas last.
pub(crate) fn create(files: &TreeFiles, options: &TreeOptions) -> Result<(), TreeError> {
    let new = NewFile::build(options.page_bytes);
    let size = u64::from(options.page_bytes);
    let write = || -> io::Result<()> {
        files.sums.set_len(0)?;
        files.sums.write_at(0, &new.side)?;
        files.db.set_len(3 * size)?;
        files.db.write_at(2 * size, &new.leaf)?;
        files.sums.sync()?;
        files.db.sync()?;
        for (page, bytes) in new.metas.iter().enumerate() {
            files.db.write_at(page as u64 * size, bytes)?;
        }
        files.db.sync()
    };
    write().map_err(|e| io_error(&files.path, "create", e))
}

/// Makes what was read durable.
///
/// A process that was killed between the write of a meta page and its sync leaves a newest root that is in memory and not
/// on the disk. From the moment it is believed, its consistent index lets the log be given up, and the pages that only
/// the root before it uses are free to be written. Were it then lost with the power, neither the log nor the older root
/// could stand in for it.
pub(crate) fn make_durable(files: &TreeFiles) -> io::Result<()> {
    files.sums.sync()?;
    files.db.sync()
}

/// Writes the repaired sectors and then, if the side file was another state's, a header for this one.
pub(crate) fn repair(files: &TreeFiles, opened: &Opened) -> io::Result<()> {
    if opened.repairs.is_empty() {
        return Ok(());
    }
    let mut bytes = Vec::with_capacity(SECTOR_BYTES);
    for &sector in &opened.repairs {
        bytes.clear();
        opened.table.encode_sector(sector, &mut bytes);
        files.sums.write_at(sector * SECTOR_BYTES as u64, &bytes)?;
    }
    files.sums.sync()?;
    if let Some(header) = &opened.new_header {
        files
            .sums
            .write_at(header.sector() * SECTOR_BYTES as u64, &header.encode())?;
        files.sums.sync()?;
    }
    Ok(())
}
