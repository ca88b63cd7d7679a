//! The bytes of a membership change in a log entry.
//!
//! Layout, little-endian: version `u8` = 1; transition `u8` (0 simple, 1 joint, 2 joint with
//! auto-leave, 3 leave); number of steps `u16`; each step a kind `u8` (0 voter, 1 learner, 2
//! remove) and the member `u64`; the context is the rest. The log's own checksum covers it.
//! Decoding is total: any bytes give a change or an error.

use bytes::{BufMut, Bytes, BytesMut};

use super::{ConfChange, ConfStep, Transition};
use crate::error::DecodeError;
use crate::types::MemberId;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 4;
const STEP_BYTES: usize = 9;

/// Steps in one change. A longer change is refused before it is proposed.
pub(crate) const STEPS_MAX: usize = 1024;

impl ConfChange {
    pub fn encode(&self) -> Bytes {
        assert!(
            self.steps.len() <= STEPS_MAX,
            "{} steps in one change",
            self.steps.len()
        );
        let len = HEADER_BYTES + STEP_BYTES * self.steps.len() + self.context.len();
        let mut out = BytesMut::with_capacity(len);
        out.put_u8(VERSION);
        out.put_u8(match self.transition {
            Transition::Simple => 0,
            Transition::Joint { auto_leave: false } => 1,
            Transition::Joint { auto_leave: true } => 2,
            Transition::LeaveJoint => 3,
        });
        out.put_u16_le(self.steps.len() as u16);
        for step in &self.steps {
            out.put_u8(match step {
                ConfStep::AddVoter(_) => 0,
                ConfStep::AddLearner(_) => 1,
                ConfStep::Remove(_) => 2,
            });
            out.put_u64_le(step.member().0);
        }
        out.put_slice(&self.context);
        out.freeze()
    }

    /// Reads a change from an entry's payload; the context shares it.
    pub fn decode(payload: &Bytes) -> Result<ConfChange, DecodeError> {
        let &[version, transition, low, high, ..] = payload.as_ref() else {
            return Err(DecodeError("shorter than its header"));
        };
        if version != VERSION {
            return Err(DecodeError("unknown version"));
        }
        let transition = match transition {
            0 => Transition::Simple,
            1 => Transition::Joint { auto_leave: false },
            2 => Transition::Joint { auto_leave: true },
            3 => Transition::LeaveJoint,
            _ => return Err(DecodeError("unknown transition")),
        };
        let count = usize::from(u16::from_le_bytes([low, high]));
        if count > STEPS_MAX {
            return Err(DecodeError("too many steps"));
        }
        let end = HEADER_BYTES + STEP_BYTES * count;
        let Some(raw) = payload.get(HEADER_BYTES..end) else {
            return Err(DecodeError("shorter than its steps"));
        };
        if transition == Transition::LeaveJoint && count != 0 {
            return Err(DecodeError("a leave with steps"));
        }
        let mut steps = Vec::with_capacity(count);
        for step in raw.chunks_exact(STEP_BYTES) {
            let id = MemberId(u64::from_le_bytes(
                step[1..].try_into().expect("chunk is 9 bytes"),
            ));
            steps.push(match step[0] {
                0 => ConfStep::AddVoter(id),
                1 => ConfStep::AddLearner(id),
                2 => ConfStep::Remove(id),
                _ => return Err(DecodeError("unknown step")),
            });
        }
        Ok(ConfChange {
            transition,
            steps,
            context: payload.slice(end..),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change() -> impl Strategy<Value = ConfChange> {
        let step = (0..3u8, 1..u64::MAX).prop_map(|(kind, id)| match kind {
            0 => ConfStep::AddVoter(MemberId(id)),
            1 => ConfStep::AddLearner(MemberId(id)),
            _ => ConfStep::Remove(MemberId(id)),
        });
        let steps = proptest::collection::vec(step, 0..6);
        let context = proptest::collection::vec(any::<u8>(), 0..20);
        (0..4u8, steps, context).prop_map(|(kind, steps, context)| ConfChange {
            transition: match kind {
                0 => Transition::Simple,
                1 => Transition::Joint { auto_leave: false },
                2 => Transition::Joint { auto_leave: true },
                _ => Transition::LeaveJoint,
            },
            steps: if kind == 3 { Vec::new() } else { steps },
            context: context.into(),
        })
    }

    proptest! {
        #[test]
        fn decodes_what_it_encodes(change in change()) {
            prop_assert_eq!(ConfChange::decode(&change.encode()), Ok(change));
        }

        #[test]
        fn any_bytes_decode_or_fail(raw in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = ConfChange::decode(&raw.into());
        }
    }

    /// The layout is durable: this must not change without a new version.
    #[test]
    fn golden_bytes() {
        let mut change = ConfChange::simple(ConfStep::AddLearner(MemberId(0x0102)));
        change.context = Bytes::from_static(b"ctx");
        assert_eq!(
            change.encode().as_ref(),
            b"\x01\x00\x01\x00\x01\x02\x01\0\0\0\0\0\0ctx"
        );
        assert_eq!(ConfChange::leave_joint().encode().as_ref(), b"\x01\x03\0\0");
    }
}
