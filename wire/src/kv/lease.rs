//! Replies of the lease service.
//!
//! Always true: the bytes are those any protobuf library would write for the same message. Requests hold a number or
//! two and are decoded as owned messages. Called by the net cores, and by the apply core for what goes through the log.

use super::encode::ResponseHeader;
use super::field::{put_i64, put_message_key, put_present_bytes, put_varint, u64_len};

/// Appends a `LeaseGrantResponse`.
pub fn put_lease_grant_response(out: &mut Vec<u8>, header: &ResponseHeader, id: i64, ttl_s: i64) {
    header.put(out);
    put_i64(out, 2, id);
    put_i64(out, 3, ttl_s);
}

/// Appends a `LeaseRevokeResponse`.
pub fn put_lease_revoke_response(out: &mut Vec<u8>, header: &ResponseHeader) {
    header.put(out);
}

/// Appends a `LeaseKeepAliveResponse`.
pub fn put_lease_keep_alive_response(
    out: &mut Vec<u8>,
    header: &ResponseHeader,
    id: i64,
    ttl_s: i64,
) {
    header.put(out);
    put_i64(out, 2, id);
    put_i64(out, 3, ttl_s);
}

/// Appends a `LeaseTimeToLiveResponse`.
pub fn put_lease_time_to_live_response<'a>(
    out: &mut Vec<u8>,
    header: &ResponseHeader,
    id: i64,
    ttl_s: i64,
    granted_ttl_s: i64,
    keys: impl Iterator<Item = &'a [u8]>,
) {
    header.put(out);
    put_i64(out, 2, id);
    put_i64(out, 3, ttl_s);
    put_i64(out, 4, granted_ttl_s);
    for key in keys {
        put_present_bytes(out, 5, key);
    }
}

/// Appends a `LeaseLeasesResponse`.
pub fn put_lease_leases_response(
    out: &mut Vec<u8>,
    header: &ResponseHeader,
    ids: impl Iterator<Item = i64>,
) {
    header.put(out);
    for id in ids {
        put_message_key(out, 2);
        put_varint(out, u64_len(1, id as u64) as u64);
        put_i64(out, 1, id);
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::messages::etcdserverpb::{
        self, LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseStatus,
        LeaseTimeToLiveResponse,
    };

    const HEADER: ResponseHeader = ResponseHeader {
        cluster_id: 1,
        member_id: u64::MAX,
        revision: 300,
        raft_term: 2,
    };

    fn header() -> Option<etcdserverpb::ResponseHeader> {
        Some(etcdserverpb::ResponseHeader {
            cluster_id: 1,
            member_id: u64::MAX,
            revision: 300,
            raft_term: 2,
        })
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn replies_are_what_another_library_writes() {
        for id in [1, -1, i64::MIN, 0x7fff_0000_0000_0001] {
            for ttl in [0, -1, 5, 9_000_000_000] {
                let grant = LeaseGrantResponse {
                    header: header(),
                    id,
                    ttl,
                    error: String::new(),
                };
                let out = written(|out| put_lease_grant_response(out, &HEADER, id, ttl));
                assert_eq!(out, grant.encode_to_vec());
                let alive = LeaseKeepAliveResponse {
                    header: header(),
                    id,
                    ttl,
                };
                let out = written(|out| put_lease_keep_alive_response(out, &HEADER, id, ttl));
                assert_eq!(out, alive.encode_to_vec());
                let keys: [&[u8]; 3] = [b"a", b"", b"\xff\0"];
                let found = LeaseTimeToLiveResponse {
                    header: header(),
                    id,
                    ttl,
                    granted_ttl: ttl,
                    keys: keys.iter().map(|key| key.to_vec()).collect(),
                };
                let out = written(|out| {
                    let keys = keys.iter().copied();
                    put_lease_time_to_live_response(out, &HEADER, id, ttl, ttl, keys);
                });
                assert_eq!(out, found.encode_to_vec());
            }
        }
        let ids = [5, -5, 1 << 40];
        let list = LeaseLeasesResponse {
            header: header(),
            leases: ids.iter().map(|&id| LeaseStatus { id }).collect(),
        };
        let out = written(|out| put_lease_leases_response(out, &HEADER, ids.into_iter()));
        assert_eq!(out, list.encode_to_vec());
    }
}
