//! One JSON value into one encoded message.
//!
//! Always true here: fields are written in the order of the text, which protobuf allows; the length of an inner message is
//! padded to five bytes, so nothing that was written is moved. A field that the message does not have is skipped, as
//! etcd's gateway does.

use super::token::{Token, Tokens};
use super::{Field, JsonError, Kind, Message, MessageType, base64, number, tables};

/// Room left for the length of an inner message.
const LENGTH_BYTES: usize = 5;

/// A message whose object is open.
struct Open {
    message: &'static Message,
    /// Fields and oneofs that have come, a bit for each by its place.
    fields: u32,
    oneofs: u32,
    /// Where its content begins in the output.
    from: usize,
    /// The field whose list is open.
    list: Option<&'static Field>,
}

impl Open {
    fn new(message: usize, from: usize) -> Open {
        Open {
            message: &tables::MESSAGES[message],
            fields: 0,
            oneofs: 0,
            from,
            list: None,
        }
    }
}

/// Appends to `out` the message that `text`, one JSON value as [`Values`](super::Values) finds it, stands for.
pub fn decode(text: &[u8], message: MessageType, out: &mut Vec<u8>) -> Result<(), JsonError> {
    let mut tokens = Tokens::new(text);
    expect_object(&mut tokens)?;
    let mut stack = vec![Open::new(message.0, out.len())];
    loop {
        let is_inner = stack.len() > 1;
        let Some(open) = stack.last_mut() else {
            break;
        };
        let inner = if let Some(field) = open.list {
            if tokens.peek() == Some(b']') {
                tokens.next()?;
                open.list = None;
                continue;
            }
            put_value(&mut tokens, field, out)?
        } else {
            match tokens.next()? {
                Token::String(name) => {
                    let Some(place) = find(open.message, &name) else {
                        skip(&mut tokens)?;
                        continue;
                    };
                    begin_field(&mut tokens, open, place, out)?
                }
                Token::ObjectClose => {
                    close(open, out, is_inner);
                    stack.pop();
                    continue;
                }
                _ => return Err(tokens.unexpected()),
            }
        };
        if let Some(inner) = inner {
            expect_object(&mut tokens)?;
            out.extend_from_slice(&[0; LENGTH_BYTES]);
            stack.push(Open::new(inner, out.len()));
        }
    }
    match tokens.next()? {
        Token::End => Ok(()),
        _ => Err(tokens.unexpected()),
    }
}

fn expect_object(tokens: &mut Tokens<'_>) -> Result<(), JsonError> {
    match tokens.next()? {
        Token::ObjectOpen => Ok(()),
        _ => Err(tokens.unexpected()),
    }
}

fn find(message: &Message, name: &str) -> Option<usize> {
    let fields = message.fields;
    let by_json = fields.iter().position(|field| field.json_name == name);
    by_json.or_else(|| fields.iter().position(|field| field.name == name))
}

/// Takes a field whose name was read. Gives the type of the message that it holds and that is to be read next.
fn begin_field(
    tokens: &mut Tokens<'_>,
    open: &mut Open,
    place: usize,
    out: &mut Vec<u8>,
) -> Result<Option<usize>, JsonError> {
    let field = &open.message.fields[place];
    let (at, name) = (tokens.last.start, tokens.raw());
    if open.fields & 1 << place != 0 {
        return Err(tokens.refuse(at, &format!("duplicate field {name}")));
    }
    open.fields |= 1 << place;
    if tokens.peek() == Some(b'n') {
        tokens.next()?;
        return Ok(None);
    }
    if field.is_list {
        return match tokens.next()? {
            Token::ListOpen => {
                open.list = Some(field);
                Ok(None)
            }
            _ => Err(tokens.unexpected()),
        };
    }
    if let Some(oneof) = field.oneof {
        if open.oneofs & 1 << oneof != 0 {
            let oneof = open.message.oneofs[oneof];
            let text = format!("error parsing {name}, oneof {oneof} is already set");
            return Err(tokens.refuse(at, &text));
        }
        open.oneofs |= 1 << oneof;
    }
    put_value(tokens, field, out)
}

