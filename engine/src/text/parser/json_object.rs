//! One JSON object in a text that grows: where it ends, where its members are, and whether it can still become one.
//!
//! Strict as RFC 8259 and `serde_json` are, but for what needs more than a look at the bytes (unpaired surrogates in
//! escapes). Every byte is looked at once, however the text grows.

use std::ops::Range;

/// `serde_json`'s limit; deeper values it would refuse afterwards.
const DEPTH_MAX: usize = 127;

/// Where the scan of an object stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// What there is may become an object.
    Incomplete,
    /// The object has so many bytes.
    Complete(usize),
    /// No text that follows makes this an object.
    Malformed,
}

/// A member of the outermost object. Ranges are bytes of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// With its quotes.
    pub(super) key: Range<usize>,
    pub(super) value_start: usize,
    /// Once it is known.
    pub(super) value_end: Option<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct ObjectScanner {
    /// Bytes looked at.
    at: usize,
    open: Vec<Container>,
    expected: Expected,
    members: Vec<Member>,
    key_start: usize,
    key_end: usize,
    state: Scan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Container {
    Object,
    Array,
}

#[derive(Clone, Copy, Debug)]
enum Expected {
    Start,
    KeyOrEnd,
    Key,
    Colon,
    Value,
    ValueOrEnd,
    CommaOrEnd,
    String { is_key: bool, escape: Escape },
    Number(Number),
    Literal(&'static [u8]),
}

#[derive(Clone, Copy, Debug)]
enum Escape {
    None,
    Backslash,
    /// So many hexadecimal digits are missing.
    Unicode(u8),
}

/// The part of a number that the last byte belongs to.
#[derive(Clone, Copy, Debug)]
enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl ObjectScanner {
    pub(super) fn new() -> Self {
        Self {
            at: 0,
            open: Vec::new(),
            expected: Expected::Start,
            members: Vec::new(),
            key_start: 0,
            key_end: 0,
            state: Scan::Incomplete,
        }
    }

    /// Goes on to the end of `text`, which begins with all that was given before. The object begins at its first byte.
    pub(super) fn scan(&mut self, text: &str) -> Scan {
        while self.state == Scan::Incomplete {
            let Some(&byte) = text.as_bytes().get(self.at) else { break };
            match self.step(byte) {
                Some(taken) => self.at += usize::from(taken),
                None => self.state = Scan::Malformed,
            }
        }
        self.state
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Takes a byte, or tells by false that it has to be looked at again; `None` if it cannot stand here.
    fn step(&mut self, byte: u8) -> Option<bool> {
        match self.expected {
            Expected::String { is_key, escape } => self.string(byte, is_key, escape).map(|()| true),
            Expected::Number(number) => match number.next(byte) {
                Some(next) => {
                    self.expected = Expected::Number(next);
                    Some(true)
                }
                None if number.is_whole() => {
                    self.value_ended(self.at);
                    Some(false)
                }
                None => None,
            },
            Expected::Literal([next, rest @ ..]) => {
                if byte != *next {
                    return None;
                }
                self.expected = Expected::Literal(rest);
                if rest.is_empty() {
                    self.value_ended(self.at + 1);
                }
                Some(true)
            }
            Expected::Literal([]) => None,
            Expected::Start => (byte == b'{').then(|| self.begin(Container::Object)).map(|()| true),
            _ if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') => Some(true),
            _ => self.structure(byte).map(|()| true),
        }
    }

    /// A byte between tokens.
    fn structure(&mut self, byte: u8) -> Option<()> {
        match (self.expected, byte) {
            (Expected::KeyOrEnd, b'}')
            | (Expected::CommaOrEnd, b'}' | b']')
            | (Expected::ValueOrEnd, b']') => self.end(byte),
            (Expected::KeyOrEnd | Expected::Key, b'"') => {
                self.key_start = self.at;
                self.expected = Expected::String { is_key: true, escape: Escape::None };
                Some(())
            }
            (Expected::Colon, b':') => {
                self.expected = Expected::Value;
                Some(())
            }
            (Expected::CommaOrEnd, b',') => {
                self.expected = match self.open.last()? {
                    Container::Object => Expected::Key,
                    Container::Array => Expected::Value,
                };
                Some(())
            }
            (Expected::Value | Expected::ValueOrEnd, _) => self.value(byte),
            _ => None,
        }
    }

    fn value(&mut self, byte: u8) -> Option<()> {
        if self.open.len() == 1 {
            let key = self.key_start..self.key_end;
            self.members.push(Member { key, value_start: self.at, value_end: None });
        }
        match byte {
            b'{' | b'[' if self.open.len() >= DEPTH_MAX => return None,
            b'{' => self.begin(Container::Object),
            b'[' => self.begin(Container::Array),
            b'"' => self.expected = Expected::String { is_key: false, escape: Escape::None },
            b'-' => self.expected = Expected::Number(Number::Minus),
            b'0' => self.expected = Expected::Number(Number::Zero),
            b'1'..=b'9' => self.expected = Expected::Number(Number::Integer),
            b't' => self.expected = Expected::Literal(b"rue"),
            b'f' => self.expected = Expected::Literal(b"alse"),
            b'n' => self.expected = Expected::Literal(b"ull"),
            _ => return None,
        }
        Some(())
    }

    fn string(&mut self, byte: u8, is_key: bool, escape: Escape) -> Option<()> {
        let escape = match (escape, byte) {
            (Escape::None, b'"') => {
                if is_key {
                    self.key_end = self.at + 1;
                    self.expected = Expected::Colon;
                } else {
                    self.value_ended(self.at + 1);
                }
                return Some(());
            }
            (Escape::None, b'\\') => Escape::Backslash,
            (Escape::Backslash, b'u') => Escape::Unicode(4),
            (Escape::None, 0x20..)
            | (Escape::Backslash, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')
            | (Escape::Unicode(1), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => Escape::None,
            (Escape::Unicode(missing), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                Escape::Unicode(missing - 1)
            }
            _ => return None,
        };
        self.expected = Expected::String { is_key, escape };
        Some(())
    }

    fn begin(&mut self, container: Container) {
        self.open.push(container);
        self.expected = match container {
            Container::Object => Expected::KeyOrEnd,
            Container::Array => Expected::ValueOrEnd,
        };
    }

    fn end(&mut self, byte: u8) -> Option<()> {
        let container = if byte == b'}' { Container::Object } else { Container::Array };
        if self.open.pop()? != container {
            return None;
        }
        if self.open.is_empty() {
            self.state = Scan::Complete(self.at + 1);
        } else {
            self.value_ended(self.at + 1);
        }
        Some(())
    }

    fn value_ended(&mut self, end: usize) {
        if let (1, Some(member)) = (self.open.len(), self.members.last_mut()) {
            member.value_end = Some(end);
        }
        self.expected = Expected::CommaOrEnd;
    }
}

impl Number {
    /// The part that `byte` belongs to, if the number goes on with it.
    fn next(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Minus, b'0') => Some(Self::Zero),
            (Self::Minus, b'1'..=b'9') | (Self::Integer, b'0'..=b'9') => Some(Self::Integer),
            (Self::Zero | Self::Integer, b'.') => Some(Self::Point),
            (Self::Point | Self::Fraction, b'0'..=b'9') => Some(Self::Fraction),
            (Self::Zero | Self::Integer | Self::Fraction, b'e' | b'E') => Some(Self::Exponent),
            (Self::Exponent, b'+' | b'-') => Some(Self::ExponentSign),
            (Self::Exponent | Self::ExponentSign | Self::ExponentDigits, b'0'..=b'9') => {
                Some(Self::ExponentDigits)
            }
            _ => None,
        }
    }

    fn is_whole(self) -> bool {
        matches!(self, Self::Zero | Self::Integer | Self::Fraction | Self::ExponentDigits)
    }
}
