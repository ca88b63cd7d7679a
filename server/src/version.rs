//! Which etcd this program stands in for.

/// Reported to clients and in data files: they decide by it what they may ask.
pub const COMPATIBLE_VERSION: &str = "3.7.1";
/// The cluster version a member of [`COMPATIBLE_VERSION`] decides on when it is alone.
pub const CLUSTER_VERSION: &str = "3.7.0";
