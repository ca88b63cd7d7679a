//! How fast entries go from propose to commit when nothing but the core works: members in one
//! thread, a disk that is durable at once, 256-byte payloads that share one block.
//!
//! `cargo run --release -p consensus --example commit [rounds]`; without the number it runs a
//! moment, as a test does. The best round is what the core costs; the mean also holds what else ran
//! on the machine. Prints a digest of what was committed, so that nothing can be optimised away
//! unseen.

use std::time::{Duration, Instant};

use bytes::Bytes;
use consensus::*;

struct Member {
    raft: Raft,
    ready: Ready,
}

impl Member {
    fn new(id: u64, voters: u64) -> Member {
        let members = Membership::new((1..=voters).map(MemberId), []);
        let raft = Raft::new(Config::new(MemberId(id), id), Restored::founding(members));
        Member {
            raft,
            ready: Ready::new(),
        }
    }
}

struct Bench {
    members: Vec<Member>,
    committed: u64,
    digest: u64,
}

impl Bench {
    fn new(voters: u64) -> Bench {
        let members = (1..=voters).map(|id| Member::new(id, voters)).collect();
        let mut bench = Bench {
            members,
            committed: 0,
            digest: 0,
        };
        bench.members[0].raft.campaign();
        bench.settle();
        assert_eq!(bench.members[0].raft.status().role, Role::Leader);
        bench
    }

    /// Runs all members until nobody has anything to do.
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
                self.committed = last.index.0;
                for entry in &ready.committed {
                    let byte = entry.payload.first().copied().unwrap_or_default();
                    self.digest = self.digest.rotate_left(5) ^ entry.index.0 ^ u64::from(byte);
                }
            }
        }
        for out in ready.messages.drain(..) {
            self.members[out.to.0 as usize - 1]
                .raft
                .step(from, out.message);
        }
        self.members[slot].ready = ready;
        is_busy
    }
}

fn main() {
    let rounds: u64 = std::env::args()
        .nth(1)
        .map_or(200, |n| n.parse().expect("rounds"));
    let block = Bytes::from(vec![7; 256 * 256]);
    for voters in [1, 3] {
        for batch in [1, 32, 100, 256] {
            let mut bench = Bench::new(voters);
            let mut payloads = Vec::new();
            let (start, mut best) = (Instant::now(), Duration::MAX);
            for _ in 0..rounds {
                let round = Instant::now();
                payloads.extend((0..batch).map(|n| block.slice(n * 256..(n + 1) * 256)));
                bench.members[0]
                    .raft
                    .propose_batch(&mut payloads)
                    .expect("the leader is idle");
                bench.settle();
                best = best.min(round.elapsed());
            }
            let mean = start.elapsed().as_secs_f64() * 1e6 / rounds as f64;
            let best = best.as_secs_f64() * 1e6;
            // The founding and the start of the term come on top.
            assert_eq!(bench.committed, rounds * batch as u64 + 2);
            println!(
                "members {voters}, batch {batch:3}: mean {mean:7.2} us, best {best:7.2} us a batch \
                 ({:9.0} entries/s), digest {:016x}",
                batch as f64 * 1e6 / best,
                bench.digest
            );
        }
    }
}
