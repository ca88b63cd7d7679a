//! Revisions and their 17/18-byte keys in the `key` bucket.
//!
//! Always true: the byte order of encoded keys is the order of `(main, sub)`, and a tombstone of a revision
//! sorts directly behind the place a put of the same revision would have.
//! Pure; used by every core. Does not know which revisions exist.

/// Bytes of the key of a put: main, `_`, sub.
pub const PUT_KEY_BYTES: usize = 17;
/// Bytes of the key of a delete: the same and `t`.
pub const TOMBSTONE_KEY_BYTES: usize = 18;

const SEPARATOR: u8 = b'_';
const TOMBSTONE_MARK: u8 = b't';

/// Position of one change in the store's history: `main` counts transactions, `sub` the changes inside one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    pub main: i64,
    pub sub: i64,
}

impl Revision {
    pub const fn new(main: i64, sub: i64) -> Self {
        Self { main, sub }
    }

    /// The 17 bytes of a put; also the form in which `meta` keeps compaction marks.
    pub fn put_key(self) -> [u8; PUT_KEY_BYTES] {
        let mut key = [0; PUT_KEY_BYTES];
        key[..8].copy_from_slice(&self.main.to_be_bytes());
        key[8] = SEPARATOR;
        key[9..].copy_from_slice(&self.sub.to_be_bytes());
        key
    }

    pub fn key(self, is_tombstone: bool) -> RevisionKey {
        let mut bytes = [TOMBSTONE_MARK; TOMBSTONE_KEY_BYTES];
        bytes[..PUT_KEY_BYTES].copy_from_slice(&self.put_key());
        RevisionKey {
            bytes,
            is_tombstone,
        }
    }

    /// Reads a key of the `key` bucket; `None` if it is neither a put's nor a tombstone's.
    pub fn parse(key: &[u8]) -> Option<(Self, bool)> {
        let is_tombstone = match key.len() {
            PUT_KEY_BYTES => false,
            TOMBSTONE_KEY_BYTES if key[PUT_KEY_BYTES] == TOMBSTONE_MARK => true,
            _ => return None,
        };
        if key[8] != SEPARATOR {
            return None;
        }
        let main = i64::from_be_bytes(key[..8].try_into().ok()?);
        let sub = i64::from_be_bytes(key[9..PUT_KEY_BYTES].try_into().ok()?);
        Some((Self { main, sub }, is_tombstone))
    }
}

/// An encoded key of the `key` bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevisionKey {
    bytes: [u8; TOMBSTONE_KEY_BYTES],
    is_tombstone: bool,
}

impl RevisionKey {
    pub fn as_bytes(&self) -> &[u8] {
        if self.is_tombstone {
            &self.bytes
        } else {
            &self.bytes[..PUT_KEY_BYTES]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_layout_of_the_data_file() {
        let revision = Revision::new(0x0102, 3);
        assert_eq!(
            revision.put_key(),
            *b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03"
        );
        assert_eq!(revision.key(true).as_bytes()[17], b't');
        for is_tombstone in [false, true] {
            let key = revision.key(is_tombstone);
            assert_eq!(
                Revision::parse(key.as_bytes()),
                Some((revision, is_tombstone))
            );
        }
        assert_eq!(Revision::parse(b"short"), None);
        assert_eq!(Revision::parse(&[0; 17]), None);
    }
}
