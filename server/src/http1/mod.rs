//! HTTP on the client port, over HTTP/1.1 and HTTP/2: version, health and metrics endpoints, and what the JSON API needs.
//!
//! In reading order: `sniff` tells what a connection speaks; `access` says who may ask; `backend` is what the endpoints
//! ask of the member; `endpoints` answers their requests; `body` is what requests and replies carry; `pipe` and `session` drive a kept HTTP/1.1 library without a
//! socket. HTTP/2 is the engine that speaks gRPC: it hands over what is none, see `net::plain_http`.
//!
//! Always true here: nothing touches a socket or a clock (but for the `Date` header); bytes go in, bytes
//! come out. Called by the net core that owns the connection. Which requests are the JSON API's, and what becomes of
//! them, is the net core's business (`net::http_client`).

mod access;
mod backend;
mod body;
mod endpoints;
mod pipe;
mod session;
mod sniff;

pub use access::{Access, Allowed, host, served_path};
pub use backend::{AlarmKind, Backend, CheckFamily, Versions};
pub use body::{BrokenBody, Pieces, ReplyBody, RequestBody};
pub use endpoints::{answer, refuse_hostless};
pub use session::{Handler, Http1Session};
pub use sniff::{SNIFF_BYTES_MAX, Sniff, sniff};
