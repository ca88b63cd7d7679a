//! Held states of the tree file for backups and hashes: everything applied so far is committed first.
//!
//! Always true here: a state that is given away holds every entry that was applied when it was asked for; nothing waits for the commit
//! but the one who asked. Who asks is bounded by the net cores.

use std::sync::atomic::Ordering;

use wire::error::EtcdError;

use crate::pipeline::{Inbox, ToNet};
use crate::watch::StreamKey;

use super::stage::ApplyStage;

/// Who waits for a state.
pub struct States {
    /// By net core.
    asks: Vec<Inbox<StreamKey>>,
    /// Net core, call, and the commit that has all that was applied when it asked.
    waiting: Vec<(usize, StreamKey, u64)>,
}

impl States {
    pub fn new(asks: Vec<Inbox<StreamKey>>) -> States {
        States {
            asks,
            waiting: Vec::new(),
        }
    }
}

impl ApplyStage {
    /// Takes what net cores ask, and answers what can be answered.
    pub(super) fn serve_states(&mut self) {
        for net in 0..self.states.asks.len() {
            while let Some(caller) = self.states.asks[net].pop() {
                // The commit under way was frozen before; the one behind it has everything.
                let commit = self.commits_begun + 1;
                self.states.waiting.push((net, caller, commit));
            }
        }
        if self.states.waiting.is_empty() {
            return;
        }
        self.start_commit();
        let is_disk_full = &self.shared.progress.is_tree_disk_full;
        let is_disk_full = is_disk_full.load(Ordering::Relaxed);
        // Nothing is under way and nothing new could be begun: the file has everything.
        let is_idle = !self.committer.is_busy();
        let tree = self.store.tree();
        self.states.waiting.retain(|&(net, caller, commit)| {
            let result = if is_idle || commit <= self.commits_done {
                Ok(Box::new(tree.clone()))
            } else if is_disk_full {
                Err(EtcdError::NoSpace)
            } else {
                return true;
            };
            self.to_net[net].push(ToNet::State { caller, result });
            false
        });
    }
}
