//! A copy of one held state of the file, byte for byte, in pieces.
//!
//! Always true here
//! - The copy is what bbolt's own hot copy would be: every page below the high-water mark, with two meta pages that lead to the
//!   held state and name no stored freelist.
//! - Pages come from the file and not through the map, because free ones are among them and the writer may be writing those. What
//!   such a page holds in the copy means nothing to any reader.
//! - While a [`Backup`] lives no page that its state reaches is written; dropping it gives them back.
//!
//! Blocks on the disk: for helper threads. Knows no sums and no digest; that is the receiver's format.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::snapshot::Snapshot;

/// The tree file as backups read it. Shares the writer's lock, since it is the same open file.
#[derive(Debug)]
pub struct BackupFile(File);

/// How far the copy of one state has come.
#[derive(Debug)]
pub struct Backup {
    snapshot: Snapshot,
    head: Vec<u8>,
    at: u64,
}

impl BackupFile {
    pub(super) fn new(file: File) -> BackupFile {
        BackupFile(file)
    }
}

impl Backup {
    pub fn new(snapshot: Snapshot) -> Backup {
        Backup {
            head: snapshot.backup_head(),
            snapshot,
            at: 0,
        }
    }

    /// Length of the whole copy.
    pub fn total_bytes(&self) -> u64 {
        self.snapshot.page_count() * self.snapshot.page_bytes() as u64
    }

    /// Bytes still to come.
    pub fn remaining_bytes(&self) -> u64 {
        self.total_bytes() - self.at
    }

    /// Appends the next piece of the copy, at most `bytes_max` of it, to `into`.
    ///
    /// # Errors
    /// The file cannot be read; the copy is to be given up.
    pub fn read(
        &mut self,
        file: &BackupFile,
        into: &mut Vec<u8>,
        bytes_max: usize,
    ) -> io::Result<()> {
        let bytes = self.remaining_bytes().min(bytes_max as u64) as usize;
        let start = into.len();
        into.resize(start + bytes, 0);
        let piece = &mut into[start..];
        let head = self.head.get(self.at as usize..).unwrap_or_default();
        let from_head = head.len().min(bytes);
        piece[..from_head].copy_from_slice(&head[..from_head]);
        file.0
            .read_exact_at(&mut piece[from_head..], self.at + from_head as u64)?;
        self.at += bytes as u64;
        Ok(())
    }
}
