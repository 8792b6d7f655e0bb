use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use thiserror::Error;

use crate::Dtype;
use crate::json::{JsonError, UniqueMap, shown_name};

/// Longest header that is read. The largest published ones (tens of thousands of tensors in one file) stay below 10 MiB;
/// the limit bounds the memory of whoever parses.
pub const HEADER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Bytes before the header: its length, little-endian.
pub const HEADER_LENGTH_BYTES: u64 = 8;

/// Longest name of a tensor. Real ones stay below 100; a bound keeps messages and indices small.
const TENSOR_NAME_BYTES_MAX: usize = 256;

/// Most dimensions of a tensor; language models use at most 4.
const DIMENSIONS_MAX: usize = 8;

/// In which order a matrix's rows lie in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOrder {
    /// As the arithmetic here takes them.
    AsComputed,
    /// In each head, row `2i` is row `i` of the computation and row `2i + 1` row `i + head_dim / 2`: for rotations that turn
    /// neighbours, as in GGUF files of Llamas, where ours turn halves.
    PairsAdjacent { head_dim: u32 },
}

/// Where a tensor's bytes lie and what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Plain name of the file, in the checkpoint's directory.
    pub file: Arc<str>,
    /// From the start of the file.
    pub offset_bytes: u64,
    pub bytes: u64,
    /// Row-major, rows first.
    pub shape: Vec<u64>,
    pub dtype: Dtype,
    pub row_order: RowOrder,
}

impl Tensor {
    /// Rows of a matrix; `None` for another number of dimensions.
    pub(crate) fn rows(&self) -> Option<u64> {
        match *self.shape.as_slice() {
            [rows, _] => Some(rows),
            _ => None,
        }
    }
}

