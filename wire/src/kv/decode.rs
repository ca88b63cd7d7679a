//! Reads protobuf fields from a borrowed slice.
//!
//! Always true: never reads outside the slice, never allocates, and recursion is bounded, so any bytes whatever give a
//! field or an error. Used by the request and record decoders of this module. Does not know any message.

use thiserror::Error;

/// Groups may nest this deep in unknown fields; deeper input is refused. Nobody sends groups; the bound protects the stack.
const GROUP_DEPTH_MAX: u32 = 100;

/// Why bytes are not the message they should be. The text follows `grpc: failed to unmarshal the received message: `.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum DecodeError {
    /// Cut off, an overlong number, or a field number or wire type that does not exist.
    #[error("proto: cannot parse invalid wire-format data")]
    Malformed,
    /// A known field came with the wire type of another kind of value.
    #[error("proto: wrong wire type for field {0}")]
    WireType(u32),
    /// Transactions nest deeper than [`super::TXN_DEPTH_MAX`]. Such a request could only ever be refused with
    /// `too many operations in txn request`, and that is what the service answers.
    #[error("proto: exceeded maximum recursion depth")]
    TooDeep,
}

/// One field's value, by wire type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
    Group,
}

/// A position in a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Reader { rest: message }
    }

    /// What is not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next field, or `None` at the end of the message.
    #[inline]
    pub(super) fn next_field(&mut self) -> Result<Option<(u32, Value<'a>)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, wire_type) = self.key()?;
        let value = match wire_type {
            0 => Value::Varint(self.varint()?),
            1 => self.fixed(8)?,
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.take(len)?)
            }
            3 => {
                self.skip_group(number, 0)?;
                Value::Group
            }
            5 => self.fixed(4)?,
            _ => return Err(DecodeError::Malformed),
        };
        Ok(Some((number, value)))
    }

    #[inline]
    fn key(&mut self) -> Result<(u32, u32), DecodeError> {
        let key = u32::try_from(self.varint()?).map_err(|_| DecodeError::Malformed)?;
        let number = key >> 3;
        if number == 0 {
            return Err(DecodeError::Malformed);
        }
        Ok((number, key & 7))
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            // Most lengths and most revisions of young clusters end here.
            [low, high, rest @ ..] if *high < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*low & 0x7f) | u64::from(*high) << 7)
            }
            _ => self.varint_slow(),
        }
    }

    fn varint_slow(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (slot, &byte) in self.rest.iter().take(10).enumerate() {
            // The tenth byte holds bit 63 alone.
            if slot == 9 && byte > 1 {
                return Err(DecodeError::Malformed);
            }
            value |= u64::from(byte & 0x7f) << (7 * slot);
            if byte < 0x80 {
                self.rest = &self.rest[slot + 1..];
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed)
    }

    #[inline]
    fn take(&mut self, len: u64) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(len).map_err(|_| DecodeError::Malformed)?;
        let (head, tail) = self
            .rest
            .split_at_checked(len)
            .ok_or(DecodeError::Malformed)?;
        self.rest = tail;
        Ok(head)
    }

    fn fixed(&mut self, len: u64) -> Result<Value<'a>, DecodeError> {
        self.take(len)?;
        Ok(Value::Fixed)
    }

    fn skip_group(&mut self, number: u32, depth: u32) -> Result<(), DecodeError> {
        if depth == GROUP_DEPTH_MAX {
            return Err(DecodeError::Malformed);
        }
        loop {
            let (inner, wire_type) = self.key()?;
            match wire_type {
                0 => drop(self.varint()?),
                1 => drop(self.fixed(8)?),
                2 => {
                    let len = self.varint()?;
                    self.take(len)?;
                }
                3 => self.skip_group(inner, depth + 1)?,
                4 if inner == number => return Ok(()),
                5 => drop(self.fixed(4)?),
                _ => return Err(DecodeError::Malformed),
            }
        }
    }
}

impl<'a> Value<'a> {
    #[inline]
    pub(super) fn bytes(self, field: u32) -> Result<&'a [u8], DecodeError> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(DecodeError::WireType(field)),
        }
    }

    #[inline]
    pub(super) fn u64(self, field: u32) -> Result<u64, DecodeError> {
        match self {
            Value::Varint(value) => Ok(value),
            _ => Err(DecodeError::WireType(field)),
        }
    }

    #[inline]
    pub(super) fn i64(self, field: u32) -> Result<i64, DecodeError> {
        Ok(self.u64(field)? as i64)
    }

    /// Enums are open: any number is kept, cut to 32 bits as protobuf demands.
    #[inline]
    pub(super) fn i32(self, field: u32) -> Result<i32, DecodeError> {
        Ok(self.u64(field)? as i32)
    }

    #[inline]
    pub(super) fn bool(self, field: u32) -> Result<bool, DecodeError> {
        Ok(self.u64(field)? != 0)
    }
}
