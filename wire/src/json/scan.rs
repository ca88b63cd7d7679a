//! Finds the values in a stream of bytes and says what is wrong with their JSON, in the words of Go's reader.
//!
//! Always true here: a byte is looked at once, however the stream is cut; what follows a value is not looked at before
//! that value was taken, so garbage behind a complete request refuses nothing.

use std::ops::Range;

use super::JsonError;
use super::quote::quoted_byte;

/// Objects and lists inside each other.
const DEPTH_MAX: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a value.
    Value,
    /// After `[`: a value or its end.
    FirstElement,
    /// After `{`: a name or its end.
    FirstName,
    /// After a comma in an object.
    Name,
    AfterName,
    /// Behind a value inside an object or list.
    AfterValue,
    InString,
    Escape,
    /// So many hexadecimal digits are missing.
    Hex(u8),
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
    /// `true`, `false` or `null`, and how many of its bytes have come.
    Literal(&'static [u8], u8),
}

/// Cuts a stream into JSON values. Feed it with [`push`](Self::push), ask it with [`next`](Self::next).
#[derive(Debug)]
pub struct Values {
    buffer: Vec<u8>,
    /// Looked at so far.
    at: usize,
    /// Where the value begins whose end is looked for.
    from: usize,
    state: State,
    /// True for an object.
    open: Vec<bool>,
    /// A string is a name, not a value.
    is_name: bool,
    is_over: bool,
    failed: Option<JsonError>,
}

impl Default for Values {
    fn default() -> Values {
        Values {
            buffer: Vec::new(),
            at: 0,
            from: 0,
            state: State::Value,
            open: Vec::new(),
            is_name: false,
            is_over: false,
            failed: None,
        }
    }
}

