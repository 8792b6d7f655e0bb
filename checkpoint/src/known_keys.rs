//! Keys of `config.json` beyond the sizes: those with one implemented value, and those that never change a logit.

use std::fmt;

use serde_json::Value;

use crate::Architecture;

/// The one value of a key that this engine implements. Null and absence mean the same as it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fixed {
    Text(&'static str),
    Flag(bool),
    Number(f64),
    /// An object or list without entries.
    Empty,
    /// No value but null.
    Absent,
}

impl Fixed {
    pub(crate) fn matches(self, value: &Value) -> bool {
        match self {
            Self::Text(text) => value.as_str() == Some(text),
            Self::Flag(flag) => value.as_bool() == Some(flag),
            // Both come from decimal text of small whole numbers, which are exact.
            Self::Number(number) => value.as_f64().is_some_and(|found| found.total_cmp(&number).is_eq()),
            Self::Empty => {
                value.as_object().is_some_and(serde_json::Map::is_empty)
                    || value.as_array().is_some_and(Vec::is_empty)
            }
            Self::Absent => value.is_null(),
        }
    }
}

impl fmt::Display for Fixed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(formatter, "{text:?}"),
            Self::Flag(flag) => write!(formatter, "{flag}"),
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Empty => formatter.write_str("empty"),
            Self::Absent => formatter.write_str("absent or null"),
        }
    }
}

/// Keys that change the arithmetic of any family unless they have this value.
pub(crate) const FIXED: [(&str, Fixed); 15] = [
    ("hidden_act", Fixed::Text("silu")),
    ("mlp_bias", Fixed::Flag(false)),
    // Splits matrix products into slices: the same sum in another order, which only training's layout asked for.
    ("pretraining_tp", Fixed::Number(1.0)),
    ("partial_rotary_factor", Fixed::Number(1.0)),
    // Written by some exporters; transformers' Llama rotates halves whatever it says.
    ("rope_interleaved", Fixed::Flag(false)),
    // Text models of the Qwen-VL line; positions there have three coordinates.
    ("use_mrope", Fixed::Flag(false)),
    ("is_encoder_decoder", Fixed::Flag(false)),
    ("is_decoder", Fixed::Flag(false)),
    ("add_cross_attention", Fixed::Flag(false)),
    ("cross_attention_hidden_size", Fixed::Absent),
    ("tie_encoder_decoder", Fixed::Flag(false)),
    ("pruned_heads", Fixed::Empty),
    ("chunk_size_feed_forward", Fixed::Number(0.0)),
    ("tf_legacy_loss", Fixed::Flag(false)),
    ("use_bfloat16", Fixed::Flag(false)),
];

/// As [`FIXED`], for one family.
pub(crate) const fn fixed_of(architecture: Architecture) -> &'static [(&'static str, Fixed)] {
    match architecture {
        Architecture::Llama => &[
            ("attention_bias", Fixed::Flag(false)),
            ("sliding_window", Fixed::Absent),
            ("use_sliding_window", Fixed::Flag(false)),
        ],
        Architecture::Qwen3 | Architecture::Mistral => &[("attention_bias", Fixed::Flag(false))],
        // Its queries, keys and values always have a bias; the key only repeats it.
        Architecture::Qwen2 => &[("attention_bias", Fixed::Flag(true))],
    }
}

/// Keys that say how the file came to be, how training or a Python object behaved, or how answers are sampled by
/// default. None is read by the forward pass.
const HARMLESS: [&str; 63] = [
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_flash_attn_2_enabled",
    "_name_or_path",
    "attention_dropout",
    "attn_implementation",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    // The tensors say how they are stored; the same holds for `torch_dtype`.
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "length_penalty",
    "max_length",
    "max_sequence_length",
    "min_length",
    "name_or_path",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token",
    "pad_token_id",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
    "use_return_dict",
    "vocab_file",
];

pub(crate) fn is_harmless(key: &str) -> bool {
    HARMLESS.contains(&key)
}
