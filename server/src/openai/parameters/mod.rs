//! The parameters both endpoints share, and those that are known but not offered.

use serde::Deserialize;
use serde_json::value::RawValue;
use sparkherd_engine::Sampling;

use super::ApiError;
use super::fields::Fields;

/// OpenAI's limit; more stop strings only slow every token down.
const STOPS_MAX: usize = 4;
/// A stop string is withheld text: a longer one would hold back the answer by as much.
const STOP_BYTES_MAX: usize = 256;
/// Names listed in `x-sparkherd-ignored`; a header has room for no more.
const IGNORED_MAX: usize = 16;
/// Longest name listed there.
const IGNORED_NAME_BYTES_MAX: usize = 48;

/// What a known parameter may say although we do not offer it: the value that means "off".
#[derive(Clone, Copy, Debug)]
enum Neutral {
    /// `null` only.
    Null,
    Flag(bool),
    Number(f64),
    Text(&'static str),
    /// `[]` or `{}`.
    Empty,
    /// An object `{"type": …}` of this type.
    Type(&'static str),
    /// `["text"]`.
    TextOnly,
}

impl Neutral {
    const fn allowed(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Flag(true) => "true",
            Self::Flag(false) => "false",
            Self::Number(1.0) => "1",
            Self::Number(_) => "0",
            Self::Text(text) => text,
            Self::Empty => "it empty",
            Self::Type(_) => "{\"type\": \"text\"}",
            Self::TextOnly => "[\"text\"]",
        }
    }

    fn matches(self, value: &RawValue) -> bool {
        #[derive(Deserialize)]
        struct Typed<'a> {
            r#type: &'a str,
        }
        let text = value.get();
        match self {
            Self::Null => false,
            Self::Flag(flag) => serde_json::from_str::<bool>(text).is_ok_and(|value| value == flag),
            Self::Number(number) => {
                serde_json::from_str::<f64>(text).is_ok_and(|value| (value - number).abs() < f64::EPSILON)
            }
            Self::Text(allowed) => serde_json::from_str::<&str>(text).is_ok_and(|value| value == allowed),
            Self::Empty => {
                let inner = text.strip_prefix(['[', '{']).and_then(|rest| rest.strip_suffix([']', '}']));
                inner.is_some_and(|inner| inner.trim().is_empty())
            }
            Self::Type(allowed) => {
                serde_json::from_str::<Typed<'_>>(text).is_ok_and(|value| value.r#type == allowed)
            }
            Self::TextOnly => serde_json::from_str::<Vec<&str>>(text).is_ok_and(|value| value == ["text"]),
        }
    }
}

/// Known parameters of either endpoint that would change the answer and are not offered: OpenAI's, and vLLM's.
const NOT_OFFERED: &[(&str, Neutral)] = &[
    ("audio", Neutral::Null),
    ("best_of", Neutral::Number(1.0)),
    ("chat_template", Neutral::Null),
    ("chat_template_kwargs", Neutral::Empty),
    ("echo", Neutral::Flag(false)),
    ("frequency_penalty", Neutral::Number(0.0)),
    ("function_call", Neutral::Text("none")),
    ("functions", Neutral::Empty),
    ("guided_choice", Neutral::Null),
    ("guided_grammar", Neutral::Null),
    ("guided_json", Neutral::Null),
    ("guided_regex", Neutral::Null),
    ("ignore_eos", Neutral::Flag(false)),
    ("logit_bias", Neutral::Empty),
    ("min_p", Neutral::Number(0.0)),
    ("min_tokens", Neutral::Number(0.0)),
    ("modalities", Neutral::TextOnly),
    ("n", Neutral::Number(1.0)),
    ("presence_penalty", Neutral::Number(0.0)),
    ("priority", Neutral::Number(0.0)),
    ("prompt_logprobs", Neutral::Null),
    ("reasoning_effort", Neutral::Text("none")),
    ("repetition_penalty", Neutral::Number(1.0)),
    ("response_format", Neutral::Type("text")),
    ("return_token_ids", Neutral::Flag(false)),
    ("service_tier", Neutral::Text("auto")),
    ("skip_special_tokens", Neutral::Flag(true)),
    ("stop_token_ids", Neutral::Empty),
    ("store", Neutral::Flag(false)),
    ("structured_outputs", Neutral::Null),
    ("suffix", Neutral::Text("")),
    ("top_logprobs", Neutral::Number(0.0)),
    ("verbosity", Neutral::Text("medium")),
    ("web_search_options", Neutral::Null),
];

/// Accepted without effect, because they ask for nothing that an answer would show: labels for the operator's records,
/// hints to caches and to speculation, and how tools would be called where there are none.
const WITHOUT_EFFECT: &[&str] = &[
    "cache_salt",
    "metadata",
    "parallel_tool_calls",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "user",
];

/// Whether and how an answer is streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Streaming {
    pub(super) include_usage: bool,
}

/// What both endpoints take from the body in the same way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parameters {
    pub(super) model: String,
    /// As asked; the engine clamps it to what the context leaves.
    pub(super) max_tokens: Option<u32>,
    pub(super) sampling: Sampling,
    pub(super) stop: Vec<String>,
    pub(super) streaming: Option<Streaming>,
}

