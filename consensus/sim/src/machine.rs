//! The state machine that the members replicate: a few registers, the membership, and a digest of
//! everything applied.
//!
//! Always true: two machines that applied the same entries are equal, digest included; no two
//! different histories are expected to share a digest.

use bytes::Bytes;
use consensus::{ConfChange, Entry, EntryKind, LogIndex, Membership};

use crate::random::fold;

pub const REGISTERS: usize = 4;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    pub applied: LogIndex,
    pub digest: u64,
    pub registers: [u64; REGISTERS],
    pub membership: Membership,
}

/// What a client asks to be done; the number names the operation and is used once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Command {
    pub operation: u64,
    pub register: u8,
    /// Write only if the register holds this.
    pub expected: Option<u64>,
    pub value: u64,
}

/// What applying one entry did.
#[derive(Debug)]
pub enum Applied {
    /// The leader's own entry.
    Nothing,
    /// `before`: what the register held.
    Command { command: Command, before: u64 },
    /// `None`: not decodable.
    Change(Option<ConfChange>),
}

impl Command {
    /// The payload, padded with `filler` bytes.
    pub fn encode(&self, filler: usize) -> Bytes {
        let mut raw = Vec::with_capacity(26 + filler);
        raw.extend_from_slice(&self.operation.to_le_bytes());
        raw.extend_from_slice(&self.value.to_le_bytes());
        raw.extend_from_slice(&self.expected.unwrap_or_default().to_le_bytes());
        raw.push(self.register);
        raw.push(u8::from(self.expected.is_some()));
        raw.resize(26 + filler, 7);
        raw.into()
    }

    /// Reads back what `encode` wrote.
    pub fn decode(raw: &[u8]) -> Command {
        let word = |slot: usize| {
            let bytes = raw[8 * slot..8 * slot + 8].try_into().expect("eight bytes");
            u64::from_le_bytes(bytes)
        };
        Command {
            operation: word(0),
            register: raw[24],
            expected: (raw[25] == 1).then(|| word(2)),
            value: word(1),
        }
    }
}

impl Machine {
    /// The machine of a founder, or of a member that is yet to join.
    pub fn new(membership: Membership) -> Machine {
        Machine {
            applied: LogIndex(u64::from(!membership.voters.is_empty())),
            digest: 0,
            registers: [0; REGISTERS],
            membership,
        }
    }

    /// Applies the next entry.
    pub fn apply(&mut self, entry: &Entry) -> Applied {
        assert_eq!(
            entry.index,
            self.applied.next(),
            "entries are applied in order"
        );
        self.applied = entry.index;
        self.digest = fold(fold(self.digest, entry.index.0), entry.term.0);
        if entry.kind == EntryKind::ConfChange {
            let change = ConfChange::decode(&entry.payload).ok();
            if let Some(Ok(next)) = change.as_ref().map(|change| self.membership.after(change)) {
                self.membership = next;
            }
            self.digest = digest_of(&self.membership, self.digest);
            return Applied::Change(change);
        }
        if entry.payload.is_empty() {
            return Applied::Nothing;
        }
        let command = Command::decode(&entry.payload);
        let register = &mut self.registers[usize::from(command.register)];
        let before = *register;
        if command.expected.is_none_or(|expected| expected == before) {
            *register = command.value;
        }
        self.digest = fold(fold(self.digest, command.operation), *register);
        Applied::Command { command, before }
    }
}

fn digest_of(membership: &Membership, start: u64) -> u64 {
    let lists = [
        &membership.voters,
        &membership.voters_outgoing,
        &membership.learners,
        &membership.learners_next,
    ];
    let mut digest = fold(start, u64::from(membership.auto_leave));
    for list in lists {
        digest = fold(digest, list.len() as u64);
        digest = list.iter().fold(digest, |digest, id| fold(digest, id.0));
    }
    digest
}
