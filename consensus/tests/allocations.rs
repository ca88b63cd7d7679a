//! In a steady state nothing is allocated: not for an entry, not for a message, not for a read. Three members replicate in
//! batches of 1, 32 and 256, each round with a read, and every allocation of the thread is counted.
//!
//! The links of this test give buffers back as a real link does: the sender's after it wrote the message out
//! (`Raft::recycle`), and one for the entries that arrive comes from the receiver (`Raft::buffer`).
//!
//! A test binary of its own, because it replaces the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use consensus::*;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

// SAFETY: every call goes to the system's allocator with the arguments it came with; the counter is a plain cell of the
// thread, which has no destructor and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`, which is the same there.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` came from `alloc` or `realloc` here, which is the system's.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as for `dealloc`; the caller keeps the contract of `realloc`.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Cluster {
    members: Vec<(Raft, Ready)>,
    reads: u64,
}

impl Cluster {
    fn new() -> Cluster {
        let ids = [1, 2, 3].map(MemberId);
        let member = |id| {
            let config = Config::new(id, id.0);
            let restored = Restored::founding(Membership::new(ids, []));
            (Raft::new(config, restored), Ready::new())
        };
        let mut cluster = Cluster {
            members: ids.map(member).into(),
            reads: 0,
        };
        cluster.members[0].0.campaign();
        cluster.settle();
        assert_eq!(cluster.members[0].0.status().role, Role::Leader);
        cluster
    }

    fn round(&mut self, payloads: &mut Vec<Bytes>, context: u64) {
        let leader = &mut self.members[0].0;
        leader.propose_batch(payloads).expect("an idle leader");
        leader.read_index(context).expect("an idle leader");
        self.settle();
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
        let (raft, ready) = &mut self.members[slot];
        raft.ready(ready);
        let is_busy = !ready.is_empty();
        if ready.must_sync() {
            raft.on_synced(ready.write);
        }
        if let Some(last) = ready.committed.last() {
            raft.on_applied(last.index);
            raft.on_checkpoint(last.index);
        }
        self.reads += ready.read_states.len() as u64;
        let mut messages = std::mem::take(&mut ready.messages);
        for out in messages.drain(..) {
            self.carry(slot, out);
        }
        self.members[slot].1.messages = messages;
        is_busy
    }

    fn carry(&mut self, from: usize, out: Outgoing) {
        let to = out.to.0 as usize - 1;
        let Message { term, mut body } = out.message;
        if let Body::Append { entries, .. } = &mut body {
            let mut arrived = self.members[to].0.buffer();
            arrived.extend(entries.iter().cloned());
            let sent = std::mem::replace(entries, arrived);
            self.members[from].0.recycle(sent);
        }
        let from = MemberId(from as u64 + 1);
        self.members[to].0.step(from, Message { term, body });
    }
}

#[test]
fn a_steady_state_allocates_nothing() {
    const ENTRIES: usize = 40_960;
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Vec::<u64>::with_capacity(1)));
    assert_eq!(
        ALLOCATIONS.get() - before,
        1,
        "what is allocated is counted"
    );
    let block = Bytes::from(vec![7; 256 * 256]);
    for batch in [1, 32, 256] {
        let mut cluster = Cluster::new();
        let mut payloads = Vec::with_capacity(batch);
        let mut run = |cluster: &mut Cluster, context: u64| {
            payloads.extend((0..batch).map(|n| block.slice(n * 256..(n + 1) * 256)));
            cluster.round(&mut payloads, context);
        };
        // Buffers grow to their size, the log to its length; it is trimmed every 10,000 entries.
        let rounds = (ENTRIES / batch) as u64;
        (0..rounds).for_each(|context| run(&mut cluster, context));
        let (before, committed) = (ALLOCATIONS.get(), cluster.members[0].0.status().commit);
        (rounds..2 * rounds).for_each(|context| run(&mut cluster, context));
        let allocations = ALLOCATIONS.get() - before;
        // What was counted was the work it should be.
        let status = cluster.members[0].0.status();
        assert_eq!(status.commit.since(committed), ENTRIES as u64);
        assert_eq!(cluster.reads, 2 * rounds);
        assert!(
            status.first_index > LogIndex(ENTRIES as u64),
            "trimmed on the way"
        );
        assert_eq!(allocations, 0, "batches of {batch}: {rounds} rounds");
    }
}
