//! Segment files: their names, how one is made ready, how one is given back.
//!
//! What is always true here
//! - A file named `<sequence>.segment` has a whole header and its full length on disk, durably,
//!   before it has that name.
//! - What a `.spare` or `.preparing` file holds is never believed.
//! - Segments are released oldest first and each release is durable before the next begins, so a
//!   crash cannot leave a hole.
//! - Everything here may be tried again after a failure: no acknowledged byte is involved.
//!
//! Blocking. Called by the helper thread, at creation, and by simulations. Does not decide when.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::format::SegmentHeader;
use super::types::SegmentSequence;
use crate::device::queue::Waker;
use crate::device::real::lower_io_priority;
use crate::device::{BLOCK_BYTES, BlockFile, Directory, GroupFile};

/// Zeros are written in pieces of this size, each made durable before the next, so that a
/// preparation never has more than one piece between the log's own writes and the disk.
const ZERO_PIECE_BYTES: usize = 1 << 20;

/// Chores waiting or running, at most: one preparation and a burst of releases. More releases than
/// this wait for the next trim.
pub(super) const CHORES_MAX: usize = 64;

/// What a file in the folder is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Segment(SegmentSequence),
    Spare,
    Preparing,
    Foreign(&'static str),
}

/// Sorts a name.
pub(super) fn classify(name: &str, is_file: bool) -> FileKind {
    if !is_file {
        return FileKind::Foreign("is not a file of this log");
    }
    let Some((stem, kind)) = name.rsplit_once('.') else {
        return FileKind::Foreign("is not a file of this log");
    };
    let is_canonical = stem.len() == 16
        && stem
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    match (kind, u64::from_str_radix(stem, 16)) {
        ("segment", Ok(sequence)) if is_canonical && sequence != 0 => {
            FileKind::Segment(SegmentSequence(sequence))
        }
        ("spare", Ok(_)) if is_canonical => FileKind::Spare,
        ("preparing", Ok(_)) if is_canonical => FileKind::Preparing,
        ("wal", _) => {
            FileKind::Foreign("is a write-ahead log of etcd, which this program cannot read")
        }
        _ => FileKind::Foreign("is not a file of this log"),
    }
}

/// Whether a file of the log may have such a name.
pub fn is_name_of_log(name: &str) -> bool {
    !matches!(classify(name, true), FileKind::Foreign(_))
}

/// Name of a segment in use.
pub(super) fn segment_name(sequence: SegmentSequence) -> String {
    format!("{sequence}.segment")
}

/// Name of a segment that was released.
pub(super) fn spare_name(sequence: SegmentSequence) -> String {
    format!("{sequence}.spare")
}

/// Name of a segment being made.
pub(super) fn preparing_name(sequence: SegmentSequence) -> String {
    format!("{sequence}.preparing")
}

/// What to make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) log_id: u64,
    pub(super) segment_bytes: u64,
    pub(super) spares_max: usize,
}

/// Makes segment `sequence` ready for groups, from a spare file or from nothing.
pub(super) fn prepare(
    directory: &dyn Directory,
    plan: &Plan,
    sequence: SegmentSequence,
) -> io::Result<GroupFile> {
    let name = segment_name(sequence);
    let (from, file, is_zeroed) = match take_spare(directory, plan)? {
        Some((from, file)) => (from, file, false),
        None => {
            let from = preparing_name(sequence);
            let file = create_zeroed(directory, &from, plan.segment_bytes)?;
            (from, file, true)
        }
    };
    write_header(&*file, plan, sequence, is_zeroed)?;
    file.sync()?;
    file.drop_cache();
    directory.rename(&from, &name)?;
    directory.sync()?;
    directory.open_group_file(&name)
}

/// Gives a segment back: keeps it as a spare or removes it.
pub(super) fn release(
    directory: &dyn Directory,
    plan: &Plan,
    sequence: SegmentSequence,
) -> io::Result<()> {
    let listed = directory.list()?;
    let spares = listed
        .iter()
        .filter(|file| classify(&file.name, file.is_file) == FileKind::Spare);
    if spares.count() < plan.spares_max {
        directory.rename(&segment_name(sequence), &spare_name(sequence))?;
    } else {
        directory.remove(&segment_name(sequence))?;
    }
    directory.sync()
}

/// A file of zeros, allocated and durable except for its name.
pub(super) fn create_zeroed(
    directory: &dyn Directory,
    name: &str,
    bytes: u64,
) -> io::Result<Box<dyn BlockFile>> {
    match directory.remove(name) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let file = directory.create(name)?;
    let filled = fill_with_zeros(&*file, bytes);
    if filled.is_err() {
        // Give the space back at once: a full disk is the likeliest reason to be here, and the
        // tree needs the room. If this fails too, the next start removes the file.
        let _best_effort = directory.remove(name);
    }
    filled.map(|()| file)
}

fn fill_with_zeros(file: &dyn BlockFile, bytes: u64) -> io::Result<()> {
    file.preallocate(bytes)?;
    let zeros = vec![0; ZERO_PIECE_BYTES.min(bytes as usize)];
    let mut at = 0;
    while at < bytes {
        let piece = zeros.len().min((bytes - at) as usize);
        file.write_at(at, &zeros[..piece])?;
        file.sync()?;
        at += piece as u64;
    }
    Ok(())
}

