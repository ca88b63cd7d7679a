//! One encoded message into JSON.
//!
//! Always true here: fields come in the order of declaration, under the names of the schema; what has its default value is
//! left out, but for members of a oneof and for messages; 64-bit numbers are strings, bytes are base64. Messages inside
//! each other nest as deep as the schema and our own encoders let them, so this recurses.

use super::{Field, Kind, Message, MessageType, base64, tables};

/// Which characters are escaped in strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escapes {
    /// What JSON asks for: replies to unary calls.
    Plain,
    /// Also what a web page could take for markup: etcd writes the lines of streams so.
    Html,
}

/// Appends the JSON of an encoded message to `out`. What is broken in `bytes`, which our own encoders made, ends its
/// message.
pub fn encode(mut bytes: &[u8], message: MessageType, escapes: Escapes, out: &mut Vec<u8>) {
    put_message(&mut bytes, &tables::MESSAGES[message.0], escapes, 0, out);
}

/// Messages inside each other that are shown; transactions nest, and are bounded far below.
const DEPTH_MAX: usize = 512;

/// Where a field is: the tag of its first occurrence, and the value of its last, which counts if it is no list.
#[derive(Clone, Copy, Default)]
struct Place {
    first_tag: usize,
    last_value: usize,
    is_there: bool,
}

