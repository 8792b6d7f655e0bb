//! Sliding windows: attention that looks back on the last so many tokens only.

use serde_json::Value;

use crate::Architecture;
use crate::config::{ConfigError, bound};
use crate::keys::{Keys, invalid};

/// What transformers takes for a Mistral that does not say.
const MISTRAL_DEFAULT_TOKENS: u32 = 4096;

/// The window of the layers that have one, tokens, the token itself counted; `None` where every layer sees everything.
///
/// Mistral has a window wherever `sliding_window` is not null; Qwen only with `use_sliding_window` too, and from layer
/// `max_window_layers` on. Which layers are windowed is not kept: sequences no longer than the window never meet it.
pub(crate) fn parse(architecture: Architecture, keys: &mut Keys) -> Result<Option<u32>, ConfigError> {
    let window = match architecture {
        Architecture::Llama => None,
        Architecture::Mistral => match keys.take("sliding_window") {
            None => Some(MISTRAL_DEFAULT_TOKENS),
            Some(Value::Null) => None,
            Some(value) => Some(tokens(&value)?),
        },
        Architecture::Qwen2 | Architecture::Qwen3 => {
            let stored = keys.present("sliding_window");
            keys.take("max_window_layers");
            match (keys.flag("use_sliding_window", false)?, stored) {
                (true, Some(value)) => Some(tokens(&value)?),
                (true, None) => return Err(crate::keys::missing("sliding_window")),
                (false, _) => None,
            }
        }
    };
    layer_types(keys, window.is_some())?;
    Ok(window)
}

fn tokens(value: &Value) -> Result<u32, ConfigError> {
    value
        .as_u64()
        .and_then(|tokens| u32::try_from(tokens).ok())
        .filter(|tokens| (1..=bound::CONTEXT).contains(tokens))
        .ok_or_else(|| {
            invalid("sliding_window", value, &format!("null or a whole number from 1 to {}", bound::CONTEXT))
        })
}

fn layer_types(keys: &mut Keys, has_window: bool) -> Result<(), ConfigError> {
    let Some(value) = keys.present("layer_types") else { return Ok(()) };
    let known = |kind: &Value| kind == "full_attention" || (has_window && kind == "sliding_attention");
    if value.as_array().is_some_and(|kinds| kinds.iter().all(known)) {
        return Ok(());
    }
    let allowed = if has_window {
        "\"full_attention\" or \"sliding_attention\" for every layer"
    } else {
        "\"full_attention\" for every layer"
    };
    Err(invalid("layer_types", &value, allowed))
}
