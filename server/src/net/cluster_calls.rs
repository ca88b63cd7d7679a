//! The cluster service, as far as one member goes: its list, its peer URLs, and etcd's refusals of what cannot be.
//!
//! A change that etcd would carry out and this version cannot is answered UNIMPLEMENTED, after etcd's own errors for it. Always true
//! here: nothing but the peer URLs ever changes, and those through the log.

use prost::Message;
use storage::command::{Body, MemberPeerUrlsSet, Url};
use wire::error::EtcdError;
use wire::grpc::{Call, Responder};
use wire::kv::RequestEnvelope;
use wire::messages::etcdserverpb::{
    MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
    MemberUpdateRequest,
};

use crate::config::Url as PeerUrl;

use super::calls::{Calls, Handled};

/// Etcd's field number for an update of a member in its raft request; it has none of its own there, so the nearest one.
const MEMBER_FIELD: u32 = 1301;

impl Calls<'_> {
    pub(super) fn member_list(
        &mut self,
        call: &Call<'_>,
        message: &[u8],
        out: &mut Responder<'_>,
    ) -> Handled {
        let request = MemberListRequest::decode(message)?;
        self.require_user(call)?;
        self.read(call, message, !request.linearizable, out)
    }

    pub(super) fn member_update(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        let request = MemberUpdateRequest::decode(message)?;
        self.require_root(call)?;
        let urls = request.peer_ur_ls.iter().map(|url| Url { url });
        let urls: Vec<Url<'_>> = urls.collect();
        let body = Body::MemberPeerUrlsSet(MemberPeerUrlsSet {
            member_id: request.id,
            peer_urls: &urls,
        });
        let (field, len) = (MEMBER_FIELD, message.len());
        self.propose(call, body, RequestEnvelope::Other { field, len })
    }

    pub(super) fn member_add(
        &mut self,
        call: &Call<'_>,
        message: &[u8],
        out: &mut Responder<'_>,
    ) -> Handled {
        let request = MemberAddRequest::decode(message)?;
        let given = &request.peer_ur_ls;
        if given.is_empty() || given.iter().any(|url| PeerUrl::parse(url).is_err()) {
            return Err(EtcdError::MemberBadUrls.into());
        }
        self.require_root(call)?;
        let cluster = self.state.shared.cluster.load();
        let mut taken = cluster.members.iter().flat_map(|held| &held.peer_ur_ls);
        if taken.any(|url| given.contains(url)) {
            return Err(EtcdError::PeerUrlExist.into());
        }
        self.refuse(call.method, call.stream, out);
        Ok(())
    }

    pub(super) fn member_remove(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        let request = MemberRemoveRequest::decode(message)?;
        self.require_root(call)?;
        Err(match self.has_member(request.id) {
            // The last voter: what is left could decide nothing.
            true => EtcdError::MemberNotEnoughStarted,
            false => EtcdError::MemberNotFound,
        }
        .into())
    }

    pub(super) fn member_promote(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        let request = MemberPromoteRequest::decode(message)?;
        self.require_root(call)?;
        Err(match self.has_member(request.id) {
            true => EtcdError::MemberNotLearner,
            false => EtcdError::MemberNotFound,
        }
        .into())
    }

    pub(super) fn has_member(&self, id: u64) -> bool {
        let cluster = self.state.shared.cluster.load();
        cluster.members.iter().any(|member| member.id == id)
    }
}
