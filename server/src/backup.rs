//! The backup thread: reads whole states of the tree file for clients, beside the cores and at the lowest priority.
//!
//! A net core that serves `Snapshot` or `Hash` gets a held state from the apply core and hands it over as a [`Job`]; each piece comes
//! back through a ring as [`ToNet::Backup`], with what is needed to ask for the next. So the pace is the client's, and nobody else
//! waits for the disk.
//!
//! Always true here: a call has one job under way at most, so that what waits is bounded by the calls the net cores admit
//! ([`JOBS_MAX`] each); jobs are worked off in order, a long hash a slice at a time between them.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use storage::tree::{Backup, BackupFile, ContentHash, Snapshot};

use crate::apply::yield_to_cores;
use crate::pipeline::{NetId, Outbox, ToNet};
use crate::runtime::BellRinger;
use crate::watch::StreamKey;

/// Jobs of one net core; calls beyond are refused with `etcdserver: too many requests`.
pub const JOBS_MAX: usize = 16;
/// A piece of a copy: eight messages of a `Snapshot` stream.
const PIECE_BYTES: usize = 256 << 10;
/// What a hash reads before other jobs have their turn.
const HASH_BYTES: usize = 4 << 20;
/// Length of the digest that ends a copy.
pub const DIGEST_BYTES: usize = 32;

/// Something to do for a call of a net core.
pub struct Job {
    pub net: NetId,
    pub caller: StreamKey,
    pub work: Work,
}

pub enum Work {
    /// The next piece of a copy.
    Copy(Box<Copying>),
    Hash(Box<ContentHash>),
}

/// A copy on its way to a client.
pub struct Copying {
    backup: Backup,
    digest: Sha256,
    /// Memory of a piece.
    pub piece: Vec<u8>,
    /// Where `piece` begins, counted from the end of the copy.
    pub remaining_before: u64,
}

impl Copying {
    pub fn new(snapshot: Snapshot) -> Copying {
        let backup = Backup::new(snapshot);
        Copying {
            remaining_before: backup.total_bytes(),
            backup,
            digest: Sha256::new(),
            piece: Vec::new(),
        }
    }

    pub fn total_bytes(&self) -> u64 {
        self.backup.total_bytes()
    }

    /// The digest of the copy, once its last piece was read.
    pub fn digest(&self) -> Option<[u8; DIGEST_BYTES]> {
        (self.backup.remaining_bytes() == 0).then(|| self.digest.clone().finalize().into())
    }

    fn read(&mut self, file: &BackupFile) -> Result<(), String> {
        self.piece.clear();
        self.remaining_before = self.backup.remaining_bytes();
        let read = self.backup.read(file, &mut self.piece, PIECE_BYTES);
        read.map_err(|error| format!("the tree file cannot be read: {error}"))?;
        self.digest.update(&self.piece);
        Ok(())
    }
}

/// What became of a job.
pub enum Done {
    Copied(Box<Copying>),
    Hashed {
        hash: u32,
        took: Duration,
    },
    /// The file cannot be read, in words.
    Failed(String),
}

/// A hash under way.
struct Hashing {
    net: NetId,
    caller: StreamKey,
    hash: Box<ContentHash>,
    took: Duration,
}

/// The way to the thread, cheap to clone.
#[derive(Clone)]
pub struct BackupThread(SyncSender<Job>);

impl BackupThread {
    /// Starts the thread; it ends when the last way to it is gone. `nets` are the rings and bells of the net cores, in order, each
    /// with room for [`JOBS_MAX`].
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn start(
        file: BackupFile,
        nets: Vec<(Outbox<ToNet>, BellRinger)>,
        cpus: Vec<usize>,
    ) -> std::io::Result<BackupThread> {
        let (jobs, work) = sync_channel(JOBS_MAX * nets.len());
        let thread = std::thread::Builder::new().name("backup".to_owned());
        thread.spawn(move || {
            yield_to_cores(&cpus);
            run(&file, &work, nets);
        })?;
        Ok(BackupThread(jobs))
    }

    /// Hands a job over; there is room for all that one net core may have.
    pub fn push(&self, job: Job) {
        if let Err(refused) = self.0.try_send(job) {
            // The thread ends with the process only; a lost job would leave a call without an answer.
            crate::fatal::fatal("the backup thread is gone", &refused.to_string().as_str());
        }
    }
}

fn run(file: &BackupFile, work: &Receiver<Job>, nets: Vec<(Outbox<ToNet>, BellRinger)>) {
    use crate::pipeline::Doorbell;
    let mut nets: Vec<_> = nets
        .into_iter()
        .map(|(ring, bell)| ring.with_doorbell(Doorbell::Bell(bell)))
        .collect();
    let mut hashes: VecDeque<Hashing> = VecDeque::new();
    loop {
        let job = if hashes.is_empty() {
            work.recv().map_err(|_| TryRecvError::Disconnected)
        } else {
            work.try_recv()
        };
        let (net, caller, done) = match job {
            Ok(Job { net, caller, work }) => match work {
                Work::Copy(mut copying) => {
                    let read = copying.read(file);
                    let done = read.map_or_else(Done::Failed, |()| Done::Copied(copying));
                    (net, caller, done)
                }
                Work::Hash(hash) => {
                    let took = Duration::ZERO;
                    hashes.push_back(Hashing {
                        net,
                        caller,
                        hash,
                        took,
                    });
                    continue;
                }
            },
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => match hash_slice(&mut hashes) {
                Some(done) => done,
                None => continue,
            },
        };
        let ring = &mut nets[usize::from(net.0)];
        let message = ToNet::Backup { caller, done };
        assert!(
            ring.push(message).is_ok(),
            "the ring has room for every job of its core"
        );
        ring.flush();
    }
}

/// A slice of the oldest hash, which then waits behind the others.
fn hash_slice(hashes: &mut VecDeque<Hashing>) -> Option<(NetId, StreamKey, Done)> {
    let mut hashing = hashes.pop_front()?;
    let begun = Instant::now();
    let stepped = hashing.hash.step(HASH_BYTES);
    hashing.took += begun.elapsed();
    let done = match stepped {
        Ok(None) => {
            hashes.push_back(hashing);
            return None;
        }
        Ok(Some(hash)) => Done::Hashed {
            hash,
            took: hashing.took,
        },
        Err(damage) => Done::Failed(format!("the tree file is damaged: {damage}")),
    };
    Some((hashing.net, hashing.caller, done))
}
