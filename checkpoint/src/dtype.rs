use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How the elements of a tensor are stored: one by one, or in blocks of one row that share a scale.
///
/// The block formats are ggml's, byte for byte (little-endian; `d` and `m` are f16); a block never crosses a row:
///
/// | format | elements | bytes | value of element `i` |
/// |---|---|---|---|
/// | Q8_0 | 32 | `d`, 32 × i8 | `d · q[i]` |
/// | Q4_0 | 32 | `d`, 16 bytes | `d · (q[i] − 8)`; byte `j` holds `q[j]` below and `q[j + 16]` above |
/// | Q4_K | 256 | `d`, `m`, 12 bytes of six-bit scales and minima, 128 bytes | `d · scale[i / 32] · q[i] − m · minimum[i / 32]` |
/// | Q6_K | 256 | 128 bytes, 64 bytes, 16 × i8, `d` | `d · scale[i / 16] · (q[i] − 32)` |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Dtype {
    F32,
    F16,
    #[serde(rename = "BF16")]
    Bf16,
    Q8_0,
    Q4_0,
    #[serde(rename = "Q4_K")]
    Q4K,
    #[serde(rename = "Q6_K")]
    Q6K,
}

/// Why a row of so many columns cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RowError {
    #[error("a row of {columns} columns is no whole number of {} blocks of {block_elements}", dtype.name())]
    PartialBlock { dtype: Dtype, columns: u64, block_elements: u64 },
    #[error("bytes of a row of {columns} columns exceed 64 bits")]
    TooLarge { columns: u64 },
}

impl Dtype {
    pub const ALL: [Self; 7] =
        [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0, Self::Q4K, Self::Q6K];

    /// As files and ggml name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4K => "Q4_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Elements that are stored together: 1, or those of a block.
    pub const fn block_elements(self) -> u64 {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Bytes of [`Dtype::block_elements`] elements.
    pub const fn block_bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4K => 144,
            Self::Q6K => 210,
        }
    }

    /// Bytes of a row of `columns` elements, which must be whole blocks.
    pub const fn row_bytes(self, columns: u64) -> Result<u64, RowError> {
        let block_elements = self.block_elements();
        if !columns.is_multiple_of(block_elements) {
            return Err(RowError::PartialBlock { dtype: self, columns, block_elements });
        }
        match (columns / block_elements).checked_mul(self.block_bytes()) {
            Some(bytes) => Ok(bytes),
            None => Err(RowError::TooLarge { columns }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Dtype, RowError};

    #[test]
    fn rows_are_whole_blocks() {
        let bytes = Dtype::ALL.map(|dtype| dtype.row_bytes(512).unwrap());
        assert_eq!(bytes, [2048, 1024, 1024, 544, 288, 288, 420]);
        let partial = Dtype::Q4K.row_bytes(320).unwrap_err();
        assert_eq!(partial.to_string(), "a row of 320 columns is no whole number of Q4_K blocks of 256");
        assert_eq!(Dtype::F32.row_bytes(1 << 63), Err(RowError::TooLarge { columns: 1 << 63 }));
    }

    #[test]
    fn names_are_those_that_are_written() {
        for dtype in Dtype::ALL {
            assert_eq!(serde_json::to_value(dtype).unwrap(), dtype.name());
        }
    }
}
