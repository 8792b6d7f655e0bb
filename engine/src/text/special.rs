use serde_json::Value;
use tokenizers::Tokenizer;

use super::{
    TextError,
    files::{self, TextFiles, parse},
};

/// The tokens that frame a sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SpecialTokens {
    pub(super) bos_token: Option<String>,
    pub(super) eos_token: Option<String>,
    pub(super) bos_token_id: Option<u32>,
    /// Sorted, each once.
    pub(super) eos_token_ids: Vec<u32>,
}

impl SpecialTokens {
    pub(super) fn parse(files: &TextFiles, tokenizer: &Tokenizer) -> Result<Self, TextError> {
        let config = parse(files::TOKENIZER_CONFIG, files.tokenizer_config.as_deref())?;
        let bos_token = token_text(&config["bos_token"]);
        let eos_token = token_text(&config["eos_token"]);
        let mut eos_token_ids = Vec::new();
        for (file, bytes) in
            [(files::GENERATION_CONFIG, &files.generation_config), (files::CONFIG, &files.config)]
        {
            eos_token_ids.extend(token_ids(file, &parse(file, bytes.as_deref())?["eos_token_id"])?);
        }
        eos_token_ids.extend(eos_token.as_deref().and_then(|token| tokenizer.token_to_id(token)));
        eos_token_ids.sort_unstable();
        eos_token_ids.dedup();
        let bos_token_id = bos_token.as_deref().and_then(|token| tokenizer.token_to_id(token));
        Ok(Self { bos_token, eos_token, bos_token_id, eos_token_ids })
    }
}

/// A token is written as a string, or as an object that holds the string.
fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

/// One id, a list of them, or nothing.
fn token_ids(file: &'static str, value: &Value) -> Result<Vec<u32>, TextError> {
    let id = |value: &Value| {
        value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| TextError::Invalid {
            file,
            reason: format!("eos_token_id is {value}, must be a token or a list of tokens"),
        })
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(values) => values.iter().map(id).collect(),
        single => Ok(vec![id(single)?]),
    }
}
