//! The election service: a lock's queue whose keys have values, and whose oldest is the leader.
//!
//! As in etcd a campaign that is cancelled resigns, a proclamation or resignation of somebody who no longer leads changes nothing, and
//! an observer sees the leader of now and every value it proclaims, but not every leader there was.

use std::rc::Rc;

use prost::Message;
use wire::error::EtcdError;
use wire::kv::WatchCreateRef;
use wire::messages::etcdserverpb::{
    RequestOp, ResponseHeader, TxnRequest, TxnResponse, range_request::SortOrder, request_op,
};
use wire::messages::mvccpb::KeyValue;
use wire::messages::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};

use super::core::NetCore;
use super::errands::{Errand, Failed, header_of};
use super::locks::{
    Answered, DELETE, Place, by_age, delete, is_created_at, prefix_end, put, wait_for_turn,
};

/// Waits to become the leader.
pub async fn campaign(core: &Rc<NetCore>, errand: &Errand) -> Answered {
    let request: CampaignRequest = errand.decode();
    let place = Place::take(core, errand, &request.name, request.lease, &request.value).await?;
    if let Some(before) = &place.before
        && before.value != request.value
    {
        let changed = change(
            core,
            errand,
            &place.key,
            place.revision,
            put(&place.key, &request.value, place.lease),
        );
        let failed = match changed.await {
            Ok(reply) if reply.succeeded => None,
            Ok(_) => Some(EtcdError::ElectionNotLeader.into()),
            Err(failed) => Some(failed),
        };
        if let Some(failed) = failed {
            leave(core, errand, &place).await;
            return Err(failed);
        }
    }
    let turn = wait_for_turn(core, errand, &place.prefix, place.revision).await;
    let has_waited = turn != Ok(true);
    // Nobody is there to lead. Who led before this call goes on leading.
    if errand.is_cancelled() && (place.is_new || has_waited) {
        leave(core, errand, &place).await;
        return Err(Failed::Cancelled);
    }
    turn?;
    let reply = CampaignResponse {
        header: Some(place.header),
        leader: Some(LeaderKey {
            name: request.name,
            key: place.key,
            rev: place.revision,
            lease: place.lease,
        }),
    };
    Ok(Some(reply.encode_to_vec()))
}

/// Gives the leader a new value.
pub async fn proclaim(core: &Rc<NetCore>, errand: &Errand) -> Answered {
    let request: ProclaimRequest = errand.decode();
    let leader = request.leader.ok_or(EtcdError::LeaderFieldMissing)?;
    let lease = core.lease_or_new(errand, leader.lease).await?;
    let value = put(&leader.key, &request.value, lease);
    let reply = change(core, errand, &leader.key, leader.rev, value).await?;
    if !reply.succeeded {
        return Err(EtcdError::ElectionNotLeader.into());
    }
    let reply = ProclaimResponse {
        header: reply.header,
    };
    Ok(Some(reply.encode_to_vec()))
}

/// Ends a leadership, if it still is one.
pub async fn resign(core: &Rc<NetCore>, errand: &Errand) -> Answered {
    let request: ResignRequest = errand.decode();
    let leader = request.leader.ok_or(EtcdError::LeaderFieldMissing)?;
    core.lease_or_new(errand, leader.lease).await?;
    let reply = change(core, errand, &leader.key, leader.rev, deletion(&leader.key)).await?;
    let reply = ResignResponse {
        header: reply.header,
    };
    Ok(Some(reply.encode_to_vec()))
}

/// Who leads now.
pub async fn leader(core: &Rc<NetCore>, errand: &Errand) -> Answered {
    let request: LeaderRequest = errand.decode();
    let mut prefix = request.name;
    prefix.push(b'/');
    let (header, kv) = oldest(core, errand, &prefix).await?;
    let reply = LeaderResponse {
        header: Some(header),
        kv: Some(kv.ok_or(EtcdError::ElectionNoLeader)?),
    };
    Ok(Some(reply.encode_to_vec()))
}

/// Sends who leads and what they proclaim, until the client has enough.
pub async fn observe(core: &Rc<NetCore>, errand: &Errand) -> Answered {
    let request: LeaderRequest = errand.decode();
    let mut prefix = request.name;
    prefix.push(b'/');
    // As etcd: whatever ends the watching ends the stream in order.
    match observe_leaders(core, errand, &prefix).await {
        Err(Failed::Cancelled) => Err(Failed::Cancelled),
        _ => Ok(None),
    }
}

