//! Header compression (RFC 7541): [`decoder`] for what clients send, [`encoder`] for the few blocks
//! a gRPC server sends.
//!
//! [`field`] says what a field means to a server; [`huffman`], [`integer`] and the two tables are
//! the parts. Both directions keep state that the peer mirrors, so blocks must pass through in the
//! order of the wire, each exactly once.

pub mod decoder;
pub mod encoder;
pub mod field;
pub mod huffman;
pub mod integer;
pub mod static_table;
mod table;
