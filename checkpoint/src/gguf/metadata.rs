use std::collections::BTreeMap;

use super::GgufError;
use super::cursor::Cursor;
use crate::json::shown_name;

/// Most keys that are read; files have some fifty.
const KEYS_MAX: u64 = 4096;
/// Longest key; the format's own limit is 65 535, real ones stay below 100.
const KEY_BYTES_MAX: usize = 256;
/// Most entries of a list: merges of the largest vocabularies are below 600 000.
const ENTRIES_MAX: u64 = 1 << 22;

/// One value of the metadata. Numbers keep what they say, not how wide they were stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Integer(i128),
    Float(f64),
    Flag(bool),
    Text(String),
    List(List),
}

/// Entries of one type; a list of lists occurs in no file that we serve and is refused.
#[derive(Clone, Debug, PartialEq)]
pub enum List {
    Integers(Vec<i64>),
    Floats(Vec<f64>),
    Flags(Vec<bool>),
    Texts(Vec<String>),
}

impl Value {
    /// In few words, for a message.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::Text(text) => shown_name(text),
            Self::List(list) => format!("a list of {} values", list.len()),
        }
    }
}

impl List {
    pub const fn len(&self) -> usize {
        match self {
            Self::Integers(values) => values.len(),
            Self::Floats(values) => values.len(),
            Self::Flags(values) => values.len(),
            Self::Texts(values) => values.len(),
        }
    }

    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// All metadata, by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(pub(crate) BTreeMap<String, Value>);

impl Metadata {
    pub(super) fn parse(cursor: &mut Cursor<'_>, count: u64) -> Result<Self, GgufError> {
        if count > KEYS_MAX {
            return Err(GgufError::Count { what: "metadata keys", count, limit: KEYS_MAX });
        }
        let mut entries = BTreeMap::new();
        for _ in 0..count {
            let key = cursor.text()?;
            if key.is_empty() || key.len() > KEY_BYTES_MAX {
                return Err(GgufError::Key);
            }
            let kind = cursor.u32()?;
            if entries.insert(key.to_owned(), value(cursor, key, kind)?).is_some() {
                return Err(GgufError::Twice { key: shown_name(key) });
            }
        }
        Ok(Self(entries))
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Types of values as the format numbers them.
mod kind {
    pub(super) const UINT8: u32 = 0;
    pub(super) const INT8: u32 = 1;
    pub(super) const UINT16: u32 = 2;
    pub(super) const INT16: u32 = 3;
    pub(super) const UINT32: u32 = 4;
    pub(super) const INT32: u32 = 5;
    pub(super) const FLOAT32: u32 = 6;
    pub(super) const BOOL: u32 = 7;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
    pub(super) const UINT64: u32 = 10;
    pub(super) const INT64: u32 = 11;
    pub(super) const FLOAT64: u32 = 12;
}

fn value(cursor: &mut Cursor<'_>, key: &str, kind: u32) -> Result<Value, GgufError> {
    Ok(match kind {
        kind::FLOAT32 | kind::FLOAT64 => Value::Float(float(cursor, kind)?),
        kind::BOOL => Value::Flag(flag(cursor, key)?),
        kind::STRING => Value::Text(cursor.text()?.to_owned()),
        kind::ARRAY => Value::List(list(cursor, key)?),
        _ => Value::Integer(integer(cursor, key, kind)?),
    })
}

fn integer(cursor: &mut Cursor<'_>, key: &str, kind: u32) -> Result<i128, GgufError> {
    Ok(match kind {
        kind::UINT8 => u8::from_le_bytes(cursor.array()?).into(),
        kind::INT8 => i8::from_le_bytes(cursor.array()?).into(),
        kind::UINT16 => u16::from_le_bytes(cursor.array()?).into(),
        kind::INT16 => i16::from_le_bytes(cursor.array()?).into(),
        kind::UINT32 => cursor.u32()?.into(),
        kind::INT32 => i32::from_le_bytes(cursor.array()?).into(),
        kind::UINT64 => cursor.u64()?.into(),
        kind::INT64 => i64::from_le_bytes(cursor.array()?).into(),
        _ => return Err(GgufError::ValueType { key: shown_name(key), kind }),
    })
}

fn float(cursor: &mut Cursor<'_>, kind: u32) -> Result<f64, GgufError> {
    Ok(if kind == kind::FLOAT32 {
        f32::from_le_bytes(cursor.array()?).into()
    } else {
        f64::from_le_bytes(cursor.array()?)
    })
}

fn flag(cursor: &mut Cursor<'_>, key: &str) -> Result<bool, GgufError> {
    match cursor.array()? {
        [0] => Ok(false),
        [1] => Ok(true),
        [byte] => Err(GgufError::Flag { key: shown_name(key), byte }),
    }
}

/// A list grows as its entries are read, so a count that the file does not hold costs no memory.
fn list(cursor: &mut Cursor<'_>, key: &str) -> Result<List, GgufError> {
    let kind = cursor.u32()?;
    let count = cursor.u64()?;
    if count > ENTRIES_MAX {
        return Err(GgufError::Count { what: "entries of a list", count, limit: ENTRIES_MAX });
    }
    Ok(match kind {
        kind::FLOAT32 | kind::FLOAT64 => {
            List::Floats((0..count).map(|_| float(cursor, kind)).collect::<Result<_, _>>()?)
        }
        kind::BOOL => List::Flags((0..count).map(|_| flag(cursor, key)).collect::<Result<_, _>>()?),
        kind::STRING => {
            List::Texts((0..count).map(|_| cursor.text().map(str::to_owned)).collect::<Result<_, _>>()?)
        }
        _ => List::Integers(
            (0..count)
                .map(|_| {
                    let number = integer(cursor, key, kind)?;
                    i64::try_from(number).map_err(|_| GgufError::ValueType { key: shown_name(key), kind })
                })
                .collect::<Result<_, _>>()?,
        ),
    })
}
