//! Known parameters that are not offered, or that have no effect here.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::ApiError;
use super::super::fields::Fields;

/// What a known parameter may say although we do not offer it: the value that means "off".
#[derive(Clone, Copy, Debug)]
enum Neutral {
    /// `null` only.
    Null,
    Flag(bool),
    Text(&'static str),
    /// `[]` or `{}`.
    Empty,
    /// `["text"]`.
    TextOnly,
}

impl Neutral {
    fn allowed(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Flag(true) => "true",
            Self::Flag(false) => "false",
            Self::Text("") => "\"\"",
            Self::Text(text) => text,
            Self::Empty => "it empty",
            Self::TextOnly => "[\"text\"]",
        }
    }

    fn matches(self, value: &RawValue) -> bool {
        let text = value.get();
        match self {
            Self::Null => false,
            Self::Flag(flag) => serde_json::from_str::<bool>(text).is_ok_and(|value| value == flag),
            Self::Text(allowed) => {
                serde_json::from_str::<Text<'_>>(text).is_ok_and(|value| value.0 == allowed)
            }
            Self::Empty => is_empty(value),
            Self::TextOnly => serde_json::from_str::<Vec<Text<'_>>>(text)
                .is_ok_and(|value| matches!(&value[..], [only] if only.0 == "text")),
        }
    }
}

/// A string, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

/// Whether a value is `[]` or `{}`.
pub(in super::super) fn is_empty(value: &RawValue) -> bool {
    let inner = value.get().strip_prefix(['[', '{']).and_then(|rest| rest.strip_suffix([']', '}']));
    inner.is_some_and(|inner| inner.trim().is_empty())
}

/// OpenAI's and vLLM's parameters that would change the answer and are not offered.
const NOT_OFFERED: &[(&str, Neutral)] = &[
    ("allowed_token_ids", Neutral::Null),
    ("audio", Neutral::Null),
    ("bad_words", Neutral::Empty),
    ("chat_template", Neutral::Null),
    ("function_call", Neutral::Text("none")),
    ("functions", Neutral::Empty),
    ("include_stop_str_in_output", Neutral::Flag(false)),
    ("length_penalty", Neutral::Null),
    ("modalities", Neutral::TextOnly),
    ("prompt_logprobs", Neutral::Null),
    ("suffix", Neutral::Text("")),
    ("truncate_prompt_tokens", Neutral::Null),
    ("use_beam_search", Neutral::Flag(false)),
    ("verbosity", Neutral::Text("medium")),
    ("web_search_options", Neutral::Null),
];

/// Accepted without effect, because they ask for nothing that an answer would show: labels for the client's own records, and
/// hints to caches and to speculation. What OpenAI would keep under `store` is not kept.
const WITHOUT_EFFECT: &[&str] =
    &["metadata", "prediction", "prompt_cache_key", "prompt_cache_retention", "store"];

/// Takes all of them, and refuses those that ask for something.
pub(super) fn refuse_not_offered(fields: &mut Fields<'_>) -> Result<(), ApiError> {
    for (name, neutral) in NOT_OFFERED {
        if fields.take_raw(name).is_some_and(|value| !neutral.matches(value)) {
            return Err(ApiError::Unsupported { param: fields.path(name), allowed: neutral.allowed() });
        }
    }
    for name in WITHOUT_EFFECT {
        fields.take_raw(name);
    }
    Ok(())
}
