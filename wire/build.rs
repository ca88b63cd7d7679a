//! Compiles our `.proto` files into the message types of `src/messages`.
//!
//! Runs at build time only, needs no installed `protoc`, and reads nothing outside `proto/`.

use std::error::Error;

use protox::prost_reflect::DescriptorPool;

#[path = "build/json.rs"]
mod json;

const PROTO_FILES: &[&str] = &[
    "proto/mvccpb/kv.proto",
    "proto/authpb/auth.proto",
    "proto/etcdserverpb/rpc.proto",
    "proto/etcdserverpb/raft_internal.proto",
    "proto/etcdserverpb/etcdserver.proto",
    "proto/membershippb/membership.proto",
    "proto/leasepb/lease.proto",
    "proto/v3lockpb/v3lock.proto",
    "proto/v3electionpb/v3election.proto",
    "proto/grpc/health/v1/health.proto",
    "proto/raftpb/raft.proto",
    "proto/walpb/record.proto",
    "proto/snappb/snap.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build");
    let descriptors = protox::compile(PROTO_FILES, ["proto"])?;
    let pool = DescriptorPool::from_file_descriptor_set(descriptors.clone())?;
    let tables = std::path::Path::new(&std::env::var("OUT_DIR")?).join("json_tables.rs");
    std::fs::write(tables, json::tables(&pool)?)?;
    // Maps are ordered, so that the same message always has the same bytes.
    prost_build::Config::new()
        .btree_map(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
