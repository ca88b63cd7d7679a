//! Intervals of keys as requests name them.
//!
//! Always true: `contains` and `is_below_end` agree with etcd's three forms of `range_end`.
//! Pure; every core.

/// `[key, end)` in etcd's form: empty `end` is exactly `key`, one zero byte is no upper limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRange<'a> {
    pub key: &'a [u8],
    pub end: &'a [u8],
}

impl<'a> KeyRange<'a> {
    pub const fn new(key: &'a [u8], end: &'a [u8]) -> Self {
        Self { key, end }
    }

    pub const fn single(key: &'a [u8]) -> Self {
        Self { key, end: b"" }
    }

    /// Every key there can be.
    pub const fn all() -> Self {
        Self {
            key: b"",
            end: b"\0",
        }
    }

    pub fn is_single(&self) -> bool {
        self.end.is_empty()
    }

    pub fn has_no_upper_limit(&self) -> bool {
        self.end == b"\0"
    }

    /// Whether a key that is not below `self.key` is inside.
    pub fn is_below_end(&self, key: &[u8]) -> bool {
        match self.end {
            b"" => key == self.key,
            b"\0" => true,
            end => key < end,
        }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        self.key <= key && self.is_below_end(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms() {
        assert!(KeyRange::single(b"a").contains(b"a"));
        assert!(!KeyRange::single(b"a").contains(b"a\0"));
        assert!(KeyRange::new(b"b", b"\0").contains(b"zz"));
        assert!(!KeyRange::new(b"b", b"\0").contains(b"a"));
        assert!(KeyRange::new(b"b", b"c").contains(b"b\xff"));
        assert!(!KeyRange::new(b"b", b"c").contains(b"c"));
        assert!(!KeyRange::new(b"c", b"b").contains(b"c"));
    }
}