fn put_message(
    bytes: &mut &[u8],
    message: &Message,
    escapes: Escapes,
    depth: usize,
    out: &mut Vec<u8>,
) {
    let bytes = *bytes;
    let mut places = [Place::default(); 32];
    let mut rest = bytes;
    loop {
        let first_tag = bytes.len() - rest.len();
        let Some((tag, value)) = next_field(&mut rest) else {
            break;
        };
        let number = (tag >> 3) as u32;
        let place = message
            .fields
            .iter()
            .position(|field| field.number == number);
        if let Some(place) = place {
            let place = &mut places[place];
            if !place.is_there {
                place.first_tag = first_tag;
            }
            place.last_value = bytes.len() - value.len();
            place.is_there = true;
        }
    }
    out.push(b'{');
    let begin = out.len();
    for (field, place) in message.fields.iter().zip(places) {
        if !place.is_there {
            continue;
        }
        let start = out.len();
        if start != begin {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(field.name.as_bytes());
        out.extend_from_slice(b"\":");
        let is_shown = if field.is_list {
            put_list(bytes, field, place, escapes, depth, out);
            true
        } else {
            let mut value = &bytes[place.last_value..];
            put_value(&mut value, field, escapes, depth, out)
        };
        if !is_shown {
            out.truncate(start);
        }
    }
    out.push(b'}');
}

fn put_list(
    bytes: &[u8],
    field: &Field,
    place: Place,
    escapes: Escapes,
    depth: usize,
    out: &mut Vec<u8>,
) {
    out.push(b'[');
    let begin = out.len();
    let mut rest = &bytes[place.first_tag..];
    let tag = u64::from(field.number << 3 | field.kind.wire_type());
    let packed = u64::from(field.number << 3 | 2);
    while let Some((read, mut value)) = next_field(&mut rest) {
        let at = bytes.len() - value.len();
        if read == tag {
            put_element(&mut value, field, escapes, depth, begin, out);
        } else if read == packed {
            let mut elements = delimited(&mut value).unwrap_or_default();
            while !elements.is_empty() {
                put_element(&mut elements, field, escapes, depth, begin, out);
            }
        }
        if at >= place.last_value {
            break;
        }
    }
    out.push(b']');
}

fn put_element(
    value: &mut &[u8],
    field: &Field,
    escapes: Escapes,
    depth: usize,
    begin: usize,
    out: &mut Vec<u8>,
) {
    if out.len() != begin {
        out.push(b',');
    }
    let start = out.len();
    if !put_value(value, field, escapes, depth, out) {
        out.truncate(start);
        put_default(field.kind, out);
    }
}

/// What an element of a list that is zero or empty looks like.
fn put_default(kind: Kind, out: &mut Vec<u8>) {
    let text: &[u8] = match kind {
        Kind::Bool => b"false",
        Kind::Int32 | Kind::Uint32 => b"0",
        Kind::Int64 | Kind::Uint64 => b"\"0\"",
        Kind::String | Kind::Bytes => b"\"\"",
        Kind::Enum(kind) => return put_enum(kind, 0, out),
        Kind::Message(_) => b"{}",
    };
    out.extend_from_slice(text);
}

/// Takes one value off `bytes` and appends it. False if it is a default that is not shown.
fn put_value(
    bytes: &mut &[u8],
    field: &Field,
    escapes: Escapes,
    depth: usize,
    out: &mut Vec<u8>,
) -> bool {
    let is_shown = field.oneof.is_some();
    if let Kind::String | Kind::Bytes | Kind::Message(_) = field.kind {
        let value = delimited(bytes).unwrap_or_default();
        match field.kind {
            Kind::Message(_) if depth == DEPTH_MAX => out.extend_from_slice(b"{}"),
            Kind::Message(inner) => {
                let inner = &tables::MESSAGES[inner];
                put_message(&mut { value }, inner, escapes, depth + 1, out);
            }
            _ if value.is_empty() && !is_shown => return false,
            Kind::String => put_string(&String::from_utf8_lossy(value), escapes, out),
            _ => {
                out.push(b'"');
                base64::encode(value, out);
                out.push(b'"');
            }
        }
        return true;
    }
    let value = varint(bytes).unwrap_or_default();
    if value == 0 && !is_shown {
        return false;
    }
    match field.kind {
        Kind::Bool => out.extend_from_slice(if value == 0 { b"false" } else { b"true" }),
        Kind::Int32 => put_signed(value as i32 as i64, out),
        Kind::Uint32 => put_decimal(value & 0xffff_ffff, out),
        Kind::Enum(kind) => put_enum(kind, value as i32, out),
        Kind::Int64 | Kind::Uint64 => {
            out.push(b'"');
            match field.kind {
                Kind::Int64 => put_signed(value as i64, out),
                _ => put_decimal(value, out),
            }
            out.push(b'"');
        }
        Kind::String | Kind::Bytes | Kind::Message(_) => unreachable!("answered above"),
    }
    true
}

fn put_enum(kind: usize, value: i32, out: &mut Vec<u8>) {
    match tables::ENUMS[kind]
        .iter()
        .find(|(_, known)| *known == value)
    {
        Some((name, _)) => {
            out.push(b'"');
            out.extend_from_slice(name.as_bytes());
            out.push(b'"');
        }
        None => put_signed(i64::from(value), out),
    }
}

fn put_signed(value: i64, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    put_decimal(value.unsigned_abs(), out);
}

fn put_decimal(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a string with its quotes.
pub fn put_string(text: &str, escapes: Escapes, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let html = escapes == Escapes::Html;
    out.push(b'"');
    for character in text.chars() {
        let code = u32::from(character);
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\u{2028}' | '\u{2029}' | '<' | '>' | '&' if html => {
                let digit = |shift: u32| HEX[(code >> shift) as usize & 15];
                out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
            }
            ..' ' => {
                let digit = |shift: u32| HEX[(code >> shift) as usize & 15];
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(4), digit(0)]);
            }
            _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

// ---- the encoding of messages ----

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *bytes = &bytes[at + 1..];
            return Some(value);
        }
    }
    *bytes = &[];
    None
}

fn delimited<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = varint(bytes)?;
    let (value, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(value)
}

/// The tag of the next field, and the bytes behind it; `bytes` moves past its value.
fn next_field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    if bytes.is_empty() {
        return None;
    }
    let tag = varint(bytes)?;
    let value = *bytes;
    skip_value(tag, bytes)?;
    Some((tag, value))
}

fn skip_value(tag: u64, bytes: &mut &[u8]) -> Option<()> {
    match tag & 7 {
        0 => drop(varint(bytes)?),
        1 => *bytes = bytes.get(8..)?,
        2 => drop(delimited(bytes)?),
        5 => *bytes = bytes.get(4..)?,
        _ => return None,
    }
    Some(())
}
