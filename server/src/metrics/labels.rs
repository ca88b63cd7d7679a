//! Labels of etcd's labelled families, as closed sets that index arrays.
//!
//! Always true here: a label value a client can choose (its API version) takes one of a bounded number of
//! slots, so nobody can make the scrape grow. Spellings are etcd's. Tables, but for the cache of versions.

use std::sync::{Arc, Mutex, PoisonError};

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($variant:ident => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name { $($variant,)* }

        impl $name {
            pub(super) const ALL: &[$name] = &[$($name::$variant,)*];

            pub(super) fn text(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }
    };
}

#[rustfmt::skip]
label! {
    /// `op` of `etcd_server_apply_duration_seconds`.
    ApplyOp {
        ClusterVersionSet => "ClusterVersionSet", ClusterMemberAttrSet => "ClusterMemberAttrSet",
        DowngradeInfoSet => "DowngradeInfoSet", DowngradeVersionTest => "DowngradeVersionTest",
        Range => "Range", Put => "Put", DeleteRange => "DeleteRange", Txn => "Txn",
        Compaction => "Compaction", LeaseGrant => "LeaseGrant", LeaseRevoke => "LeaseRevoke",
        LeaseCheckpoint => "LeaseCheckpoint", Alarm => "Alarm", Authenticate => "Authenticate",
        AuthEnable => "AuthEnable", AuthDisable => "AuthDisable", AuthUserAdd => "AuthUserAdd",
        AuthUserDelete => "AuthUserDelete", AuthUserChangePassword => "AuthUserChangePassword",
        AuthUserGrantRole => "AuthUserGrantRole", AuthUserGet => "AuthUserGet",
        AuthUserRevokeRole => "AuthUserRevokeRole", AuthRoleAdd => "AuthRoleAdd",
        AuthRoleGrantPermission => "AuthRoleGrantPermission", AuthRoleGet => "AuthRoleGet",
        AuthRoleRevokePermission => "AuthRoleRevokePermission", AuthRoleDelete => "AuthRoleDelete",
        AuthUserList => "AuthUserList", AuthRoleList => "AuthRoleList", Unknown => "unknown",
    }
}

#[rustfmt::skip]
label! {
    /// `type` of `etcd_server_request_duration_seconds`.
    RequestType {
        Range => "Range", ReadonlyTxn => "ReadonlyTxn", Put => "Put", DeleteRange => "DeleteRange",
        Txn => "Txn", Compaction => "Compaction", LeaseGrant => "LeaseGrant",
        LeaseRevoke => "LeaseRevoke", LeaseCheckpoint => "LeaseCheckpoint", Alarm => "Alarm",
        Authenticate => "Authenticate", AuthEnable => "AuthEnable", AuthDisable => "AuthDisable",
        AuthStatus => "AuthStatus", AuthUserAdd => "AuthUserAdd",
        AuthUserDelete => "AuthUserDelete", AuthUserChangePassword => "AuthUserChangePassword",
        AuthUserGrantRole => "AuthUserGrantRole", AuthUserGet => "AuthUserGet",
        AuthUserRevokeRole => "AuthUserRevokeRole", AuthRoleAdd => "AuthRoleAdd",
        AuthRoleGrantPermission => "AuthRoleGrantPermission", AuthRoleGet => "AuthRoleGet",
        AuthRoleRevokePermission => "AuthRoleRevokePermission", AuthRoleDelete => "AuthRoleDelete",
        AuthUserList => "AuthUserList", AuthRoleList => "AuthRoleList",
        ClusterVersionSet => "ClusterVersionSet", ClusterMemberAttrSet => "ClusterMemberAttrSet",
        DowngradeInfoSet => "DowngradeInfoSet", DowngradeVersionTest => "DowngradeVersionTest",
        Unknown => "Unknown",
    }
}

label! {
    /// `Type` of `etcd_network_server_stream_failures_total`.
    StreamDirection { Send => "send", Receive => "receive", }
}

label! {
    /// `API` of the same.
    StreamApi { Watch => "watch", LeaseKeepalive => "lease-keepalive", }
}

label! {
    /// A health check of one family; its text is the check's name.
    HealthCheck {
        LivezSerializableRead => "serializable_read",
        ReadyzDataCorruption => "data_corruption",
        ReadyzLinearizableRead => "linearizable_read",
        ReadyzNonLearner => "non_learner",
        ReadyzSerializableRead => "serializable_read",
    }
}

impl HealthCheck {
    /// `family` is `livez` or `readyz`; `None` for a pair that does not exist.
    pub fn find(family: &str, check: &str) -> Option<HealthCheck> {
        HealthCheck::ALL
            .iter()
            .copied()
            .find(|known| known.family() == family && known.text() == check)
    }

    pub(super) fn family(self) -> &'static str {
        match self {
            HealthCheck::LivezSerializableRead => "livez",
            _ => "readyz",
        }
    }
}

/// The slot of a client's API version; get one from `CoreMetrics::client_version`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientVersion(pub(super) u8);

impl ClientVersion {
    /// The client did not say.
    pub const UNKNOWN: ClientVersion = ClientVersion(0);
    /// Clients whose version found no free slot.
    pub(super) const OTHER: ClientVersion = ClientVersion(1);
    pub(super) const SLOTS: usize = 16;
    /// Longer versions are counted as `OTHER`.
    pub(super) const BYTES_MAX: usize = 64;
}

/// The versions one core has seen, so that it asks for the process's list once for each.
pub(super) struct VersionCache {
    /// Of the process; positions are slots.
    all: Arc<Mutex<Vec<String>>>,
    seen: Vec<(Box<[u8]>, ClientVersion)>,
}

impl VersionCache {
    pub(super) fn new(all: Arc<Mutex<Vec<String>>>) -> VersionCache {
        VersionCache {
            all,
            seen: Vec::new(),
        }
    }

    /// The list all cores share, before any client has called.
    pub(super) fn shared() -> Arc<Mutex<Vec<String>>> {
        Arc::new(Mutex::new(vec!["unknown".to_owned(), "other".to_owned()]))
    }

    pub(super) fn slot(&mut self, version: &[u8]) -> Option<ClientVersion> {
        if let Some((_, slot)) = self.seen.iter().find(|(seen, _)| **seen == *version) {
            return Some(*slot);
        }
        let text = std::str::from_utf8(version).ok()?;
        if self.seen.len() == ClientVersion::SLOTS || version.len() > ClientVersion::BYTES_MAX {
            return Some(ClientVersion::OTHER);
        }
        let slot = self.ask(text);
        self.seen.push((version.into(), slot));
        Some(slot)
    }

    fn ask(&self, version: &str) -> ClientVersion {
        let mut known = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = known.iter().position(|text| text == version) {
            return ClientVersion(slot as u8);
        }
        if known.len() == ClientVersion::SLOTS {
            return ClientVersion::OTHER;
        }
        known.push(version.to_owned());
        ClientVersion(known.len() as u8 - 1)
    }
}
