//! What is configured of plain HTTP: its addresses, and who may ask.
//!
//! Always true here: refusals are worded as etcd words them.

use super::Refusal;
use super::raw::RawConfig;
use super::urls::Url;
use crate::http1::{Access, Allowed};
use crate::net::HttpSettings;

pub(super) fn settings(raw: &RawConfig) -> HttpSettings {
    HttpSettings {
        access: Access {
            hosts: Allowed::new(raw.list("host-whitelist")),
            origins: Allowed::new(raw.list("cors")),
        },
        has_gateway: raw.bool("enable-grpc-gateway"),
        has_profiles: raw.bool("enable-pprof") || raw.text("log-level") == "debug",
    }
}

/// One address cannot serve both gRPC alone and HTTP alone.
pub(super) fn check_addresses(grpc: &[Url], http: &[Url]) -> Result<(), Refusal> {
    match http.iter().find(|url| grpc.contains(url)) {
        None => Ok(()),
        Some(url) => Err(Refusal::new(format!(
            "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {url}"
        ))),
    }
}

/// Members and clients cannot come to the same address.
pub(super) fn check_peers_apart(peers: &[Url], name: &str, urls: &[Url]) -> Result<(), Refusal> {
    let is_same = |a: &Url, b: &Url| (&a.host, a.port) == (&b.host, b.port);
    match urls
        .iter()
        .find(|url| peers.iter().any(|peer| is_same(peer, url)))
    {
        None => Ok(()),
        Some(url) => Err(Refusal::new(format!(
            "{name} and --listen-peer-urls both name {url}; give each an address of its own"
        ))),
    }
}