/// Reads a value and appends it with its tag; of a message only the tag.
fn put_value(
    tokens: &mut Tokens<'_>,
    field: &'static Field,
    out: &mut Vec<u8>,
) -> Result<Option<usize>, JsonError> {
    let put_tag = |out: &mut Vec<u8>| {
        put_varint(u64::from(field.number << 3 | field.kind.wire_type()), out);
    };
    if let Kind::Message(inner) = field.kind {
        put_tag(out);
        return Ok(Some(inner));
    }
    let token = tokens.next()?;
    let is_taken = match (&token, field.kind) {
        (Token::String(text), Kind::String) => {
            put_tag(out);
            put_varint(text.len() as u64, out);
            out.extend_from_slice(text.as_bytes());
            true
        }
        (Token::String(text), Kind::Bytes) => {
            put_tag(out);
            put_bytes(text.as_bytes(), out)
        }
        (Token::String(name), Kind::Enum(kind)) => {
            // A name that the enum does not have is no value, and no fault.
            let value = tables::ENUMS[kind].iter().find(|(known, _)| known == name);
            if let Some((_, value)) = value {
                put_tag(out);
                put_varint(i64::from(*value) as u64, out);
            }
            true
        }
        (token, kind) => match scalar(token, kind) {
            Some(value) => {
                put_tag(out);
                put_varint(value, out);
                true
            }
            None => false,
        },
    };
    if is_taken {
        return Ok(None);
    }
    let (kind, name, raw) = (field.kind.name(), field.json_name, tokens.raw());
    let text = format!("invalid value for {kind} field {name}: {raw}");
    Err(tokens.refuse(tokens.last.start, &text))
}

/// What a number or a truth is as a varint.
fn scalar(token: &Token<'_>, kind: Kind) -> Option<u64> {
    let value = match token {
        Token::Bool(value) => return (kind == Kind::Bool).then_some(u64::from(*value)),
        Token::Number(text) => number::whole(text)?,
        Token::String(text) => {
            let text = text.as_bytes();
            if number::length(text) != Some(text.len()) {
                return None;
            }
            number::whole(text)?
        }
        _ => return None,
    };
    match kind {
        Kind::Int32 | Kind::Enum(_) => i32::try_from(value).ok().map(|v| i64::from(v) as u64),
        Kind::Int64 => i64::try_from(value).ok().map(|v| v as u64),
        Kind::Uint32 => u32::try_from(value).ok().map(u64::from),
        Kind::Uint64 => u64::try_from(value).ok(),
        _ => None,
    }
}

/// Appends decoded base64 with its length. False if it is none; what was appended means nothing then.
fn put_bytes(text: &[u8], out: &mut Vec<u8>) -> bool {
    // The length's own length is known before the bytes are, but for line ends inside them.
    let start = out.len();
    put_varint((text.len() / 4 * 3) as u64, out);
    let room = out.len() - start;
    let from = out.len();
    if base64::decode(text, out).is_none() {
        return false;
    }
    let bytes = (out.len() - from) as u64;
    let mut length = Vec::with_capacity(room);
    put_varint(bytes, &mut length);
    if length.len() == room {
        out[start..from].copy_from_slice(&length);
    } else {
        out.splice(start..from, length);
    }
    true
}

/// Fills in the length of a message that is whole.
fn close(open: &Open, out: &mut [u8], is_inner: bool) {
    if !is_inner {
        return;
    }
    let mut length = out.len() - open.from;
    for (at, byte) in out[open.from - LENGTH_BYTES..open.from]
        .iter_mut()
        .enumerate()
    {
        let more = if at + 1 < LENGTH_BYTES { 0x80 } else { 0 };
        *byte = (length & 0x7f) as u8 | more;
        length >>= 7;
    }
    assert_eq!(length, 0, "a request is far below 32 GiB");
}

/// Skips the value of a field that nobody knows.
fn skip(tokens: &mut Tokens<'_>) -> Result<(), JsonError> {
    let mut open = 0usize;
    loop {
        match tokens.next()? {
            Token::ObjectOpen | Token::ListOpen => open += 1,
            Token::ObjectClose | Token::ListClose => open = open.saturating_sub(1),
            Token::End => return Err(JsonError("proto: unexpected EOF".to_owned())),
            _ => {}
        }
        if open == 0 {
            return Ok(());
        }
    }
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