impl Values {
    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.from);
        self.at -= self.from;
        self.from = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Nothing more will come.
    pub fn end(&mut self) {
        self.is_over = true;
    }

    /// Whether [`end`](Self::end) was said.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.buffer.len()
    }

    /// Where the next value is in [`text`](Self::text). `Ok(None)` if more bytes are needed, or, after
    /// [`end`](Self::end), if there is none.
    #[allow(clippy::should_implement_trait, reason = "it borrows what it finds")]
    pub fn next(&mut self) -> Result<Option<Range<usize>>, JsonError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let found = self.find();
        if let Err(error) = &found {
            self.failed = Some(error.clone());
        }
        found
    }

    /// The bytes of a value that was found just now.
    pub fn text(&self, value: Range<usize>) -> &[u8] {
        &self.buffer[value]
    }

    fn find(&mut self) -> Result<Option<Range<usize>>, JsonError> {
        while let Some(&byte) = self.buffer.get(self.at) {
            if self.state == State::Value
                && self.open.is_empty()
                && matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
            {
                self.at += 1;
                self.from = self.at;
                continue;
            }
            let is_number = self.step(byte)?;
            if is_number && self.open.is_empty() {
                // This byte only told that the number before it is over.
                return Ok(Some(self.take()));
            }
            if is_number {
                continue;
            }
            self.at += 1;
            if self.state == State::AfterValue && self.open.is_empty() {
                return Ok(Some(self.take()));
            }
        }
        if !self.is_over || self.at == self.from {
            return Ok(None);
        }
        let is_number = matches!(
            self.state,
            State::Zero | State::Digits | State::Fraction | State::ExponentDigits
        );
        if is_number && self.open.is_empty() {
            return Ok(Some(self.take()));
        }
        Err(JsonError("unexpected EOF".to_owned()))
    }

    fn take(&mut self) -> Range<usize> {
        self.state = State::Value;
        let from = std::mem::replace(&mut self.from, self.at);
        from..self.at
    }

    /// True if the byte does not belong to the number that it ends, and must be looked at again.
    fn step(&mut self, byte: u8) -> Result<bool, JsonError> {
        let is_space = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let refuse = |context: &str| {
            Err(JsonError(format!(
                "invalid character {} {context}",
                quoted_byte(byte)
            )))
        };
        self.state = match self.state {
            State::Value
            | State::FirstElement
            | State::FirstName
            | State::Name
            | State::AfterName
            | State::AfterValue
                if is_space =>
            {
                self.state
            }
            State::FirstElement if byte == b']' => self.close(),
            State::Value | State::FirstElement => match byte {
                b'{' | b'[' if self.open.len() == DEPTH_MAX => return refuse("exceeded max depth"),
                b'{' => self.open(true),
                b'[' => self.open(false),
                b'"' => {
                    self.is_name = false;
                    State::InString
                }
                b'-' => State::Minus,
                b'0' => State::Zero,
                b'1'..=b'9' => State::Digits,
                b't' => State::Literal(b"true", 1),
                b'f' => State::Literal(b"false", 1),
                b'n' => State::Literal(b"null", 1),
                _ => return refuse("looking for beginning of value"),
            },
            State::FirstName if byte == b'}' => self.close(),
            State::FirstName | State::Name => match byte {
                b'"' => {
                    self.is_name = true;
                    State::InString
                }
                _ => return refuse("looking for beginning of object key string"),
            },
            State::AfterName => match byte {
                b':' => State::Value,
                _ => return refuse("after object key"),
            },
            State::AfterValue => match (self.open.last(), byte) {
                (Some(true), b',') => State::Name,
                (Some(true), b'}') => self.close(),
                (Some(true), _) => return refuse("after object key:value pair"),
                (_, b',') => State::Value,
                (_, b']') => self.close(),
                _ => return refuse("after array element"),
            },
            State::InString => match byte {
                b'"' if self.is_name => State::AfterName,
                b'"' => State::AfterValue,
                b'\\' => State::Escape,
                ..0x20 => return refuse("in string literal"),
                _ => State::InString,
            },
            State::Escape => match byte {
                b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => State::InString,
                b'u' => State::Hex(4),
                _ => return refuse("in string escape code"),
            },
            State::Hex(missing) => match byte {
                b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' if missing == 1 => State::InString,
                b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' => State::Hex(missing - 1),
                _ => return refuse("in \\u hexadecimal character escape"),
            },
            State::Minus => match byte {
                b'0' => State::Zero,
                b'1'..=b'9' => State::Digits,
                _ => return refuse("in numeric literal"),
            },
            State::Digits if byte.is_ascii_digit() => State::Digits,
            State::Zero | State::Digits if byte == b'.' => State::Point,
            State::Zero | State::Digits | State::Fraction if matches!(byte, b'e' | b'E') => {
                State::Exponent
            }
            State::Fraction | State::Point if byte.is_ascii_digit() => State::Fraction,
            State::Point => return refuse("after decimal point in numeric literal"),
            State::Exponent if matches!(byte, b'+' | b'-') => State::ExponentSign,
            State::Exponent | State::ExponentSign | State::ExponentDigits
                if byte.is_ascii_digit() =>
            {
                State::ExponentDigits
            }
            State::Exponent | State::ExponentSign => {
                return refuse("in exponent of numeric literal");
            }
            State::Zero | State::Digits | State::Fraction | State::ExponentDigits => {
                self.state = State::AfterValue;
                return Ok(true);
            }
            State::Literal(word, seen) => {
                let (next, seen) = (word[usize::from(seen)], seen + 1);
                if byte != next {
                    let word = String::from_utf8_lossy(word).into_owned();
                    let next = char::from(next);
                    return refuse(&format!("in literal {word} (expecting '{next}')"));
                }
                if usize::from(seen) == word.len() {
                    State::AfterValue
                } else {
                    State::Literal(word, seen)
                }
            }
        };
        Ok(false)
    }

    fn open(&mut self, is_object: bool) -> State {
        self.open.push(is_object);
        if is_object {
            State::FirstName
        } else {
            State::FirstElement
        }
    }

    fn close(&mut self) -> State {
        self.open.pop();
        State::AfterValue
    }
}
