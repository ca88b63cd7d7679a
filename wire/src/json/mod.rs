//! JSON and the messages: the mapping that etcd's gateway has, which is protobuf's own.
//!
//! [`decode`] turns one JSON value into an encoded message, [`encode`] an encoded message into JSON, both in one pass over
//! the text and without building the message in between. [`Values`] finds the values in a request's body. What a field is
//! called and holds stands in tables that the build derives from `proto/`, so a service that is added there has its JSON
//! at once.
//!
//! Always true here: nothing recurses as deep as its input, and memory is bounded by the text. Refusals are worded as etcd
//! words them: first by Go's JSON reader (is this JSON at all), then by protobuf's (does it fit the message). Two things are
//! not copied, because they differ from one build of etcd to the next: a space behind commas, and which kind of
//! space follows `proto:`.

mod base64;
mod decode;
mod encode;
mod number;
mod quote;
mod scan;
mod token;

pub use decode::decode;
pub use encode::{Escapes, encode, put_string};
pub use scan::Values;

mod tables {
    use super::{Field, Kind, Message};
    include!(concat!(env!("OUT_DIR"), "/json_tables.rs"));
}

/// A message type.
#[derive(Debug)]
struct Message {
    /// In the order of declaration, which is the order of the output; at most 32.
    fields: &'static [Field],
    /// Full names.
    oneofs: &'static [&'static str],
}

#[derive(Debug)]
struct Field {
    name: &'static str,
    json_name: &'static str,
    number: u32,
    kind: Kind,
    is_list: bool,
    oneof: Option<usize>,
}

/// The number behind a message or an enum is its place in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "which kinds occur is the tables' business")]
enum Kind {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    String,
    Bytes,
    Enum(usize),
    Message(usize),
}

impl Kind {
    /// As refusals call it.
    fn name(self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::Int32 => "int32",
            Kind::Int64 => "int64",
            Kind::Uint32 => "uint32",
            Kind::Uint64 => "uint64",
            Kind::String => "string",
            Kind::Bytes => "bytes",
            Kind::Enum(_) => "enum",
            Kind::Message(_) => "message",
        }
    }

    /// The low three bits of the field's tag.
    fn wire_type(self) -> u32 {
        match self {
            Kind::Bool | Kind::Int32 | Kind::Int64 => 0,
            Kind::Uint32 | Kind::Uint64 | Kind::Enum(_) => 0,
            Kind::String | Kind::Bytes | Kind::Message(_) => 2,
        }
    }
}

/// Names a message type for [`decode`] and [`encode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageType(usize);

/// The types of a method's request and reply; `path` is like `/etcdserverpb.KV/Range`.
pub fn method_types(path: &str) -> Option<(MessageType, MessageType)> {
    let found = tables::METHODS.iter().find(|(name, ..)| *name == path);
    found.map(|(_, input, output)| (MessageType(*input), MessageType(*output)))
}

/// Why a text is not taken, in the words a client of etcd gets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

#[cfg(test)]
mod tests;
