//! Every method of every service that etcd 3.7 registers on a client port.
//!
//! Always true here: a method's [`MethodId`] is its place in [`METHODS`]; metrics and dispatch use it
//! as an index. A service that is listed exists for clients: what it cannot do yet is answered
//! UNIMPLEMENTED with a text of ours, not with grpc's `unknown service`.

use rustc_hash::FxHashMap;
use wire::grpc::{CallKind, MethodId, Route};

/// One method.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    pub service: &'static str,
    pub name: &'static str,
    pub kind: CallKind,
}

macro_rules! methods {
    ($($id:ident = $service:literal $name:literal $kind:ident;)+) => {
        /// All methods, in the order of their ids.
        pub const METHODS: &[Method] =
            &[$(Method { service: $service, name: $name, kind: CallKind::$kind },)+];

        /// The ids as constants.
        #[allow(dead_code, reason = "auth is not served yet")]
        pub mod id {
            use super::MethodId;

            #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
            #[repr(u16)]
            enum Place { $($id,)+ }

            $(pub const $id: MethodId = MethodId(Place::$id as u16);)+
        }
    };
}

methods! {
    KV_RANGE = "etcdserverpb.KV" "Range" Unary;
    KV_RANGE_STREAM = "etcdserverpb.KV" "RangeStream" ServerStreaming;
    KV_PUT = "etcdserverpb.KV" "Put" Unary;
    KV_DELETE_RANGE = "etcdserverpb.KV" "DeleteRange" Unary;
    KV_TXN = "etcdserverpb.KV" "Txn" Unary;
    KV_COMPACT = "etcdserverpb.KV" "Compact" Unary;
    WATCH_WATCH = "etcdserverpb.Watch" "Watch" Bidi;
    LEASE_LEASE_GRANT = "etcdserverpb.Lease" "LeaseGrant" Unary;
    LEASE_LEASE_REVOKE = "etcdserverpb.Lease" "LeaseRevoke" Unary;
    LEASE_LEASE_KEEP_ALIVE = "etcdserverpb.Lease" "LeaseKeepAlive" Bidi;
    LEASE_LEASE_TIME_TO_LIVE = "etcdserverpb.Lease" "LeaseTimeToLive" Unary;
    LEASE_LEASE_LEASES = "etcdserverpb.Lease" "LeaseLeases" Unary;
    CLUSTER_MEMBER_ADD = "etcdserverpb.Cluster" "MemberAdd" Unary;
    CLUSTER_MEMBER_REMOVE = "etcdserverpb.Cluster" "MemberRemove" Unary;
    CLUSTER_MEMBER_UPDATE = "etcdserverpb.Cluster" "MemberUpdate" Unary;
    CLUSTER_MEMBER_LIST = "etcdserverpb.Cluster" "MemberList" Unary;
    CLUSTER_MEMBER_PROMOTE = "etcdserverpb.Cluster" "MemberPromote" Unary;
    MAINTENANCE_ALARM = "etcdserverpb.Maintenance" "Alarm" Unary;
    MAINTENANCE_STATUS = "etcdserverpb.Maintenance" "Status" Unary;
    MAINTENANCE_DEFRAGMENT = "etcdserverpb.Maintenance" "Defragment" Unary;
    MAINTENANCE_HASH = "etcdserverpb.Maintenance" "Hash" Unary;
    MAINTENANCE_HASH_KV = "etcdserverpb.Maintenance" "HashKV" Unary;
    MAINTENANCE_SNAPSHOT = "etcdserverpb.Maintenance" "Snapshot" ServerStreaming;
    MAINTENANCE_MOVE_LEADER = "etcdserverpb.Maintenance" "MoveLeader" Unary;
    MAINTENANCE_DOWNGRADE = "etcdserverpb.Maintenance" "Downgrade" Unary;
    AUTH_AUTH_ENABLE = "etcdserverpb.Auth" "AuthEnable" Unary;
    AUTH_AUTH_DISABLE = "etcdserverpb.Auth" "AuthDisable" Unary;
    AUTH_AUTH_STATUS = "etcdserverpb.Auth" "AuthStatus" Unary;
    AUTH_AUTHENTICATE = "etcdserverpb.Auth" "Authenticate" Unary;
    AUTH_USER_ADD = "etcdserverpb.Auth" "UserAdd" Unary;
    AUTH_USER_GET = "etcdserverpb.Auth" "UserGet" Unary;
    AUTH_USER_LIST = "etcdserverpb.Auth" "UserList" Unary;
    AUTH_USER_DELETE = "etcdserverpb.Auth" "UserDelete" Unary;
    AUTH_USER_CHANGE_PASSWORD = "etcdserverpb.Auth" "UserChangePassword" Unary;
    AUTH_USER_GRANT_ROLE = "etcdserverpb.Auth" "UserGrantRole" Unary;
    AUTH_USER_REVOKE_ROLE = "etcdserverpb.Auth" "UserRevokeRole" Unary;
    AUTH_ROLE_ADD = "etcdserverpb.Auth" "RoleAdd" Unary;
    AUTH_ROLE_GET = "etcdserverpb.Auth" "RoleGet" Unary;
    AUTH_ROLE_LIST = "etcdserverpb.Auth" "RoleList" Unary;
    AUTH_ROLE_DELETE = "etcdserverpb.Auth" "RoleDelete" Unary;
    AUTH_ROLE_GRANT_PERMISSION = "etcdserverpb.Auth" "RoleGrantPermission" Unary;
    AUTH_ROLE_REVOKE_PERMISSION = "etcdserverpb.Auth" "RoleRevokePermission" Unary;
    LOCK_LOCK = "v3lockpb.Lock" "Lock" Unary;
    LOCK_UNLOCK = "v3lockpb.Lock" "Unlock" Unary;
    ELECTION_CAMPAIGN = "v3electionpb.Election" "Campaign" Unary;
    ELECTION_PROCLAIM = "v3electionpb.Election" "Proclaim" Unary;
    ELECTION_LEADER = "v3electionpb.Election" "Leader" Unary;
    ELECTION_OBSERVE = "v3electionpb.Election" "Observe" ServerStreaming;
    ELECTION_RESIGN = "v3electionpb.Election" "Resign" Unary;
    HEALTH_CHECK = "grpc.health.v1.Health" "Check" Unary;
    HEALTH_WATCH = "grpc.health.v1.Health" "Watch" ServerStreaming;
    HEALTH_LIST = "grpc.health.v1.Health" "List" Unary;
}

