//! The etcd v3 protobuf messages as owned types, one module a package.
//!
//! Always true: names, field numbers and enum values are those of the published API; the types are generated at build
//! time from `proto/` and hold no logic. Used by everything that is not the hot path (watch, lease, auth, cluster,
//! maintenance, the gateway, tests); range, put, delete, txn and compaction have borrowing twins in [`crate::kv`].
//! Callable on any core. Does not validate anything beyond the encoding.

macro_rules! package {
    ($(#[$doc:meta])* $module:ident, $file:literal) => {
        $(#[$doc])*
        #[allow(missing_docs, clippy::all)]
        pub mod $module {
            include!(concat!(env!("OUT_DIR"), "/", $file, ".rs"));
        }
    };
}

package!(/// Stored keys and events.
    mvccpb, "mvccpb");
package!(/// Stored users, roles and permissions.
    authpb, "authpb");
package!(/// The client API and the payload of raft entries.
    etcdserverpb, "etcdserverpb");
package!(/// Members and cluster version in raft entries.
    membershippb, "membershippb");
package!(/// Stored leases.
    leasepb, "leasepb");
package!(/// The lock service.
    v3lockpb, "v3lockpb");
package!(/// The election service.
    v3electionpb, "v3electionpb");
package!(/// etcd's raft messages and entries.
    raftpb, "raftpb");
package!(/// etcd's write-ahead log records.
    walpb, "walpb");
package!(/// etcd's snapshot file envelope.
    snappb, "snappb");

/// Packages of grpc itself.
pub mod grpc {
    /// The health service.
    pub mod health {
        package!(/// Version 1 of the health service.
            v1, "grpc.health.v1");
    }
}
