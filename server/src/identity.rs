//! Member and cluster identities, derived exactly as etcd derives them.
//!
//! Always true here: the same peer URLs, token and member set give the same ids as etcd gives, so a data
//! directory, a backup or a dashboard names the same member under either program.
//!
//! Called once at start-up, before any core runs; pure computation. Deliberately does not remember ids
//! (the log's metadata record does) and does not choose ids for members added at run time.

use std::fmt;

use sha1::{Digest, Sha1};

/// A member's id: the first eight bytes of a SHA-1, shown in lower-case hex as etcd does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MemberId(pub u64);

/// The cluster's id, derived from the ids of its initial members.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClusterId(pub u64);

impl MemberId {
    /// The id of an initial member: SHA-1 over its peer URLs, sorted and joined without a separator,
    /// followed by the cluster token (`--initial-cluster-token`).
    pub fn of_initial_member<S: AsRef<str>>(peer_urls: &[S], cluster_token: &str) -> MemberId {
        let mut urls: Vec<&str> = peer_urls.iter().map(AsRef::as_ref).collect();
        urls.sort_unstable();
        let mut hash = Sha1::new();
        for url in urls {
            hash.update(url.as_bytes());
        }
        hash.update(cluster_token.as_bytes());
        MemberId(leading_u64(hash))
    }
}

impl ClusterId {
    /// The id of a cluster that starts with these members: SHA-1 over their ids, ascending, big-endian.
    pub fn of_initial_members(members: &[MemberId]) -> ClusterId {
        let mut ids = members.to_vec();
        ids.sort_unstable();
        let mut hash = Sha1::new();
        for MemberId(id) in ids {
            hash.update(id.to_be_bytes());
        }
        ClusterId(leading_u64(hash))
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

fn leading_u64(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    let (head, _) = digest
        .split_first_chunk::<8>()
        .expect("a SHA-1 digest has 20 bytes");
    u64::from_be_bytes(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_single_member_has_etcds_well_known_ids() {
        let member = MemberId::of_initial_member(&["http://localhost:2380"], "etcd-cluster");
        assert_eq!(member.to_string(), "8e9e05c52164694d");
        assert_eq!(
            ClusterId::of_initial_members(&[member]).to_string(),
            "cdf818194e3a8c32"
        );
    }

    #[test]
    fn url_order_and_member_order_do_not_matter() {
        let urls = ["http://10.0.0.1:2380", "http://10.0.0.2:2380"];
        let turned = ["http://10.0.0.2:2380", "http://10.0.0.1:2380"];
        let a = MemberId::of_initial_member(&urls, "t");
        assert_eq!(a, MemberId::of_initial_member(&turned, "t"));
        let b = MemberId::of_initial_member(&["http://10.0.0.3:2380"], "t");
        assert_ne!(a, b);
        assert_eq!(
            ClusterId::of_initial_members(&[a, b]),
            ClusterId::of_initial_members(&[b, a])
        );
    }
}
