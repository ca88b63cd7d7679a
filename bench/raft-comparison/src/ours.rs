//! Three members of the crate `consensus`, driven as its `ready` module says, with a disk that is durable at once.

use bytes::Bytes;
use consensus::{Config, MemberId, Membership, Raft, Ready, Restored, Role};

use crate::{Applied, Cluster, INFLIGHT_MESSAGES_MAX, MESSAGE_BYTES_MAX, TRIM_EVERY, TRIM_KEEP};

struct Member {
    raft: Raft,
    ready: Ready,
}

pub(crate) struct Ours {
    members: Vec<Member>,
    applied: Applied,
}

impl Ours {
    pub(crate) fn new() -> Ours {
        let ids = [1, 2, 3].map(MemberId);
        let member = |id: MemberId| {
            let config = Config {
                message_bytes_max: MESSAGE_BYTES_MAX,
                inflight_messages_max: INFLIGHT_MESSAGES_MAX,
                trim_every_entries: TRIM_EVERY,
                trim_keep_entries: TRIM_KEEP,
                ..Config::new(id, id.0)
            };
            Member {
                raft: Raft::new(config, Restored::founding(Membership::new(ids, []))),
                ready: Ready::new(),
            }
        };
        let mut ours = Ours {
            members: ids.map(member).into(),
            applied: Applied::default(),
        };
        ours.members[0].raft.campaign();
        ours.settle();
        assert_eq!(ours.members[0].raft.status().role, Role::Leader);
        ours
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

    /// One pass of a driver: write, send, apply.
    fn turn(&mut self, slot: usize) -> bool {
        let from = MemberId(slot as u64 + 1);
        let member = &mut self.members[slot];
        let mut ready = std::mem::take(&mut member.ready);
        member.raft.ready(&mut ready);
        let is_busy = !ready.is_empty();
        if ready.must_sync() {
            member.raft.on_synced(ready.write);
        }
        if let Some(last) = ready.committed.last() {
            member.raft.on_applied(last.index);
            member.raft.on_checkpoint(last.index);
            if slot == 0 {
                for entry in &ready.committed {
                    self.applied.add(&entry.payload);
                }
            }
        }
        for out in ready.messages.drain(..) {
            let to = out.to.0 as usize - 1;
            self.members[to].raft.step(from, out.message);
            // The receiver has emptied the message's buffer; a real link gives it back to the sender after writing it out.
            let buffer = self.members[to].raft.buffer();
            self.members[slot].raft.recycle(buffer);
        }
        self.members[slot].ready = ready;
        is_busy
    }
}

impl Cluster for Ours {
    fn round(&mut self, batch: &mut Vec<Bytes>) {
        let leader = &mut self.members[0].raft;
        leader
            .propose_batch(batch)
            .expect("an idle leader takes a batch");
        self.settle();
    }

    fn applied(&self) -> Applied {
        self.applied
    }
}