/// Why a safetensors file is refused.
#[derive(Debug, Error)]
pub enum HeaderError {
    #[error("file of {file_bytes} bytes is too short for a safetensors header")]
    Truncated { file_bytes: u64 },
    #[error("header of {header_bytes} bytes does not fit the file of {file_bytes} bytes")]
    HeaderBeyondFile { header_bytes: u64, file_bytes: u64 },
    #[error("header of {header_bytes} bytes is longer than the limit of {HEADER_BYTES_MAX}")]
    HeaderTooLong { header_bytes: u64 },
    #[error("header is not valid: {0}")]
    Json(#[from] JsonError),
    #[error("header does not start with an object")]
    NotAnObject,
    #[error("a tensor's name is empty or longer than {TENSOR_NAME_BYTES_MAX} bytes")]
    Name,
    #[error("tensor {tensor} is stored as {dtype}; supported: F32, F16, BF16")]
    Dtype { tensor: String, dtype: String },
    #[error("tensor {tensor} has {dimensions} dimensions, more than {DIMENSIONS_MAX}")]
    Dimensions { tensor: String, dimensions: usize },
    #[error("tensor {tensor} lies at {begin}..{end}, which its shape and type do not fill")]
    Length { tensor: String, begin: u64, end: u64 },
    #[error("tensor {tensor} starts at {begin}, but the one before it ends at {expected}")]
    GapOrOverlap { tensor: String, begin: u64, expected: u64 },
    #[error("tensors end at byte {tensors_end} of a file of {file_bytes} bytes")]
    FileLength { tensors_end: u64, file_bytes: u64 },
}

impl HeaderError {
    /// Whether the bytes themselves are damaged, as opposed to saying something that is not supported.
    pub const fn is_damage(&self) -> bool {
        !matches!(self, Self::Dtype { .. })
    }
}

/// Bytes of the header that follow the first [`HEADER_LENGTH_BYTES`] of a file: how much more its reader must read.
pub fn header_bytes(length: [u8; 8], file_bytes: u64) -> Result<u64, HeaderError> {
    let header_bytes = u64::from_le_bytes(length);
    let Some(room) = file_bytes.checked_sub(HEADER_LENGTH_BYTES) else {
        return Err(HeaderError::Truncated { file_bytes });
    };
    if header_bytes > room {
        return Err(HeaderError::HeaderBeyondFile { header_bytes, file_bytes });
    }
    if header_bytes > HEADER_BYTES_MAX {
        return Err(HeaderError::HeaderTooLong { header_bytes });
    }
    Ok(header_bytes)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The header's object: tensors by name, and `__metadata__`, text to text, which nothing here reads.
struct Entries(BTreeMap<String, Entry>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Entries, A::Error> {
        let mut entries = BTreeMap::new();
        let mut has_metadata = false;
        while let Some(name) = access.next_key::<String>()? {
            let again = if name == "__metadata__" {
                access.next_value::<UniqueMap<String>>()?;
                std::mem::replace(&mut has_metadata, true)
            } else {
                let entry = access.next_value()?;
                entries.insert(name.clone(), entry).is_some()
            };
            if again {
                return Err(A::Error::custom(format_args!("key {} occurs twice", shown_name(&name))));
            }
        }
        Ok(Entries(entries))
    }
}

/// The tensors of one safetensors file, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    pub(crate) file: Arc<str>,
    pub(crate) tensors: Vec<(String, Tensor)>,
}

impl Shard {
    /// Reads a header. `prefix` is the file's first `8 + `[`header_bytes`] bytes or more, `file_bytes` its length.
    ///
    /// The tensors must follow one another from the header's end to the file's end without gap or overlap, so that every
    /// byte of the file is accounted for exactly once.
    pub fn parse(file: &str, file_bytes: u64, prefix: &[u8]) -> Result<Self, HeaderError> {
        let truncated = || HeaderError::Truncated { file_bytes };
        let (length, rest) = prefix.split_first_chunk::<8>().ok_or_else(truncated)?;
        let header_bytes = header_bytes(*length, file_bytes)?;
        let header =
            usize::try_from(header_bytes).ok().and_then(|end| rest.get(..end)).ok_or_else(truncated)?;
        if header.first() != Some(&b'{') {
            return Err(HeaderError::NotAnObject);
        }
        let Entries(entries) = serde_json::from_slice(header).map_err(JsonError::from)?;
        let mut entries: Vec<(String, Entry)> = entries.into_iter().collect();
        entries.sort_by_key(|(_, entry)| entry.data_offsets);
        let data_start = HEADER_LENGTH_BYTES + header_bytes;
        let file: Arc<str> = Arc::from(file);
        let mut tensors = Vec::with_capacity(entries.len());
        let mut expected = 0;
        for (name, entry) in entries {
            let [begin, end] = entry.data_offsets;
            if begin != expected {
                return Err(HeaderError::GapOrOverlap { tensor: shown_name(&name), begin, expected });
            }
            expected = end;
            let tensor = tensor(&name, entry, &file, data_start, file_bytes)?;
            tensors.push((name, tensor));
        }
        if data_start.checked_add(expected) != Some(file_bytes) {
            let tensors_end = data_start.saturating_add(expected);
            return Err(HeaderError::FileLength { tensors_end, file_bytes });
        }
        Ok(Self { file, tensors })
    }
}

fn tensor(
    name: &str,
    entry: Entry,
    file: &Arc<str>,
    data_start: u64,
    file_bytes: u64,
) -> Result<Tensor, HeaderError> {
    if name.is_empty() || name.len() > TENSOR_NAME_BYTES_MAX {
        return Err(HeaderError::Name);
    }
    let dtype = match entry.dtype.as_str() {
        "F32" => Dtype::F32,
        "F16" => Dtype::F16,
        "BF16" => Dtype::Bf16,
        other => return Err(HeaderError::Dtype { tensor: shown_name(name), dtype: shown_name(other) }),
    };
    if entry.shape.len() > DIMENSIONS_MAX {
        return Err(HeaderError::Dimensions { tensor: shown_name(name), dimensions: entry.shape.len() });
    }
    let [begin, end] = entry.data_offsets;
    let wrong_length = || HeaderError::Length { tensor: shown_name(name), begin, end };
    let bytes = entry
        .shape
        .iter()
        .try_fold(dtype.block_bytes(), |product, size| product.checked_mul(*size))
        .filter(|bytes| end.checked_sub(begin) == Some(*bytes))
        .ok_or_else(wrong_length)?;
    let offset_bytes = data_start.checked_add(begin).ok_or_else(wrong_length)?;
    if offset_bytes.checked_add(bytes).is_none_or(|tensor_end| tensor_end > file_bytes) {
        let tensors_end = offset_bytes.saturating_add(bytes);
        return Err(HeaderError::FileLength { tensors_end, file_bytes });
    }
    let (file, shape, row_order) = (Arc::clone(file), entry.shape, RowOrder::AsComputed);
    Ok(Tensor { file, offset_bytes, bytes, shape, dtype, row_order })
}
