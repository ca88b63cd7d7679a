//! Three members of the crate `raft` over its own in-memory storage, driven as its documentation says.
//!
//! A batch is one message with all its entries, which is kinder to it than a call for each: `RawNode::propose` would send an
//! append to both followers for every entry.

use bytes::Bytes;
use raft::prelude::{ConfState, Entry, Message, MessageType};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole};

use crate::{Applied, Cluster, INFLIGHT_MESSAGES_MAX, MESSAGE_BYTES_MAX, TRIM_EVERY, TRIM_KEEP};

pub(crate) struct Rival {
    members: Vec<RawNode<MemStorage>>,
    applied: Applied,
    /// The index through which each member's log was trimmed.
    trimmed: [u64; 3],
}

impl Rival {
    pub(crate) fn new() -> Rival {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let member = |id: u64| {
            let config = Config {
                id,
                election_tick: 10,
                heartbeat_tick: 1,
                max_size_per_msg: MESSAGE_BYTES_MAX,
                max_inflight_msgs: INFLIGHT_MESSAGES_MAX,
                check_quorum: true,
                pre_vote: true,
                ..Config::default()
            };
            let storage = MemStorage::new_with_conf_state(ConfState::from((vec![1, 2, 3], vec![])));
            RawNode::new(&config, storage, &logger).expect("a valid configuration")
        };
        let mut rival = Rival {
            members: [1, 2, 3].map(member).into(),
            applied: Applied::default(),
            trimmed: [0; 3],
        };
        rival.members[0].campaign().expect("a follower campaigns");
        rival.settle();
        assert_eq!(rival.members[0].raft.state, StateRole::Leader);
        rival
    }

    fn settle(&mut self) {
        let mut is_busy = true;
        while is_busy {
            is_busy = false;
            for slot in 0..self.members.len() {
                is_busy |= self.turn(slot);
            }
        }
    }

    fn turn(&mut self, slot: usize) -> bool {
        let node = &mut self.members[slot];
        if !node.has_ready() {
            return false;
        }
        let mut ready = node.ready();
        let mut out = ready.take_messages();
        let storage = node.raft.raft_log.store.clone();
        let mut applied = ready.take_committed_entries();
        storage
            .wl()
            .append(ready.entries())
            .expect("entries follow the log");
        if let Some(state) = ready.hs() {
            storage.wl().set_hardstate(state.clone());
        }
        out.append(&mut ready.take_persisted_messages());
        let mut light = node.advance(ready);
        if let Some(commit) = light.commit_index() {
            storage.wl().mut_hard_state().set_commit(commit);
        }
        out.append(&mut light.take_messages());
        applied.append(&mut light.take_committed_entries());
        node.advance_apply();
        if let Some(last) = applied.last() {
            let behind = last.index - self.trimmed[slot];
            if TRIM_EVERY <= behind {
                self.trimmed[slot] = last.index - TRIM_KEEP;
                storage
                    .wl()
                    .compact(self.trimmed[slot])
                    .expect("applied entries may go");
            }
        }
        if slot == 0 {
            for entry in &applied {
                self.applied.add(&entry.data);
            }
        }
        for message in out {
            let to = message.to as usize - 1;
            self.members[to]
                .step(message)
                .expect("members know each other");
        }
        true
    }
}

impl Cluster for Rival {
    fn round(&mut self, batch: &mut Vec<Bytes>) {
        let entry = |data| Entry {
            data,
            ..Entry::default()
        };
        let mut message = Message {
            from: 1,
            ..Message::default()
        };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(batch.drain(..).map(entry).collect::<Vec<_>>().into());
        self.members[0]
            .raft
            .step(message)
            .expect("an idle leader takes a batch");
        self.settle();
    }

    fn applied(&self) -> Applied {
        self.applied
    }
}
