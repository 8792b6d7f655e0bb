use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Dtype;

/// The arithmetic a checkpoint asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Architecture {
    /// `LlamaForCausalLM`: Llama 2, 3.x and what shares their form.
    Llama,
}

/// All that the footprint needs to know of a checkpoint, small enough for a status field.
///
/// Counts are of the model as it is computed, so `head_dim` is given even where the file leaves it out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Facts {
    /// The arithmetic the checkpoint asks for.
    pub architecture: Architecture,
    /// Stored type of most of the weights' bytes.
    pub dtype: Dtype,
    /// Elements over all tensors.
    pub parameters: u64,
    /// Bytes the tensors take in an engine's weights arena: each in its stored type, padded to [`TENSOR_ALIGNMENT_BYTES`].
    pub weight_bytes: u64,
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

/// Every tensor starts at a multiple of this in the weights arena: a cache line pair on CPUs, and what CUDA's vector
/// loads and `cudaMalloc` give.
pub const TENSOR_ALIGNMENT_BYTES: u64 = 256;
