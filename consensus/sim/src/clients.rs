//! What clients asked and what they learned: the history that must be linearizable.
//!
//! Always true: a client has one operation at a time; an operation's number is its place here, so it
//! is used once; a value is written by one operation only.

use crate::linear::{Act, OPERATIONS_MAX, Operation, is_linearizable};
use crate::machine::{Command, REGISTERS};
use crate::network::Slot;
use crate::random::Random;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    Read,
    Write,
    /// Writes if the register holds this.
    Swap(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Open,
    /// Answered; with what the register held before or, for a read, holds.
    Done(u64),
    /// Certainly without effect.
    Refused,
    /// The client waits no longer: it may yet take effect.
    GivenUp,
}

#[derive(Clone, Copy, Debug)]
pub struct Op {
    pub client: usize,
    pub slot: Slot,
    /// The process that took it.
    pub life: u32,
    pub register: u8,
    pub ask: Ask,
    pub outcome: Outcome,
    call: u64,
    reply: u64,
}

#[derive(Debug, Default)]
pub struct Clients {
    pub ops: Vec<Op>,
    per_register: [usize; REGISTERS],
    /// The last value anyone saw in each register, to swap against.
    seen: [u64; REGISTERS],
    /// Counts calls and replies, so that each has a moment of its own.
    moment: u64,
}

impl Clients {
    /// A new operation of `client` at the member in `slot`; `None` when enough was asked. While
    /// faults last some room is left for what is asked at the end (`is_last`).
    pub fn ask(
        &mut self,
        client: usize,
        slot: Slot,
        reads: u64,
        is_last: bool,
        random: &mut Random,
    ) -> Option<u64> {
        let register = random.below(REGISTERS as u64) as usize;
        let most = OPERATIONS_MAX - if is_last { 0 } else { OPERATIONS_MAX / 4 };
        if self.per_register[register] >= most {
            return None;
        }
        self.per_register[register] += 1;
        let ask = if random.chance(reads) {
            Ask::Read
        } else if random.chance(300) {
            Ask::Swap(self.seen[register])
        } else {
            Ask::Write
        };
        self.moment += 1;
        self.ops.push(Op {
            client,
            slot,
            life: u32::MAX,
            register: register as u8,
            ask,
            outcome: Outcome::Open,
            call: self.moment,
            reply: 0,
        });
        Some(self.ops.len() as u64 - 1)
    }

    /// The value that operation `number` writes.
    fn value(number: u64) -> u64 {
        number + 1
    }

    /// What to replicate for `number`; `None` for a read.
    pub fn command(&self, number: u64) -> Option<Command> {
        let op = self.ops[number as usize];
        let expected = match op.ask {
            Ask::Read => return None,
            Ask::Write => None,
            Ask::Swap(expected) => Some(expected),
        };
        Some(Command {
            operation: number,
            register: op.register,
            expected,
            value: Clients::value(number),
        })
    }

    /// Notes how an open operation ended; returns its client. One that has ended stays as it is.
    pub fn end(&mut self, number: u64, outcome: Outcome) -> Option<usize> {
        let op = &mut self.ops[number as usize];
        if op.outcome != Outcome::Open {
            return None;
        }
        self.moment += 1;
        op.outcome = outcome;
        op.reply = self.moment;
        if let Outcome::Done(value) = outcome {
            self.seen[usize::from(op.register)] = match op.ask {
                Ask::Write => Clients::value(number),
                _ => value,
            };
        }
        Some(op.client)
    }

    pub fn answered(&self) -> usize {
        let is_done = |op: &&Op| matches!(op.outcome, Outcome::Done(_));
        self.ops.iter().filter(is_done).count()
    }

    /// The history of one register.
    fn history(&self, register: u8) -> Vec<Operation> {
        let of_register = |(_, op): &(usize, &Op)| op.register == register;
        let entries = self.ops.iter().enumerate().filter(of_register);
        entries
            .filter_map(|(number, op)| {
                let new = Clients::value(number as u64);
                let (act, reply) = match (op.ask, op.outcome) {
                    (_, Outcome::Refused) => return None,
                    (Ask::Read, Outcome::Done(seen)) => (Act::Read(seen), Some(op.reply)),
                    (Ask::Read, _) => return None,
                    (Ask::Write, Outcome::Done(_)) => (Act::Write(new), Some(op.reply)),
                    (Ask::Write, _) => (Act::Write(new), None),
                    (Ask::Swap(expected), Outcome::Done(before)) if before == expected => {
                        (Act::Swap { expected, new }, Some(op.reply))
                    }
                    // A swap that failed saw what was there instead.
                    (Ask::Swap(_), Outcome::Done(before)) => (Act::Read(before), Some(op.reply)),
                    (Ask::Swap(expected), _) => (Act::Swap { expected, new }, None),
                };
                Some(Operation {
                    act,
                    call: op.call,
                    reply,
                })
            })
            .collect()
    }

    /// The history of the first register that is not linearizable.
    pub fn check(&self) -> Result<(), String> {
        for register in 0..REGISTERS as u8 {
            let history = self.history(register);
            if !is_linearizable(&history) {
                let lines: Vec<String> = history
                    .iter()
                    .map(|op| {
                        let until = op.reply.map_or("?".into(), |reply| reply.to_string());
                        format!("  {} .. {until}: {:?}", op.call, op.act)
                    })
                    .collect();
                return Err(format!(
                    "register {register} has no order in time:\n{}",
                    lines.join("\n")
                ));
            }
        }
        Ok(())
    }
}
