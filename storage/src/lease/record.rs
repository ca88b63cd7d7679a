//! A lease's record in the bucket `lease`: etcd's `leasepb.Lease` under its id in eight big-endian bytes.
//!
//! Always true: what is written here decodes in etcd and back; fields that are zero are left out, as its encoder does.
//! Unknown fields of a newer release are skipped. Does not know which leases exist.

use super::LeaseId;
use crate::protobuf::{VARINT, put_varint, skip, take_tag, take_varint};

/// A lease as the tree file holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseRecord {
    pub id: LeaseId,
    /// Granted, in seconds.
    pub ttl_s: i64,
    /// The last checkpoint, in seconds; 0 for none.
    pub remaining_ttl_s: i64,
}

const ID: u64 = 1;
const TTL: u64 = 2;
const REMAINING_TTL: u64 = 3;

/// The key of a lease's record.
pub fn bucket_key(id: LeaseId) -> [u8; 8] {
    id.0.to_be_bytes()
}

impl LeaseRecord {
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let fields = [
            (ID, self.id.0),
            (TTL, self.ttl_s),
            (REMAINING_TTL, self.remaining_ttl_s),
        ];
        for (number, value) in fields {
            if value != 0 {
                put_varint(out, number << 3 | VARINT);
                // A negative number takes ten bytes, as in every protocol buffer.
                put_varint(out, value as u64);
            }
        }
    }

    /// `None` for bytes that are no such message.
    pub fn decode(mut bytes: &[u8]) -> Option<LeaseRecord> {
        let mut record = LeaseRecord {
            id: LeaseId::NONE,
            ttl_s: 0,
            remaining_ttl_s: 0,
        };
        while !bytes.is_empty() {
            match take_tag(&mut bytes)? {
                (ID, VARINT) => record.id = LeaseId(take_varint(&mut bytes)? as i64),
                (TTL, VARINT) => record.ttl_s = take_varint(&mut bytes)? as i64,
                (REMAINING_TTL, VARINT) => {
                    record.remaining_ttl_s = take_varint(&mut bytes)? as i64;
                }
                (_, wire_type) => skip(&mut bytes, wire_type)?,
            }
        }
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(id: i64, ttl_s: i64, remaining_ttl_s: i64) -> Vec<u8> {
        let mut out = Vec::new();
        LeaseRecord {
            id: LeaseId(id),
            ttl_s,
            remaining_ttl_s,
        }
        .encode_into(&mut out);
        out
    }

    #[test]
    fn bytes_are_those_of_protobuf() {
        assert_eq!(encode(1, 60, 0), [0x08, 1, 0x10, 60]);
        assert_eq!(encode(300, 9, 5), [0x08, 0xac, 2, 0x10, 9, 0x18, 5]);
        let minus_one = [
            0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0x10, 2,
        ];
        assert_eq!(encode(-1, 2, 0), minus_one);
        assert_eq!(
            bucket_key(LeaseId(-2)),
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]
        );
    }

    #[test]
    fn comes_back() {
        for id in [1, -1, i64::MIN, i64::MAX, 0x0694_5d2a_1b3c_4d05] {
            for ttl_s in [0, 1, 9_000_000_000] {
                for remaining_ttl_s in [0, 7] {
                    let record = LeaseRecord::decode(&encode(id, ttl_s, remaining_ttl_s)).unwrap();
                    assert_eq!(
                        (record.id.0, record.ttl_s, record.remaining_ttl_s),
                        (id, ttl_s, remaining_ttl_s)
                    );
                }
            }
        }
    }

    #[test]
    fn unknown_fields_are_skipped_and_garbage_is_refused() {
        let mut bytes = encode(5, 6, 0);
        bytes.extend([
            0x22, 2, b'x', b'y', 0x28, 1, 0x31, 0, 0, 0, 0, 0, 0, 0, 0, 0x3d, 0, 0, 0, 0,
        ]);
        assert_eq!(LeaseRecord::decode(&bytes).unwrap().ttl_s, 6);
        for garbage in [
            &[0x08][..],
            &[0x22, 9, 1],
            &[0x0b, 1],
            &[0x00, 1],
            &[0x31, 1],
            &[
                0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2,
            ],
        ] {
            assert_eq!(LeaseRecord::decode(garbage), None, "{garbage:02x?}");
        }
    }
}