impl Parameters {
    pub(super) fn take(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        refuse_not_offered(fields)?;
        for name in WITHOUT_EFFECT {
            fields.take_raw(name);
        }
        let model: String = fields.take_required("model", "a string")?;
        let legacy_max = fields.take_count("max_tokens", 1)?;
        let max_tokens = fields.take_count("max_completion_tokens", 1)?.or(legacy_max);
        Ok(Self {
            model,
            max_tokens,
            sampling: sampling(fields)?,
            stop: stop(fields)?,
            streaming: streaming(fields)?,
        })
    }
}

fn refuse_not_offered(fields: &mut Fields<'_>) -> Result<(), ApiError> {
    for (name, neutral) in NOT_OFFERED {
        if fields.take_raw(name).is_some_and(|value| !neutral.matches(value)) {
            return Err(ApiError::Unsupported { param: fields.path(name), allowed: neutral.allowed() });
        }
    }
    refuse_logprobs(fields)?;
    refuse_tools(fields)
}

/// A flag in chat, a count in completions; where 0 still asks for the chosen token's.
fn refuse_logprobs(fields: &mut Fields<'_>) -> Result<(), ApiError> {
    match fields.take_raw("logprobs") {
        Some(value) if value.get() != "false" => {
            Err(ApiError::Unsupported { param: fields.path("logprobs"), allowed: "false" })
        }
        _ => Ok(()),
    }
}

/// Tools that may not be called change nothing but the prompt, which OpenAI leaves to the server.
fn refuse_tools(fields: &mut Fields<'_>) -> Result<(), ApiError> {
    let tools = fields.take_raw("tools").filter(|tools| !Neutral::Empty.matches(tools));
    let choice = fields.take_raw("tool_choice");
    let off = choice.is_some_and(|choice| Neutral::Text("none").matches(choice));
    let harmless = choice.is_none_or(|choice| Neutral::Text("auto").matches(choice));
    match tools {
        Some(_) if !off => Err(ApiError::Unsupported {
            param: fields.path("tools"),
            allowed: "\"tool_choice\": \"none\" with it",
        }),
        None if !off && !harmless => {
            Err(ApiError::Unsupported { param: fields.path("tool_choice"), allowed: "\"none\" or \"auto\"" })
        }
        _ => Ok(()),
    }
}

fn sampling(fields: &mut Fields<'_>) -> Result<Sampling, ApiError> {
    let top_k = match fields.take::<i64>("top_k", "a whole number of at least -1")? {
        // vLLM writes "all" as -1, others as 0.
        None | Some(-1 | 0) => 0,
        Some(top_k) if top_k > 0 => u32::try_from(top_k).unwrap_or(u32::MAX),
        Some(_) => return Err(fields.invalid("top_k", "a whole number of at least -1")),
    };
    let top_p = fields.take_number("top_p", 0.0..=1.0)?.unwrap_or(1.0);
    if top_p <= 0.0 {
        return Err(fields.invalid("top_p", "a number above 0 and at most 1"));
    }
    Ok(Sampling {
        temperature: fields.take_number("temperature", 0.0..=2.0)?.unwrap_or(1.0),
        top_p,
        top_k,
        seed: seed(fields)?,
        ..Sampling::default()
    })
}

/// Any 64-bit whole number; a negative one counts by its bits, so that distinct seeds stay distinct.
fn seed(fields: &mut Fields<'_>) -> Result<Option<u64>, ApiError> {
    let Some(value) = fields.take_raw("seed") else { return Ok(None) };
    let unsigned = serde_json::from_str::<u64>(value.get());
    let seed = unsigned.or_else(|_| serde_json::from_str::<i64>(value.get()).map(i64::cast_unsigned));
    seed.map(Some).map_err(|_| fields.invalid("seed", "a whole number of 64 bits"))
}

fn stop(fields: &mut Fields<'_>) -> Result<Vec<String>, ApiError> {
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

fn streaming(fields: &mut Fields<'_>) -> Result<Option<Streaming>, ApiError> {
    let streams = fields.take_flag("stream")?;
    let include_usage = match fields.take_raw("stream_options") {
        None => false,
        Some(_) if !streams => {
            return Err(fields.invalid("stream_options", "left out unless 'stream' is true"));
        }
        Some(options) => {
            let mut options = Fields::of_value(&fields.path("stream_options"), options)?;
            options.take_flag("include_usage")?
        }
    };
    Ok(streams.then_some(Streaming { include_usage }))
}

/// The value of `x-sparkherd-ignored`, or nothing to say. Names come from the client: what a header cannot carry becomes
/// `?`, and length and count are bounded.
pub(super) fn ignored_header(names: impl Iterator<Item = String>) -> Option<String> {
    let mut names = names.map(|name| {
        let clean =
            name.chars().map(|letter| if letter.is_ascii_graphic() && letter != ',' { letter } else { '?' });
        clean.take(IGNORED_NAME_BYTES_MAX).collect::<String>()
    });
    let mut listed: Vec<String> = names.by_ref().take(IGNORED_MAX).collect();
    if names.next().is_some() {
        listed.push("...".to_owned());
    }
    (!listed.is_empty()).then(|| listed.join(", "))
}