async fn observe_leaders(core: &Rc<NetCore>, errand: &Errand, prefix: &[u8]) -> Result<(), Failed> {
    loop {
        let (header, kv) = match oldest(core, errand, prefix).await? {
            (header, Some(kv)) => (header, kv),
            (header, None) => first_put(core, errand, prefix, header.revision).await?,
        };
        let revision = header.revision;
        let key = kv.key.clone();
        send(core, errand, header, kv).await?;
        let watch_id = core.open_errand_watch(
            errand,
            &WatchCreateRef {
                key: &key,
                start_revision: revision + 1,
                ..WatchCreateRef::default()
            },
        )?;
        let ended = follow(core, errand, watch_id).await;
        core.close_errand_watch(errand, watch_id);
        ended?;
    }
}

/// Sends what is put to the watched key until it is deleted.
async fn follow(core: &Rc<NetCore>, errand: &Errand, watch_id: i64) -> Result<(), Failed> {
    loop {
        if errand.is_cancelled() {
            return Err(Failed::Cancelled);
        }
        let Some(news) = core.next_news(errand) else {
            core.wait_for_news(errand).await;
            continue;
        };
        if news.watch_id != watch_id {
            continue;
        }
        if news.canceled {
            return Err(EtcdError::LostWatcher.into());
        }
        let header = header_of(news.header);
        for event in news.events {
            if event.r#type == DELETE {
                return Ok(());
            }
            if let Some(kv) = event.kv {
                send(core, errand, header, kv).await?;
            }
        }
    }
}

/// Waits for the first key under `prefix`, from this revision on.
async fn first_put(
    core: &Rc<NetCore>,
    errand: &Errand,
    prefix: &[u8],
    revision: i64,
) -> Result<(ResponseHeader, KeyValue), Failed> {
    let end = prefix_end(prefix);
    let create = WatchCreateRef {
        key: prefix,
        range_end: &end,
        start_revision: revision,
        ..WatchCreateRef::default()
    };
    core.watch(errand, &create, |news| {
        let put = news.events.iter().find(|event| event.r#type != DELETE)?;
        let kv = put.kv.clone()?;
        let mut header = news.header?;
        header.revision = kv.mod_revision;
        Some((header, kv))
    })
    .await
}

async fn send(
    core: &Rc<NetCore>,
    errand: &Errand,
    header: ResponseHeader,
    kv: KeyValue,
) -> Result<(), Failed> {
    let message = LeaderResponse {
        header: Some(header),
        kv: Some(kv),
    };
    core.send(errand, &message).await
}

/// The oldest key under `prefix`, as of now.
async fn oldest(
    core: &Rc<NetCore>,
    errand: &Errand,
    prefix: &[u8],
) -> Result<(ResponseHeader, Option<KeyValue>), Failed> {
    core.read_barrier().await?;
    let mut found = core
        .range(errand, &by_age(prefix, SortOrder::Ascend))
        .await?;
    let kv = (!found.kvs.is_empty()).then(|| found.kvs.swap_remove(0));
    Ok((header_of(found.header), kv))
}

/// Does `operation` if the key still is the one that was created at `revision`.
async fn change(
    core: &Rc<NetCore>,
    errand: &Errand,
    key: &[u8],
    revision: i64,
    operation: RequestOp,
) -> Result<TxnResponse, Failed> {
    let txn = TxnRequest {
        compare: vec![is_created_at(key, revision)],
        success: vec![operation],
        failure: Vec::new(),
    };
    core.txn(errand, &txn).await
}

fn deletion(key: &[u8]) -> RequestOp {
    RequestOp {
        request: Some(request_op::Request::RequestDeleteRange(delete(key))),
    }
}

/// Resigns a place that nobody waits for; what goes wrong with that is left to the lease's end.
async fn leave(core: &Rc<NetCore>, errand: &Errand, place: &Place) {
    if let Err(failed) = change(
        core,
        errand,
        &place.key,
        place.revision,
        deletion(&place.key),
    )
    .await
    {
        tracing::warn!(
            key = %place.key.escape_ascii(),
            reason = ?failed,
            "the key of a campaign that nobody waits for stays until its lease ends"
        );
    }
}
