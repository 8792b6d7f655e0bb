use std::sync::Arc;

use thiserror::Error;

use super::cursor::Cursor;
use super::metadata::{Metadata, Value};
use super::names::canonical_name;
use crate::header::{RowOrder, Shard, Tensor};
use crate::json::shown_name;
use crate::{Dtype, RowError};

/// Longest header that is read: the tokenizer is in it. The largest vocabularies, of 262 000 tokens, take about 20 MiB.
pub const GGUF_HEADER_BYTES_MAX: u64 = 64 << 20;

/// Most tensors; the largest dense models have about 2000.
const TENSORS_MAX: u64 = 1 << 16;
const DIMENSIONS_MAX: u32 = 4;
/// The format's limit of a tensor's name.
const NAME_BYTES_MAX: usize = 64;
/// Where the metadata does not say.
const ALIGNMENT_DEFAULT: u64 = 32;
const ALIGNMENT_MAX: u64 = 1 << 20;

/// Why a GGUF file is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GgufError {
    #[error("header ends before it is complete")]
    Truncated,
    #[error("file does not begin with GGUF")]
    Magic,
    #[error("version {version} is not supported; supported: 2 and 3, little-endian")]
    Version { version: u32 },
    #[error("{count} {what}, allowed are {limit}")]
    Count { what: &'static str, count: u64, limit: u64 },
    #[error("text of {bytes} bytes is longer than the limit of {limit}")]
    TextTooLong { bytes: u64, limit: u64 },
    #[error("text before byte {position} is not UTF-8")]
    NotUtf8 { position: usize },
    #[error("a metadata key is empty or too long")]
    Key,
    #[error("{key} occurs twice")]
    Twice { key: String },
    #[error("metadata {key} has a value of type {kind}, which is not read")]
    ValueType { key: String, kind: u32 },
    #[error("metadata {key} is a flag of value {byte}")]
    Flag { key: String, byte: u8 },
    #[error("general.alignment is {value}; must be a power of two from 8 to {ALIGNMENT_MAX}")]
    Alignment { value: String },
    #[error("a tensor's name is empty or longer than {NAME_BYTES_MAX} bytes")]
    Name,
    #[error("tensor {tensor} has {dimensions} dimensions; allowed are 1 to {DIMENSIONS_MAX}")]
    Dimensions { tensor: String, dimensions: u32 },
    #[error("tensor {tensor} is stored as {dtype}; supported: F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q6_K")]
    Dtype { tensor: String, dtype: String },
    #[error("tensor {tensor}: {source}")]
    Row { tensor: String, source: RowError },
    #[error("tensor {tensor} is larger than 64 bits can count")]
    TooLarge { tensor: String },
    #[error("tensor {tensor} begins at {begin} of the data; the one before it makes that {expected}")]
    GapOrOverlap { tensor: String, begin: u64, expected: u64 },
    #[error("tensor data ends at byte {data_end} of a file of {file_bytes} bytes")]
    FileLength { data_end: u64, file_bytes: u64 },
}

impl GgufError {
    /// Whether the bytes themselves are damaged, as opposed to saying something that is not supported.
    pub const fn is_damage(&self) -> bool {
        !matches!(self, Self::Version { .. } | Self::Dtype { .. })
    }
}

/// A file's header.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    pub metadata: Metadata,
    /// Every tensor, under the name that transformers gives it where it has one.
    pub shard: Shard,
    /// Bytes before the tensors' data, padding included.
    pub bytes: u64,
}

struct Entry {
    name: String,
    shape: Vec<u64>,
    dtype: Dtype,
    bytes: u64,
    begin: u64,
}

impl Header {
    /// Reads a header from a prefix of the file; [`GgufError::Truncated`] where the prefix ends first.
    ///
    /// Tensors must follow one another from the padded end of the header to the end of the file, each padded to the
    /// alignment, so that every byte of the file is accounted for exactly once. Of the padding behind the last one, or behind
    /// a header without tensors, any part may be missing.
    pub fn parse(file: &str, file_bytes: u64, prefix: &[u8]) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(prefix);
        if &cursor.array()? != b"GGUF" {
            return Err(GgufError::Magic);
        }
        let version = cursor.u32()?;
        if !matches!(version, 2 | 3) {
            return Err(GgufError::Version { version });
        }
        let (tensor_count, key_count) = (cursor.u64()?, cursor.u64()?);
        if tensor_count > TENSORS_MAX {
            return Err(GgufError::Count { what: "tensors", count: tensor_count, limit: TENSORS_MAX });
        }
        let metadata = Metadata::parse(&mut cursor, key_count)?;
        let alignment = alignment(&metadata)?;
        let entries = (0..tensor_count).map(|_| entry(&mut cursor)).collect::<Result<Vec<_>, _>>()?;
        let header_end = cursor.position() as u64;
        let bytes = header_end.next_multiple_of(alignment);
        if entries.is_empty() && (header_end..=bytes).contains(&file_bytes) {
            let shard = Shard { file: Arc::from(file), tensors: Vec::new() };
            return Ok(Self { metadata, shard, bytes });
        }
        let shard = place(file, file_bytes, bytes, alignment, entries)?;
        Ok(Self { metadata, shard, bytes })
    }
}

fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    match metadata.get("general.alignment") {
        None => Ok(ALIGNMENT_DEFAULT),
        Some(value) => match value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            _ => None,
        }
        .filter(|bytes| bytes.is_power_of_two() && (8..=ALIGNMENT_MAX).contains(bytes))
        .ok_or_else(|| GgufError::Alignment { value: value.shown() }),
    }
}

fn entry(cursor: &mut Cursor<'_>) -> Result<Entry, GgufError> {
    let name = cursor.text()?;
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(GgufError::Name);
    }
    let dimensions = cursor.u32()?;
    if !(1..=DIMENSIONS_MAX).contains(&dimensions) {
        return Err(GgufError::Dimensions { tensor: shown_name(name), dimensions });
    }
    // Columns first in the file.
    let mut shape = (0..dimensions).map(|_| cursor.u64()).collect::<Result<Vec<_>, _>>()?;
    let columns = shape[0];
    let dtype = dtype(name, cursor.u32()?)?;
    let row_bytes =
        dtype.row_bytes(columns).map_err(|source| GgufError::Row { tensor: shown_name(name), source })?;
    let bytes = shape[1..]
        .iter()
        .try_fold(row_bytes, |product, size| product.checked_mul(*size))
        .ok_or_else(|| GgufError::TooLarge { tensor: shown_name(name) })?;
    shape.reverse();
    Ok(Entry { name: name.to_owned(), shape, dtype, bytes, begin: cursor.u64()? })
}

fn dtype(tensor: &str, number: u32) -> Result<Dtype, GgufError> {
    // Numbers of ggml's types.
    let refused = |dtype: &str| Err(GgufError::Dtype { tensor: shown_name(tensor), dtype: dtype.to_owned() });
    match number {
        0 => Ok(Dtype::F32),
        1 => Ok(Dtype::F16),
        2 => Ok(Dtype::Q4_0),
        8 => Ok(Dtype::Q8_0),
        12 => Ok(Dtype::Q4K),
        14 => Ok(Dtype::Q6K),
        30 => Ok(Dtype::Bf16),
        3 => refused("Q4_1"),
        6 => refused("Q5_0"),
        7 => refused("Q5_1"),
        10 => refused("Q2_K"),
        11 => refused("Q3_K"),
        13 => refused("Q5_K"),
        20 => refused("IQ4_NL"),
        23 => refused("IQ4_XS"),
        39 => refused("MXFP4"),
        other => refused(&format!("ggml type {other}")),
    }
}

fn place(
    file: &str,
    file_bytes: u64,
    data_start: u64,
    alignment: u64,
    mut entries: Vec<Entry>,
) -> Result<Shard, GgufError> {
    entries.sort_by_key(|entry| entry.begin);
    let file: Arc<str> = Arc::from(file);
    let mut tensors = Vec::with_capacity(entries.len());
    let (mut expected, mut data_end) = (0_u64, 0_u64);
    for Entry { name, shape, dtype, bytes, begin } in entries {
        if begin != expected {
            return Err(GgufError::GapOrOverlap { tensor: shown_name(&name), begin, expected });
        }
        let too_large = || GgufError::TooLarge { tensor: shown_name(&name) };
        data_end = begin.checked_add(bytes).ok_or_else(too_large)?;
        expected = data_end.checked_next_multiple_of(alignment).ok_or_else(too_large)?;
        let offset_bytes = data_start.checked_add(begin).ok_or_else(too_large)?;
        let (file, row_order) = (Arc::clone(&file), RowOrder::AsComputed);
        let tensor = Tensor { file, offset_bytes, bytes, shape, dtype, row_order };
        tensors.push((canonical_name(&name), tensor));
    }
    let data = file_bytes.checked_sub(data_start);
    if !data.is_some_and(|bytes| (data_end..=expected).contains(&bytes)) {
        return Err(GgufError::FileLength { data_end: data_start.saturating_add(data_end), file_bytes });
    }
    Ok(Shard { file, tensors })
}
