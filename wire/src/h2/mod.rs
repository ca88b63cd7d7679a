//! The vocabulary of HTTP/2 (RFC 9113) and header compression (RFC 7541), server side, without I/O.
//!
//! Read in this order: [`frame`] (the 9-byte header, types, flags, how frames are written),
//! [`error`] (error codes and how a connection ends), [`flow`] (windows), [`budget`] (how often a
//! peer may do what costs us), [`hpack`] (header compression). The state machine that ties them
//! together is [`crate::grpc::Connection`]: it is one with gRPC because what makes small calls fast
//! (a message read in place, an answer written in one piece) cuts across both layers. Nothing here
//! knows what a request means; there is no client side.

pub mod budget;
pub mod error;
pub mod flow;
pub mod frame;
pub mod hpack;
