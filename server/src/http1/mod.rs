//! HTTP on the client port: version, health and metrics endpoints, over HTTP/1.1 and HTTP/2.
//!
//! In reading order: `sniff` tells what a connection speaks; `backend` is what the endpoints ask of the
//! member; `endpoints` answers requests; `pipe` and `session` drive a kept HTTP/1.1 library without a
//! socket. HTTP/2 is the engine that speaks gRPC: it hands over what is none, see `net::plain_http`.
//!
//! Always true here: nothing touches a socket or a clock (but for the `Date` header); bytes go in, bytes
//! come out. Called by the net core that owns the connection. Never on the hot path. The JSON gateway is
//! not here yet; it will be one more arm in `endpoints::route`.

mod backend;
mod endpoints;
mod pipe;
mod session;
mod sniff;

pub use backend::{AlarmKind, Backend, CheckFamily, Versions};
pub use endpoints::answer;
pub use session::Http1Session;
pub use sniff::{SNIFF_BYTES_MAX, Sniff, sniff};