pub(super) fn write_header(
    file: &dyn BlockFile,
    plan: &Plan,
    sequence: SegmentSequence,
    is_zeroed: bool,
) -> io::Result<()> {
    let header = SegmentHeader {
        log_id: plan.log_id,
        sequence,
        segment_bytes: plan.segment_bytes,
        is_zeroed,
    };
    let mut block = vec![0; BLOCK_BYTES];
    let encoded = header.encode();
    block[..encoded.len()].copy_from_slice(&encoded);
    file.write_at(0, &block)
}

/// A spare file of the right size, if there is one; spares of another size are removed.
fn take_spare(
    directory: &dyn Directory,
    plan: &Plan,
) -> io::Result<Option<(String, Box<dyn BlockFile>)>> {
    for listed in directory.list()? {
        if classify(&listed.name, listed.is_file) != FileKind::Spare {
            continue;
        }
        if listed.bytes == plan.segment_bytes {
            let file = directory.open(&listed.name)?;
            return Ok(Some((listed.name, file)));
        }
        directory.remove(&listed.name)?;
    }
    Ok(None)
}

/// Something to do off the log core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chore {
    Prepare(SegmentSequence),
    Release(SegmentSequence),
}

/// How it ended.
#[derive(Debug)]
pub(super) enum Done {
    Prepared(SegmentSequence, io::Result<GroupFile>),
    Released(SegmentSequence, io::Result<()>),
}

/// Does chores, in order: on a thread of its own or when the caller says.
pub(super) enum Helpers {
    Thread {
        chores: Option<std::sync::mpsc::SyncSender<Chore>>,
        done: std::sync::mpsc::Receiver<Done>,
        thread: Option<std::thread::JoinHandle<()>>,
    },
    Caller {
        directory: Arc<dyn Directory>,
        plan: Plan,
        chores: VecDeque<Chore>,
        done: VecDeque<Done>,
    },
}

impl Helpers {
    /// Starts the helper thread; `waker` is rung after each chore.
    pub(super) fn thread(
        directory: Arc<dyn Directory>,
        plan: Plan,
        waker: Waker,
    ) -> io::Result<Helpers> {
        let (chores, to_do) = std::sync::mpsc::sync_channel(CHORES_MAX);
        let (report, done) = std::sync::mpsc::sync_channel(CHORES_MAX);
        let work = move || {
            lower_io_priority();
            for chore in to_do {
                if report.send(run(&*directory, &plan, chore)).is_err() {
                    return;
                }
                waker.wake();
            }
        };
        let thread = std::thread::Builder::new()
            .name("wal-segments".to_owned())
            .spawn(work)?;
        Ok(Helpers::Thread {
            chores: Some(chores),
            done,
            thread: Some(thread),
        })
    }

    /// Leaves chores to [`Helpers::run_all`].
    pub(super) fn caller(directory: Arc<dyn Directory>, plan: Plan) -> Helpers {
        Helpers::Caller {
            directory,
            plan,
            chores: VecDeque::new(),
            done: VecDeque::new(),
        }
    }

    /// Takes a chore, or gives it back if [`CHORES_MAX`] are waiting.
    pub(super) fn give(&mut self, chore: Chore) -> Result<(), Chore> {
        match self {
            Helpers::Thread { chores, .. } => match chores {
                Some(chores) => chores.try_send(chore).map_err(|_full| chore),
                None => Err(chore),
            },
            Helpers::Caller { chores, .. } if chores.len() < CHORES_MAX => {
                chores.push_back(chore);
                Ok(())
            }
            Helpers::Caller { .. } => Err(chore),
        }
    }

    /// A chore that ended.
    pub(super) fn done(&mut self) -> Option<Done> {
        match self {
            Helpers::Thread { done, .. } => done.try_recv().ok(),
            Helpers::Caller { done, .. } => done.pop_front(),
        }
    }

    /// Does what waits, where that is left to the caller.
    pub(super) fn run_all(&mut self) {
        if let Helpers::Caller {
            directory,
            plan,
            chores,
            done,
        } = self
        {
            while let Some(chore) = chores.pop_front() {
                done.push_back(run(&**directory, plan, chore));
            }
        }
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        if let Helpers::Thread {
            chores,
            done,
            thread,
        } = self
        {
            // Closing the channel ends the thread after the chore it is in; reports still to come
            // must not block it.
            drop(chores.take());
            for _late in done.iter() {}
            if let Some(thread) = thread.take() {
                // A panic there has ended the process already.
                let _ended = thread.join();
            }
        }
    }
}

fn run(directory: &dyn Directory, plan: &Plan, chore: Chore) -> Done {
    match chore {
        Chore::Prepare(sequence) => Done::Prepared(sequence, prepare(directory, plan, sequence)),
        Chore::Release(sequence) => Done::Released(sequence, release(directory, plan, sequence)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_into_kinds() {
        let ours = segment_name(SegmentSequence(0x1f));
        assert_eq!(ours, "000000000000001f.segment");
        assert_eq!(
            classify(&ours, true),
            FileKind::Segment(SegmentSequence(0x1f))
        );
        assert_eq!(
            classify(&spare_name(SegmentSequence(2)), true),
            FileKind::Spare
        );
        assert_eq!(
            classify(&preparing_name(SegmentSequence(2)), true),
            FileKind::Preparing
        );
        let foreign = [
            "0000000000000000-0000000000000000.wal",
            "1f.segment",
            "000000000000001F.segment",
            "0000000000000000.segment",
            "notes.txt",
            "lost+found",
        ];
        for name in foreign {
            assert!(
                matches!(classify(name, true), FileKind::Foreign(_)),
                "{name}"
            );
        }
        assert!(matches!(classify(&ours, false), FileKind::Foreign(_)));
    }
}
