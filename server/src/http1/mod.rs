//! HTTP/1.1 on the client port: version, health and metrics endpoints.
//!
//! In reading order: `sniff` tells what a connection speaks; `backend` is what the endpoints ask of the
//! member; `endpoints` answers requests; `pipe` and `session` drive a kept HTTP library without a socket.
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
pub use session::Http1Session;
pub use sniff::{SNIFF_BYTES_MAX, Sniff, sniff};
