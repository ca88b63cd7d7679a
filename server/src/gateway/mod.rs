//! The API as JSON over plain HTTP: what a request means and what its answer looks like. Knows no connection.
//!
//! [`routes`] finds the method that a path names, [`metadata`] makes a call's metadata of a request's headers,
//! [`replies`] words answers. Messages and JSON are [`wire::json`]'s business. How a call is made of a request, and
//! how its answers go back, is in `net::gateway_calls`: the same way as a call over gRPC.

pub mod metadata;
pub mod replies;
pub mod routes;