/// Looks up the `:path` of a call; built once for each net core.
pub struct Router(FxHashMap<Vec<u8>, Route>);

impl Router {
    pub fn new() -> Router {
        let routes = METHODS.iter().zip(0..).map(|(method, place)| {
            let path = format!("/{}/{}", method.service, method.name);
            (
                path.into_bytes(),
                Route::Method(MethodId(place), method.kind),
            )
        });
        Router(routes.collect())
    }

    pub fn route(&self, path: &[u8]) -> Route {
        if let Some(route) = self.0.get(path) {
            return *route;
        }
        let service = path[1..]
            .rsplitn(2, |&byte| byte == b'/')
            .nth(1)
            .unwrap_or_default();
        let is_known = METHODS
            .iter()
            .any(|method| method.service.as_bytes() == service);
        if is_known {
            Route::UnknownMethod
        } else {
            Route::UnknownService
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_their_methods() {
        let router = Router::new();
        assert_eq!(
            router.route(b"/etcdserverpb.KV/Put"),
            Route::Method(id::KV_PUT, CallKind::Unary)
        );
        assert_eq!(
            router.route(b"/grpc.health.v1.Health/List"),
            Route::Method(id::HEALTH_LIST, CallKind::Unary)
        );
        assert_eq!(router.route(b"/etcdserverpb.KV/Puts"), Route::UnknownMethod);
        assert_eq!(
            router.route(b"/etcdserverpb.KVs/Put"),
            Route::UnknownService
        );
        assert_eq!(METHODS.len(), router.0.len());
    }
}
