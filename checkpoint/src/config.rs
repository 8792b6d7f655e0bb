use serde_json::Value;
use thiserror::Error;

use crate::json::{JsonError, shown_value};
use crate::keys::{Keys, invalid, missing, token_ids};
use crate::rope::{Rope, RopeScaling};
use crate::{Architecture, known_keys, window};

/// Largest sizes that are read. Each is several times what any published dense model uses, and together they keep every
/// later product (parameters, KV bytes per token) far inside 64 bits.
pub(crate) mod bound {
    pub(crate) const LAYERS: u32 = 1024;
    pub(crate) const HIDDEN_SIZE: u32 = 1 << 17;
    pub(crate) const INTERMEDIATE_SIZE: u32 = 1 << 20;
    pub(crate) const HEADS: u32 = 1024;
    pub(crate) const HEAD_DIM: u32 = 1024;
    pub(crate) const VOCAB_SIZE: u32 = 1 << 22;
    pub(crate) const CONTEXT: u32 = 1 << 24;
    pub(crate) const EOS_TOKENS: usize = 64;
}

/// What `config.json` says, in full: no field is optional because every default of transformers is filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub architecture: Architecture,
    /// Transformer blocks.
    pub layers: u32,
    /// Width of the residual stream, elements.
    pub hidden_size: u32,
    /// Width of the feed-forward layer, elements.
    pub intermediate_size: u32,
    /// Query heads per layer; a multiple of `kv_heads`.
    pub heads: u32,
    /// Key and value heads per layer.
    pub kv_heads: u32,
    /// Width of one head, elements; even, because the rotation works on pairs. `heads × head_dim` may differ from `hidden_size`.
    pub head_dim: u32,
    /// Rows of the embedding.
    pub vocab_size: u32,
    /// Longest sequence the model can be served with, tokens: what it was made for, stretched as its rotation says, and cut
    /// to the attention window where it has one (up to there a window hides nothing).
    pub max_context: u32,
    /// Added to the mean square before the root, in every normalisation.
    pub rms_norm_eps: f64,
    pub rope: Rope,
    pub head: OutputHead,
    pub bos_token_id: Option<u32>,
    /// Tokens that end an answer; may be empty.
    pub eos_token_ids: Vec<u32>,
}

/// What turns the last layer's hidden states into logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputHead {
    /// A matrix of its own, `[vocab_size, hidden_size]`.
    Own,
    /// The embedding.
    Tied,
    /// Nothing: the checkpoint gives embeddings of texts and continues none.
    Absent,
}

/// Why a `config.json` is refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("not valid JSON: {0}")]
    Json(#[from] JsonError),
    #[error("architecture {found} is not supported; supported: {supported}")]
    Architecture { found: String, supported: &'static str },
    #[error("key {key} is missing")]
    Missing { key: String },
    #[error("{key} is {value}; must be {allowed}")]
    Value { key: String, value: String, allowed: String },
    #[error("key {key} = {value} is unknown and could change the arithmetic")]
    Unknown { key: String, value: String },
    #[error("auto_map asks to run code that ships with the model; sparkherd never does")]
    Code,
    #[error("weights are quantised with {method}; supported: weights stored as F32, F16 or BF16")]
    Quantised { method: String },
}

impl ConfigError {
    /// Whether the bytes themselves are damaged, as opposed to saying something that is not supported.
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Json(_))
    }
}

impl ModelConfig {
    /// Reads the bytes of `config.json`. Every key is either understood, known not to change the result, or an error.
    pub fn parse(config_json: &[u8]) -> Result<Self, ConfigError> {
        let mut keys = Keys::parse(config_json)?;
        if keys.take("auto_map").is_some() {
            return Err(ConfigError::Code);
        }
        let (architecture, is_causal_class) = architecture(&mut keys)?;
        refuse_quantisation(&mut keys)?;
        keys.require_fixed(&known_keys::FIXED)?;
        keys.require_fixed(known_keys::fixed_of(architecture))?;
        let config = decoder(architecture, is_causal_class, &mut keys)?;
        keys.finish()?;
        Ok(config)
    }
}

const SUPPORTED: &str = "Llama, Mistral, Qwen2 and Qwen3, each as …ForCausalLM or …Model";

