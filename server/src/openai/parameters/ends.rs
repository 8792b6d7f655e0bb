use serde::Deserialize;
use sparkherd_engine::Ends;

use super::super::ApiError;
use super::super::fields::Fields;

/// OpenAI's limit; more stop strings only slow every token down.
const STOPS_MAX: usize = 4;
/// A stop string is withheld text: a longer one would hold back the answer by as much.
const STOP_BYTES_MAX: usize = 256;
/// As many as the engine takes.
const STOP_TOKENS_MAX: usize = 128;

/// When an answer ends. `max_tokens`: as asked, if it was.
pub(super) fn take_ends(fields: &mut Fields<'_>, max_tokens: Option<u32>) -> Result<Ends, ApiError> {
    let min_tokens = fields.take_count("min_tokens", 0)?.unwrap_or(0);
    if max_tokens.is_some_and(|most| min_tokens > most) {
        return Err(fields.invalid("min_tokens", "at most 'max_tokens'"));
    }
    Ok(Ends {
        stop: take_stop(fields)?,
        stop_token_ids: take_stop_token_ids(fields)?,
        ignore_eos: fields.take_flag("ignore_eos")?,
        min_tokens,
    })
}

fn take_stop(fields: &mut Fields<'_>) -> Result<Vec<String>, ApiError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stop {
        One(String),
        Many(Vec<String>),
    }
    let expected = format!("a string, or up to {STOPS_MAX} strings, of 1 to {STOP_BYTES_MAX} bytes each");
    let stop = match fields.take::<Stop>("stop", &expected)? {
        None => Vec::new(),
        Some(Stop::One(text)) => vec![text],
        Some(Stop::Many(texts)) => texts,
    };
    if stop.len() > STOPS_MAX || stop.iter().any(|text| text.is_empty() || text.len() > STOP_BYTES_MAX) {
        return Err(fields.invalid("stop", expected));
    }
    Ok(stop)
}

fn take_stop_token_ids(fields: &mut Fields<'_>) -> Result<Vec<u32>, ApiError> {
    let expected = format!("an array of up to {STOP_TOKENS_MAX} token numbers");
    let tokens: Vec<u32> = fields.take("stop_token_ids", &expected)?.unwrap_or_default();
    if tokens.len() > STOP_TOKENS_MAX {
        return Err(fields.invalid("stop_token_ids", expected));
    }
    Ok(tokens)
}
