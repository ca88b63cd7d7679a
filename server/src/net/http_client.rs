//! Who speaks HTTP on a connection, and what becomes of a request: refused, answered by an endpoint, or made a call.
//!
//! Always true here: every request over every version of HTTP comes through [`HttpClient::answer`], so hosts, origins
//! and paths mean the same for all. One value for each connection, on the net core that owns it.

use std::net::IpAddr;
use std::rc::{Rc, Weak};

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};

use crate::http1::{self, Access, Handler, ReplyBody, RequestBody};

use super::connection::Connection;
use super::core::NetCore;

/// What an address is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Serves {
    /// gRPC and HTTP.
    Everything,
    /// `--listen-client-urls`, where HTTP has addresses of its own.
    OnlyGrpc,
    /// `--listen-client-http-urls`.
    OnlyHttp,
    /// `--listen-metrics-urls`.
    OnlyMetrics,
}

impl Serves {
    pub fn has_grpc(self) -> bool {
        matches!(self, Serves::Everything | Serves::OnlyGrpc)
    }

    pub fn has_http(self) -> bool {
        self != Serves::OnlyGrpc
    }
}

/// What the operator wants of HTTP.
#[derive(Clone, Debug, Default)]
pub struct HttpSettings {
    pub access: Access,
    /// `--enable-grpc-gateway`.
    pub has_gateway: bool,
    /// `--enable-pprof`.
    pub has_profiles: bool,
}

/// The client of one connection.
pub struct HttpClient {
    pub(super) core: Weak<NetCore>,
    pub(super) connection: Weak<Connection>,
    pub(super) serves: Serves,
    pub(super) is_tls: bool,
    pub(super) peer: Option<IpAddr>,
}

impl Handler for HttpClient {
    async fn handle(
        self: Rc<Self>,
        request: Request<()>,
        body: RequestBody,
    ) -> Response<ReplyBody> {
        self.answer(request, body).await
    }
}

impl HttpClient {
    pub(super) fn new(core: &Rc<NetCore>, connection: &Rc<Connection>) -> Rc<HttpClient> {
        Rc::new(HttpClient {
            core: Rc::downgrade(core),
            connection: Rc::downgrade(connection),
            serves: connection.serves,
            is_tls: connection.is_tls,
            peer: connection.peer.map(|peer| peer.ip()),
        })
    }

    pub(super) async fn answer(
        &self,
        request: Request<()>,
        body: RequestBody,
    ) -> Response<ReplyBody> {
        if let Some(reply) = http1::refuse_hostless(&request) {
            return reply.map(ReplyBody::whole);
        }
        let Some(core) = self.core.upgrade() else {
            let mut reply = Response::new(ReplyBody::whole(Default::default()));
            *reply.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return reply;
        };
        let backend = core.http_backend.clone();
        if self.serves == Serves::OnlyMetrics {
            let reply = http1::answer(&*backend, &request, true).await;
            return reply.map(ReplyBody::whole);
        }
        let access: &Access = &core.http_settings.access;
        if !self.is_tls
            && let Some(reply) = access.refuse_host(&request)
        {
            return reply.map(ReplyBody::whole);
        }
        let origin = request.headers().get(header::ORIGIN).cloned();
        let mut reply = if request.method() == Method::OPTIONS {
            Response::new(ReplyBody::whole(Default::default()))
        } else {
            self.route(&core, request, body).await
        };
        let mut asked = http::HeaderMap::new();
        if let Some(origin) = origin {
            asked.insert(header::ORIGIN, origin);
        }
        access.put_cors(&asked, reply.headers_mut());
        reply
    }

    async fn route(
        &self,
        core: &Rc<NetCore>,
        request: Request<()>,
        body: RequestBody,
    ) -> Response<ReplyBody> {
        let path = http1::served_path(request.uri());
        if core.http_settings.has_gateway
            && let Some(path) = path.strip_prefix("/v3/")
        {
            return self.call(core, path, &request, body).await;
        }
        if core.http_settings.has_profiles && path.starts_with("/debug/pprof/") {
            return profiles(&path).map(|text| ReplyBody::whole(text.into()));
        }
        let backend = core.http_backend.clone();
        let reply = http1::answer(&*backend, &request, false).await;
        reply.map(ReplyBody::whole)
    }
}

/// There is no Go runtime to profile; says what there is instead.
fn profiles(path: &str) -> Response<&'static str> {
    const INSTEAD: &str = "pilaster has no Go runtime, so it has no Go profiles. \
        Profile the process from outside: `perf record -g -p PID -- sleep 30`, then `perf report`. \
        Times by stage are in /metrics (pilaster_stage_duration_seconds), memory in /debug/vars.\n";
    let mut reply = Response::new(INSTEAD);
    if path != "/debug/pprof/" {
        *reply.status_mut() = StatusCode::NOT_IMPLEMENTED;
    }
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(header::CONTENT_TYPE, text);
    reply
}
