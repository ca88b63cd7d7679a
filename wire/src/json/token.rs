//! Tokens of a text that is known to be one JSON value.
//!
//! Always true here: structure was checked before ([`super::scan`]), so commas and colons are skipped; what remains to be
//! refused is inside strings: bytes that are no UTF-8, and halves of surrogate pairs.

use std::borrow::Cow;
use std::ops::Range;

use super::JsonError;
use super::quote::quoted;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    ObjectOpen,
    ObjectClose,
    ListOpen,
    ListClose,
    /// A name or a value.
    String(Cow<'a, str>),
    Number(&'a [u8]),
    Bool(bool),
    Null,
    End,
}

pub(super) struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
    /// Where the last token is.
    pub(super) last: Range<usize>,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a [u8]) -> Tokens<'a> {
        Tokens {
            text,
            at: 0,
            last: 0..0,
        }
    }

    /// The last token as it was written.
    pub(super) fn raw(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(&self.text[self.last.clone()])
    }

    /// The first byte of the next token.
    pub(super) fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b':') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    pub(super) fn next(&mut self) -> Result<Token<'a>, JsonError> {
        let first = self.peek();
        let from = self.at;
        let rest = &self.text[from..];
        let word = |len: usize| from..(from + len).min(self.text.len());
        let (token, range) = match first {
            None => (Token::End, word(0)),
            Some(b'{') => (Token::ObjectOpen, word(1)),
            Some(b'}') => (Token::ObjectClose, word(1)),
            Some(b'[') => (Token::ListOpen, word(1)),
            Some(b']') => (Token::ListClose, word(1)),
            Some(b't') => (Token::Bool(true), word(4)),
            Some(b'f') => (Token::Bool(false), word(5)),
            Some(b'n') => (Token::Null, word(4)),
            Some(b'"') => {
                let (value, len) = self.string(from)?;
                (Token::String(value), word(len))
            }
            Some(_) => {
                let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                let len = rest.iter().take_while(|byte| is_part(byte)).count().max(1);
                (Token::Number(&rest[..len.min(rest.len())]), word(len))
            }
        };
        self.at = range.end;
        self.last = range;
        Ok(token)
    }

    /// The string that begins at `from`, and how long it is with its quotes.
    fn string(&self, from: usize) -> Result<(Cow<'a, str>, usize), JsonError> {
        let eof = || JsonError("proto: unexpected EOF".to_owned());
        let mut rest = &self.text[from + 1..];
        let mut value = Cow::Borrowed("");
        loop {
            let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
            let (piece, behind) = rest.split_at(plain.ok_or_else(eof)?);
            let piece = std::str::from_utf8(piece)
                .map_err(|_| self.syntax(from, "invalid UTF-8 in string"))?;
            if value.is_empty() {
                value = Cow::Borrowed(piece);
            } else {
                value.to_mut().push_str(piece);
            }
            rest = behind;
            if rest[0] == b'"' {
                return Ok((value, self.text.len() - rest.len() + 1 - from));
            }
            let refuse = |code: &[u8]| {
                let text = format!("invalid escape code {} in string", quoted(code));
                Err(self.syntax(from, &text))
            };
            let (character, len) = match rest.get(1).ok_or_else(eof)? {
                b'b' => ('\u{8}', 2),
                b'f' => ('\u{c}', 2),
                b'n' => ('\n', 2),
                b'r' => ('\r', 2),
                b't' => ('\t', 2),
                b'u' => {
                    let first = hex(rest.get(..6).ok_or_else(eof)?);
                    match first {
                        Some(unit @ 0xd800..0xe000) => {
                            let pair = rest.get(6..12).ok_or_else(eof)?;
                            let low = hex(pair).filter(|low| (0xdc00..0xe000).contains(low));
                            let Some(low) = low.filter(|_| unit < 0xdc00) else {
                                return refuse(pair);
                            };
                            let code = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                            (char::from_u32(code).unwrap_or('\u{fffd}'), 12)
                        }
                        Some(unit) => (char::from_u32(unit).unwrap_or('\u{fffd}'), 6),
                        None => return refuse(&rest[..6]),
                    }
                }
                other => (char::from(*other), 2),
            };
            value.to_mut().push(character);
            rest = &rest[len..];
        }
    }

    pub(super) fn syntax(&self, at: usize, text: &str) -> JsonError {
        let (line, column) = self.position(at);
        JsonError(format!(
            "proto: syntax error (line {line}:{column}): {text}"
        ))
    }

    /// The last token has no place here.
    pub(super) fn unexpected(&self) -> JsonError {
        self.syntax(self.last.start, &format!("unexpected token {}", self.raw()))
    }

    /// What is wrong with the meaning of the last token.
    pub(super) fn refuse(&self, at: usize, text: &str) -> JsonError {
        let (line, column) = self.position(at);
        JsonError(format!("proto: (line {line}:{column}): {text}"))
    }

    /// Line and column from 1; columns are characters.
    fn position(&self, at: usize) -> (usize, usize) {
        let before = &self.text[..at];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let from = before.iter().rposition(|byte| *byte == b'\n');
        let column = &before[from.map_or(0, |end| end + 1)..];
        // A character for each byte that does not continue one; bytes that are no UTF-8 count one each.
        let characters = column
            .utf8_chunks()
            .map(|chunk| chunk.valid().chars().count() + chunk.invalid().len());
        (line, characters.sum::<usize>() + 1)
    }
}

/// The unit that `\uXXXX` stands for.
fn hex(escape: &[u8]) -> Option<u32> {
    let digits = escape.strip_prefix(b"\\u")?;
    let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_hex)?;
    u32::from_str_radix(digits, 16).ok()
}
