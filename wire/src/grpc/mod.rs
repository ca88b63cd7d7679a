//! gRPC server over HTTP/2, without I/O: bytes in, calls out, answers in, bytes out.
//!
//! ```
//! use std::sync::Arc;
//! use wire::grpc::{Call, CallKind, CancelReason, Connection, Limits, MethodId, Responder, Route, Service, StreamId};
//!
//! struct Echo;
//! impl Service for Echo {
//!     fn route(&mut self, path: &[u8]) -> Route {
//!         match path {
//!             b"/demo.Echo/Say" => Route::Method(MethodId(0), CallKind::Unary),
//!             _ => Route::UnknownService,
//!         }
//!     }
//!     fn on_message(&mut self, call: &Call<'_>, message: &[u8], out: &mut Responder<'_>) {
//!         out.unary(call.stream, |reply| reply.extend_from_slice(message));
//!     }
//!     fn on_half_close(&mut self, _: &Call<'_>, _: &mut Responder<'_>) {}
//!     fn on_cancel(&mut self, _: StreamId, _: MethodId, _: CancelReason) {}
//! }
//!
//! let mut connection = Connection::new(Arc::new(Limits::default()), 0);
//! connection.receive(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, &mut Echo)?;
//! let to_send = connection.take_output(Vec::new()); // our SETTINGS frame
//! # assert!(!to_send.is_empty());
//! # Ok::<(), wire::h2::error::ConnectionError>(())
//! ```
//!
//! Read in this order: [`service`] (what the owner implements and what a call is), [`Connection`]
//! (the engine), [`Responder`] (how answers go out), [`limits`] (every bound), [`stats`] (every
//! counter), [`code`] (status codes).
//!
//! One connection belongs to one core. Time is a parameter. Where RFC 9113 and grpc-go leave a
//! choice, this does what grpc-go does, because that is what etcd's clients have met so far. There
//! is no client side and no compression. Requests that are not gRPC reach the service whole, if it wants
//! them: the same port shows health, metrics and the API as JSON, whose calls are [`LocalCalls`].

pub mod code;
mod connection;
pub mod limits;
mod local;
mod metadata;
mod responder;
pub mod service;
pub mod stats;

pub use code::Code;
pub use connection::Connection;
pub use limits::Limits;
pub use local::{LocalAnswer, LocalCalls};
pub use metadata::{Metadata, MetadataBuf};
pub use responder::Responder;
pub use service::{Call, CallKind, CancelReason, MethodId, PlainRequest, Route, Service, StreamId};
pub use stats::Stats;

pub use crate::h2::error::{ConnectionError, ErrorCode};
