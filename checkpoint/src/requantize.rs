use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::claim::{ClaimedTensor, EMBEDDING};
use crate::{Dtype, ModelConfig, OutputHead, TENSOR_ALIGNMENT_BYTES};

/// `int8` rounds F32, F16 and BF16 matrices to 8 bits with a scale for each 32 elements, while they are read: about half
/// the bytes of BF16, and as much faster to decode. Default: `none`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Requantize {
    /// As the checkpoint has them.
    #[default]
    None,
    /// F32, F16 and BF16 matrices that are multiplied with become Q8_0.
    Int8,
}

impl Requantize {
    pub const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// How a tensor is kept in memory.
    ///
    /// Vectors stay (norms and biases take no space worth saving and scale everything), as do rows that are no whole number
    /// of blocks, the embedding unless it is the output head too, and what is in a block format already.
    pub fn dtype(self, config: &ModelConfig, claimed: &ClaimedTensor<'_>) -> Dtype {
        let stored = claimed.tensor.dtype;
        let is_looked_up = claimed.name == EMBEDDING && config.head != OutputHead::Tied;
        let is_whole = match *claimed.tensor.shape.as_slice() {
            [_, columns] => columns.is_multiple_of(Dtype::Q8_0.block_elements()),
            _ => false,
        };
        match (self, stored) {
            (Self::Int8, Dtype::F32 | Dtype::F16 | Dtype::Bf16) if is_whole && !is_looked_up => Dtype::Q8_0,
            _ => stored,
        }
    }

    /// Bytes that a tensor takes in an engine's weights arena, without padding.
    pub fn bytes(self, config: &ModelConfig, claimed: &ClaimedTensor<'_>) -> u64 {
        let dtype = self.dtype(config, claimed);
        let stored = claimed.tensor.dtype;
        // Elements are whole blocks of both.
        claimed.tensor.bytes / stored.block_bytes() * stored.block_elements() / dtype.block_elements()
            * dtype.block_bytes()
    }

    pub(crate) fn arena_bytes(self, config: &ModelConfig, claimed: &[ClaimedTensor<'_>]) -> u64 {
        claimed
            .iter()
            .map(|claimed| self.bytes(config, claimed).next_multiple_of(TENSOR_ALIGNMENT_BYTES))
            .sum()
    }
}
