//! Which etcd this program stands in for.

/// Reported to clients and in data files: they decide by it what they may ask.
pub const COMPATIBLE_VERSION: &str = "3.7.1";
/// The cluster version a member of [`COMPATIBLE_VERSION`] decides on when it is alone.
pub const CLUSTER_VERSION: &str = "3.7.0";

/// A version's first two numbers, which is what clusters agree on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Minor {
    pub major: u64,
    pub minor: u64,
}

impl Minor {
    /// The one version that a cluster can go down to.
    pub fn before(self) -> Option<Minor> {
        let minor = self.minor.checked_sub(1)?;
        Some(Minor { minor, ..self })
    }
}

impl std::fmt::Display for Minor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.0", self.major, self.minor)
    }
}

/// `3.7.1`, `3.7.0-rc.1+build` or `3.7`: the forms in which etcd takes a version.
pub fn parse_version(text: &str) -> Option<Minor> {
    let (numbers, has_suffix) = match text.find(['-', '+']) {
        Some(end) => (&text[..end], true),
        None => (text, false),
    };
    let parts: Option<Vec<u64>> = numbers.split('.').map(|part| part.parse().ok()).collect();
    match parts?[..] {
        [major, minor, _] => Some(Minor { major, minor }),
        [major, minor] if !has_suffix => Some(Minor { major, minor }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_etcd_reads_them() {
        let minor = |text| parse_version(text).map(|minor| minor.to_string());
        for text in ["3.6", "3.6.0", "3.6.9", "3.6.0-rc.1", "3.6.1+build"] {
            assert_eq!(minor(text).as_deref(), Some("3.6.0"), "{text}");
        }
        for text in ["", "3", "x", "3.6.0.0", "3.-6", "3.6-rc", "v3.6.0", "3..6"] {
            assert_eq!(minor(text), None, "{text}");
        }
        let now = parse_version(CLUSTER_VERSION).expect("ours is one");
        assert_eq!(now.before(), parse_version("3.6"));
        assert_eq!(parse_version("4.0").and_then(Minor::before), None);
    }
}
