//! One member fed by hand, with a disk that is as fast as the test says; and short ways to say
//! messages.

use consensus::*;

pub const ME: MemberId = MemberId(1);
pub const TWO: MemberId = MemberId(2);
pub const THREE: MemberId = MemberId(3);
pub const T: u32 = 10;

/// A member and what it has put out, with a disk that is as fast as the test says.
pub struct Node {
    pub raft: Raft,
    pub ready: Ready,
    pub write: WriteNumber,
    synced: WriteNumber,
    pub sent: Vec<Outgoing>,
    /// Every entry that was handed out.
    pub written: Vec<Entry>,
}

impl Node {
    pub fn with(voters: u64, tune: impl Fn(&mut Config, &mut Restored)) -> Node {
        let mut config = Config::new(ME, 7);
        (config.pre_vote, config.check_quorum) = (false, false);
        let members = Membership::new((1..=voters).map(MemberId), []);
        let mut restored = Restored::founding(members);
        tune(&mut config, &mut restored);
        let raft = Raft::new(config, restored);
        Node {
            raft,
            ready: Ready::new(),
            write: WriteNumber::NONE,
            synced: WriteNumber::NONE,
            sent: Vec::new(),
            written: Vec::new(),
        }
    }

    pub fn new(voters: u64) -> Node {
        Node::with(voters, |_, _| {})
    }

    /// With entries of these terms behind the founding, and `term` as its own.
    pub fn with_log(voters: u64, terms: &[u64], term: u64) -> Node {
        Node::with(voters, |_, restored| {
            restored.hard_state.term = Term(term);
            restored.entries = entries(2, terms);
        })
    }

    /// Takes the outputs without finishing the write.
    pub fn drain(&mut self) -> &Ready {
        self.raft.ready(&mut self.ready);
        self.write = self.write.max(self.ready.write);
        self.sent.append(&mut self.ready.messages);
        self.written.extend(self.ready.entries.iter().cloned());
        &self.ready
    }

    /// Everything through `write` is durable; says so if that is news.
    pub fn synced(&mut self, write: WriteNumber) {
        if write > self.synced {
            self.synced = write;
            self.raft.on_synced(write);
        }
    }

    /// Takes the outputs and finishes all writes until nothing more comes.
    pub fn settle(&mut self) {
        for _ in 0..4 {
            self.drain();
            self.synced(self.write);
        }
    }

    pub fn step(&mut self, from: MemberId, term: u64, body: Body) -> &mut Node {
        self.raft.step(
            from,
            Message {
                term: Term(term),
                body,
            },
        );
        self
    }

    /// The messages since the last call.
    pub fn take(&mut self) -> Vec<(MemberId, Body)> {
        self.drain();
        self.sent
            .drain(..)
            .map(|out| (out.to, out.message.body))
            .collect()
    }

    pub fn tick(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.raft.tick();
        }
    }

    /// Elected, nothing acknowledged yet, outputs taken.
    pub fn leader(voters: u64) -> Node {
        let mut node = Node::new(voters);
        node.lead();
        node
    }

    pub fn lead(&mut self) {
        self.raft.campaign();
        self.settle();
        let term = self.status().term.0;
        for id in self.raft.membership().members() {
            if id != ME {
                self.step(id, term, Body::VoteReply { granted: true });
            }
        }
        assert_eq!(self.status().role, Role::Leader);
        self.settle();
        self.take();
    }

    pub fn status(&self) -> Status {
        self.raft.status()
    }

    pub fn terms(&self) -> Vec<u64> {
        let s = self.status();
        (s.first_index.0..=s.last_index.0)
            .map(|i| self.raft.term_at(LogIndex(i)).expect("in the log").0)
            .collect()
    }
}

pub fn entries(first: u64, terms: &[u64]) -> Vec<Entry> {
    let entry = |(slot, term): (usize, &u64)| Entry {
        term: Term(*term),
        index: LogIndex(first + slot as u64),
        kind: EntryKind::Normal,
        payload: "x".into(),
    };
    terms.iter().enumerate().map(entry).collect()
}

pub fn at(index: u64, term: u64) -> LogPosition {
    LogPosition::new(LogIndex(index), Term(term))
}

pub fn append(prev: LogPosition, terms: &[u64], commit: u64) -> Body {
    let commit = LogIndex(commit);
    Body::Append {
        prev,
        commit,
        entries: entries(prev.index.0 + 1, terms),
    }
}

pub fn ack(matched: u64) -> Body {
    Body::AppendAck {
        matched: LogIndex(matched),
        commit: LogIndex::ZERO,
    }
}

pub fn heartbeat(commit: u64) -> Body {
    Body::Heartbeat {
        commit: LogIndex(commit),
        round: 0,
    }
}

pub fn vote(last: LogPosition) -> Body {
    Body::Vote {
        last,
        transfer: false,
    }
}

/// Like `settle`, and applies what is committed.
pub fn apply_all(node: &mut Node) {
    for _ in 0..4 {
        node.drain();
        for entry in std::mem::take(&mut node.ready.committed) {
            if entry.kind == EntryKind::ConfChange {
                let change = ConfChange::decode(&entry.payload).expect("written here");
                node.raft.apply_conf_change(entry.index, Some(&change));
            }
            node.raft.on_applied(entry.index);
        }
        node.synced(node.write);
    }
}

/// Leads three members, everything committed and applied.
pub fn busy_leader() -> Node {
    let mut node = Node::leader(3);
    node.step(TWO, 2, ack(2)).step(THREE, 2, ack(2));
    // Take what is committed along.
    node.raft.ready(&mut node.ready);
    for entry in std::mem::take(&mut node.ready.committed) {
        node.raft.on_applied(entry.index);
    }
    node.take();
    node
}
