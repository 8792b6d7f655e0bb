use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How one element of a tensor is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Dtype {
    F32,
    F16,
    #[serde(rename = "BF16")]
    Bf16,
}

impl Dtype {
    /// Bytes of one element.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}
