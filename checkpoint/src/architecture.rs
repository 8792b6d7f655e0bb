use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The arithmetic a checkpoint asks for. All are decoders with normalisation before each part, rotary positions,
/// grouped-query attention and a gated feed-forward layer; what differs are the methods here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Architecture {
    /// `LlamaForCausalLM`: Llama 2, 3.x and what shares their form.
    Llama,
    /// `MistralForCausalLM`: as Llama, perhaps with a sliding window.
    Mistral,
    /// `Qwen2ForCausalLM`: Qwen 2 and 2.5, with biases on queries, keys and values.
    Qwen2,
    /// `Qwen3ForCausalLM`: each head of queries and keys is normalised before its rotation.
    Qwen3,
}

impl Architecture {
    const ALL: [Self; 4] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3];

    /// As in `model_type`.
    pub(crate) const fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    const fn class_prefix(self) -> &'static str {
        match self {
            Self::Llama => "Llama",
            Self::Mistral => "Mistral",
            Self::Qwen2 => "Qwen2",
            Self::Qwen3 => "Qwen3",
        }
    }

    /// The family of a class of transformers, and whether the class has an output head: `…ForCausalLM` does, the bare
    /// `…Model` does not.
    pub(crate) fn of_class(name: &str) -> Option<(Self, bool)> {
        Self::ALL.into_iter().find_map(|architecture| {
            match name.strip_prefix(architecture.class_prefix())? {
                "ForCausalLM" => Some((architecture, true)),
                "Model" => Some((architecture, false)),
                _ => None,
            }
        })
    }

    /// Whether queries, keys and values have a bias.
    pub const fn has_attention_bias(self) -> bool {
        matches!(self, Self::Qwen2)
    }

    /// Whether each head of queries and keys is normalised before its rotation.
    pub const fn has_head_norm(self) -> bool {
        matches!(self, Self::Qwen3)
    }
}
