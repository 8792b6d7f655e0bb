use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Architecture, ClaimError, Dtype, ModelConfig, Requantize, TensorIndex};

/// All that the footprint needs to know of a checkpoint, small enough for a status field.
///
/// Counts are of the model as it is computed, so `head_dim` is given even where the file leaves it out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// The arithmetic the checkpoint asks for.
    pub architecture: Architecture,
    /// Stored type of most of the weights' bytes.
    pub dtype: Dtype,
    /// Elements over all tensors.
    pub parameters: u64,
    /// Bytes the tensors take in an engine's weights arena: each in its stored type, padded to [`TENSOR_ALIGNMENT_BYTES`].
    pub weight_bytes: u64,
    /// The same with `weights.requantize: int8`; absent in facts from before it existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub int8_weight_bytes: Option<u64>,
    /// Transformer blocks.
    pub layers: u32,
    /// Width of the residual stream, elements.
    pub hidden_size: u32,
    /// Width of the feed-forward layer, elements.
    pub intermediate_size: u32,
    /// Query heads per layer.
    pub attention_heads: u32,
    /// Key and value heads per layer.
    pub kv_heads: u32,
    /// Width of one head, elements.
    pub head_dim: u32,
    /// Rows of the embedding.
    pub vocab_size: u32,
    /// Longest sequence the model was made for, tokens.
    pub max_context: u32,
    /// Bytes of `tokenizer.json`, which the engine keeps parsed in host memory.
    pub tokenizer_bytes: u64,
}

impl Facts {
    /// Puts together what configuration and tensors say; the tensors must be exactly those of the configuration.
    ///
    /// The sums cannot overflow: each tensor lies inside a file, and the claimed ones have shapes within the bounds of
    /// [`ModelConfig`].
    pub fn new(config: &ModelConfig, index: &TensorIndex, tokenizer_bytes: u64) -> Result<Self, ClaimError> {
        let claimed = index.claim(config)?;
        let mut parameters = 0;
        let mut bytes_by_dtype = Dtype::ALL.map(|dtype| (dtype, 0));
        for tensor in claimed.iter().map(|claimed| claimed.tensor) {
            parameters += tensor.bytes / tensor.dtype.block_bytes() * tensor.dtype.block_elements();
            for (dtype, bytes) in &mut bytes_by_dtype {
                *bytes += if *dtype == tensor.dtype { tensor.bytes } else { 0 };
            }
        }
        let dtype =
            bytes_by_dtype.iter().max_by_key(|(_, bytes)| *bytes).map_or(Dtype::F32, |(dtype, _)| *dtype);
        Ok(Self {
            architecture: config.architecture,
            dtype,
            parameters,
            weight_bytes: Requantize::None.arena_bytes(config, &claimed),
            int8_weight_bytes: Some(Requantize::Int8.arena_bytes(config, &claimed)),
            layers: config.layers,
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            attention_heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            vocab_size: config.vocab_size,
            max_context: config.max_context,
            tokenizer_bytes,
        })
    }
}

/// Every tensor starts at a multiple of this in the weights arena: a cache line pair on CPUs, and what CUDA's vector
/// loads and `cudaMalloc` give.
pub const TENSOR_ALIGNMENT_BYTES: u64 = 256;
