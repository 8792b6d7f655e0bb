use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sparkherd_checkpoint::Requantize;

/// How one element of the KV cache is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KvDtype {
    F32,
    Bf16,
    Fp8,
}

impl KvDtype {
    /// Bytes of one element.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::Fp8 => 1,
        }
    }
}

/// Resolved settings of one replica: nothing is left to choose.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Serving {
    /// Tokens one sequence may hold, prompt and answer together.
    pub context: u32,
    /// Sequences decoded together at most.
    pub concurrency: u32,
    /// Tokens the paged KV pool holds; a multiple of the block of 16.
    pub kv_tokens: u64,
    /// How the KV cache stores an element.
    pub kv_dtype: KvDtype,
    /// Whether weights are rounded while they are read. Default: none.
    #[serde(default, skip_serializing_if = "Requantize::is_none")]
    pub requantize: Requantize,
}