/// The family, and whether the class is the one with an output head.
fn architecture(keys: &mut Keys) -> Result<(Architecture, bool), ConfigError> {
    let unsupported =
        |found: &Value| ConfigError::Architecture { found: shown_value(found), supported: SUPPORTED };
    let named = keys.take("architectures").ok_or_else(|| missing("architectures"))?;
    let (architecture, is_causal_class) = match named.as_array().map(Vec::as_slice) {
        Some([Value::String(name)]) => {
            Architecture::of_class(name).ok_or_else(|| unsupported(&name.as_str().into()))?
        }
        Some([other]) => return Err(unsupported(other)),
        _ => return Err(unsupported(&named)),
    };
    let model_type = architecture.model_type();
    match keys.take("model_type") {
        None | Some(Value::Null) => {}
        Some(Value::String(name)) if name == model_type => {}
        Some(other) => return Err(invalid("model_type", &other, &format!("{model_type:?}"))),
    }
    Ok((architecture, is_causal_class))
}

fn refuse_quantisation(keys: &mut Keys) -> Result<(), ConfigError> {
    for key in ["quantization_config", "quantization", "compression_config"] {
        match keys.take(key) {
            None | Some(Value::Null) => {}
            Some(value) => {
                let method = value.get("quant_method").unwrap_or(&value);
                return Err(ConfigError::Quantised { method: shown_value(method) });
            }
        }
    }
    Ok(())
}

/// The sizes of a decoder. Where transformers' default of a size differs from family to family, the key must be there.
fn decoder(
    architecture: Architecture,
    is_causal_class: bool,
    keys: &mut Keys,
) -> Result<ModelConfig, ConfigError> {
    let is_llama = architecture == Architecture::Llama;
    let layers = keys.count("num_hidden_layers", None, bound::LAYERS)?;
    let hidden_size = keys.count("hidden_size", None, bound::HIDDEN_SIZE)?;
    let heads = keys.count("num_attention_heads", None, bound::HEADS)?;
    let kv_heads = keys.count("num_key_value_heads", is_llama.then_some(heads), bound::HEADS)?;
    let head_dim_default = match architecture {
        Architecture::Qwen3 => 128,
        Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 => hidden_size / heads,
    };
    let head_dim = keys.count("head_dim", Some(head_dim_default), bound::HEAD_DIM)?;
    let vocab_size = keys.count("vocab_size", None, bound::VOCAB_SIZE)?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(invalid(
            "num_key_value_heads",
            &kv_heads.into(),
            &format!("a divisor of {heads} query heads"),
        ));
    }
    if !head_dim.is_multiple_of(2) {
        return Err(invalid("head_dim", &head_dim.into(), "even"));
    }
    let trained_context = keys.count("max_position_embeddings", is_llama.then_some(2048), bound::CONTEXT)?;
    let rope = Rope::parse(keys, trained_context)?;
    let window = window::parse(architecture, keys)?;
    let head = match (keys.flag("tie_word_embeddings", false)?, is_causal_class) {
        (true, _) => OutputHead::Tied,
        (false, true) => OutputHead::Own,
        (false, false) => OutputHead::Absent,
    };
    Ok(ModelConfig {
        architecture,
        layers,
        hidden_size,
        intermediate_size: keys.count("intermediate_size", None, bound::INTERMEDIATE_SIZE)?,
        heads,
        kv_heads,
        head_dim,
        vocab_size,
        max_context: served_context(trained_context, &rope).min(window.unwrap_or(u32::MAX)),
        rms_norm_eps: keys.number("rms_norm_eps", Some(1e-6), 0.0, 1.0)?,
        rope,
        head,
        bos_token_id: keys.token("bos_token_id", vocab_size)?,
        eos_token_ids: token_ids(keys.take("eos_token_id").as_ref(), vocab_size)?,
    })
}

/// `YaRN` is written beside the context of the first training, which it multiplies; other files already name the product.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the bound, and above 0"
)]
pub(crate) fn served_context(trained_context: u32, rope: &Rope) -> u32 {
    match rope.scaling {
        RopeScaling::Yarn { factor, original_max_position, .. } => {
            let stretched = (factor * f64::from(original_max_position)).min(f64::from(bound::CONTEXT));
            trained_context.max(stretched as u32)
        }
        RopeScaling::None
        | RopeScaling::Linear { .. }
        | RopeScaling::Llama3 { .. }
        | RopeScaling::Pairs { .. } => trained_context,
    }
}
