//! Which method a path of the JSON API names.
//!
//! Always true here: the paths are etcd's; each leads into the table of methods, so a method that is served over gRPC is
//! served here, and one that is not is answered by the same refusal.

use rustc_hash::FxHashMap;
use wire::grpc::{CallKind, MethodId};
use wire::json::{MessageType, method_types};

use crate::services::methods::METHODS;

/// Path behind `/v3/`, service, method.
#[rustfmt::skip]
const PATHS: &[(&str, &str, &str)] = &[
    ("auth/authenticate", "etcdserverpb.Auth", "Authenticate"),
    ("auth/disable", "etcdserverpb.Auth", "AuthDisable"),
    ("auth/enable", "etcdserverpb.Auth", "AuthEnable"),
    ("auth/role/add", "etcdserverpb.Auth", "RoleAdd"),
    ("auth/role/delete", "etcdserverpb.Auth", "RoleDelete"),
    ("auth/role/get", "etcdserverpb.Auth", "RoleGet"),
    ("auth/role/grant", "etcdserverpb.Auth", "RoleGrantPermission"),
    ("auth/role/list", "etcdserverpb.Auth", "RoleList"),
    ("auth/role/revoke", "etcdserverpb.Auth", "RoleRevokePermission"),
    ("auth/status", "etcdserverpb.Auth", "AuthStatus"),
    ("auth/user/add", "etcdserverpb.Auth", "UserAdd"),
    ("auth/user/changepw", "etcdserverpb.Auth", "UserChangePassword"),
    ("auth/user/delete", "etcdserverpb.Auth", "UserDelete"),
    ("auth/user/get", "etcdserverpb.Auth", "UserGet"),
    ("auth/user/grant", "etcdserverpb.Auth", "UserGrantRole"),
    ("auth/user/list", "etcdserverpb.Auth", "UserList"),
    ("auth/user/revoke", "etcdserverpb.Auth", "UserRevokeRole"),
    ("cluster/member/add", "etcdserverpb.Cluster", "MemberAdd"),
    ("cluster/member/list", "etcdserverpb.Cluster", "MemberList"),
    ("cluster/member/promote", "etcdserverpb.Cluster", "MemberPromote"),
    ("cluster/member/remove", "etcdserverpb.Cluster", "MemberRemove"),
    ("cluster/member/update", "etcdserverpb.Cluster", "MemberUpdate"),
    ("election/campaign", "v3electionpb.Election", "Campaign"),
    ("election/leader", "v3electionpb.Election", "Leader"),
    ("election/observe", "v3electionpb.Election", "Observe"),
    ("election/proclaim", "v3electionpb.Election", "Proclaim"),
    ("election/resign", "v3electionpb.Election", "Resign"),
    ("kv/compaction", "etcdserverpb.KV", "Compact"),
    ("kv/deleterange", "etcdserverpb.KV", "DeleteRange"),
    ("kv/lease/leases", "etcdserverpb.Lease", "LeaseLeases"),
    ("kv/lease/revoke", "etcdserverpb.Lease", "LeaseRevoke"),
    ("kv/lease/timetolive", "etcdserverpb.Lease", "LeaseTimeToLive"),
    ("kv/put", "etcdserverpb.KV", "Put"),
    ("kv/range", "etcdserverpb.KV", "Range"),
    ("kv/txn", "etcdserverpb.KV", "Txn"),
    ("lease/grant", "etcdserverpb.Lease", "LeaseGrant"),
    ("lease/keepalive", "etcdserverpb.Lease", "LeaseKeepAlive"),
    ("lease/leases", "etcdserverpb.Lease", "LeaseLeases"),
    ("lease/revoke", "etcdserverpb.Lease", "LeaseRevoke"),
    ("lease/timetolive", "etcdserverpb.Lease", "LeaseTimeToLive"),
    ("lock/lock", "v3lockpb.Lock", "Lock"),
    ("lock/unlock", "v3lockpb.Lock", "Unlock"),
    ("maintenance/alarm", "etcdserverpb.Maintenance", "Alarm"),
    ("maintenance/defragment", "etcdserverpb.Maintenance", "Defragment"),
    ("maintenance/downgrade", "etcdserverpb.Maintenance", "Downgrade"),
    ("maintenance/hash", "etcdserverpb.Maintenance", "Hash"),
    ("maintenance/hashkv", "etcdserverpb.Maintenance", "HashKV"),
    ("maintenance/snapshot", "etcdserverpb.Maintenance", "Snapshot"),
    ("maintenance/status", "etcdserverpb.Maintenance", "Status"),
    ("maintenance/transfer-leadership", "etcdserverpb.Maintenance", "MoveLeader"),
    ("watch", "etcdserverpb.Watch", "Watch"),
];

/// Where a path leads.
#[derive(Clone, Copy, Debug)]
pub struct JsonRoute {
    pub method: MethodId,
    pub kind: CallKind,
    pub request: MessageType,
    pub reply: MessageType,
}

/// Built once for each net core.
pub struct JsonRoutes(FxHashMap<&'static str, JsonRoute>);

impl JsonRoutes {
    pub fn new() -> JsonRoutes {
        let routes = PATHS.iter().map(|(path, service, name)| {
            let is_it = |method: &crate::services::methods::Method| {
                method.service == *service && method.name == *name
            };
            let place = METHODS
                .iter()
                .position(is_it)
                .expect("a method of the table");
            let types = method_types(&format!("/{service}/{name}"));
            let (request, reply) = types.expect("a method of the API");
            let method = MethodId(place as u16);
            let kind = METHODS[place].kind;
            (
                *path,
                JsonRoute {
                    method,
                    kind,
                    request,
                    reply,
                },
            )
        });
        JsonRoutes(routes.collect())
    }

    /// `path` is what follows `/v3/`.
    pub fn find(&self, path: &str) -> Option<JsonRoute> {
        self.0.get(path).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_with_a_json_form_in_etcd_has_a_path() {
        let routes = JsonRoutes::new();
        assert_eq!(routes.0.len(), PATHS.len());
        for (place, method) in METHODS.iter().enumerate() {
            // These two have none in etcd.
            let has_none =
                method.service == "grpc.health.v1.Health" || method.name == "RangeStream";
            let has = routes
                .0
                .values()
                .any(|route| usize::from(route.method.0) == place);
            assert_eq!(has, !has_none, "{}/{}", method.service, method.name);
        }
    }
}
