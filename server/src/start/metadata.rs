//! The log's metadata record: who the member is, which log this is, and what it began from.
//!
//! Always true here: the record is written once, when the log is made, and repeated in each of its segments; a record of
//! any earlier release can be read. Layout: `docs/format-log.md`.

/// Written now. Version 1 had no id of the log and did not say what it began from.
const VERSION: u8 = 2;
const VERSION_WITHOUT_ID: u8 = 1;
const BYTES_WITHOUT_ID: usize = 1 + 2 * 8;
const BYTES: usize = BYTES_WITHOUT_ID + 1 + 8;
const FOUNDED: u8 = 0;
const ADOPTED: u8 = 1;

/// What the state before a log's first entry was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing: the log and an empty tree make up the whole state.
    Founded,
    /// A tree file that was there before the log; without it the log is not enough.
    Adopted,
}

/// The record's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    pub member_id: u64,
    pub cluster_id: u64,
    /// Absent in logs of version 1.
    pub log: Option<LogIdentity>,
}

/// Tells one log from another. Not the number in the segments' headers: that one keeps what clients wrote from passing for
/// records, so it never leaves the log, while this one goes into the tree file and its backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// Random.
    pub id: u64,
    pub origin: Origin,
}

impl Metadata {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.member_id.to_le_bytes());
        bytes.extend(self.cluster_id.to_le_bytes());
        match self.log {
            Some(LogIdentity { id, origin }) => {
                bytes.push(match origin {
                    Origin::Founded => FOUNDED,
                    Origin::Adopted => ADOPTED,
                });
                bytes.extend(id.to_le_bytes());
            }
            None => bytes[0] = VERSION_WITHOUT_ID,
        }
        bytes
    }

    /// `None` if a newer release wrote it.
    pub fn decode(bytes: &[u8]) -> Option<Metadata> {
        let word = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let log = match (bytes.first()?, bytes.len()) {
            (&VERSION_WITHOUT_ID, BYTES_WITHOUT_ID) => None,
            (&VERSION, BYTES) => Some(LogIdentity {
                origin: match bytes[BYTES_WITHOUT_ID] {
                    FOUNDED => Origin::Founded,
                    ADOPTED => Origin::Adopted,
                    _ => return None,
                },
                id: word(BYTES_WITHOUT_ID + 1)?,
            }),
            _ => return None,
        };
        Some(Metadata {
            member_id: word(1)?,
            cluster_id: word(9)?,
            log,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read_and_others_are_not() {
        let old = b"\x01\x07\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0";
        let without = Metadata {
            member_id: 7,
            cluster_id: 8,
            log: None,
        };
        assert_eq!(Metadata::decode(old), Some(without));
        assert_eq!(without.encode(), old);
        let new = b"\x02\x07\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x01\x09\0\0\0\0\0\0\0";
        let with = Metadata {
            log: Some(LogIdentity {
                id: 9,
                origin: Origin::Adopted,
            }),
            ..without
        };
        assert_eq!(Metadata::decode(new), Some(with));
        assert_eq!(with.encode(), new);
        for bytes in [&b""[..], b"\x03", &new[..25], &[&new[..], b"\0"].concat()] {
            assert_eq!(Metadata::decode(bytes), None, "{bytes:02x?}");
        }
        let mut origin = new.to_vec();
        origin[17] = 2;
        assert_eq!(Metadata::decode(&origin), None);
    }
}
