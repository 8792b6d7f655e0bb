//! `POST /v1/completions`.

use serde::Serialize;
use sparkherd_engine::{FinishReason, Usage};

use super::ApiError;
use super::ask::{Ask, Endpoint, Prompt};
use super::fields::Fields;
use super::parameters::Parameters;
use super::wire::{ChunkUsage, Head, Piece, WireUsage, finish_reason};

/// OpenAI's default for this endpoint; chat has none.
const MAX_TOKENS_DEFAULT: u32 = 16;

#[derive(Debug)]
pub(crate) struct Completions;

#[derive(Debug, Serialize)]
struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [Choice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<ChunkUsage>,
}

#[derive(Debug, Serialize)]
struct Choice<'a> {
    index: u32,
    text: &'a str,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

impl<'a> Completion<'a> {
    fn new(head: &'a Head, choices: &'a [Choice<'a>], usage: Option<ChunkUsage>) -> Self {
        let Head { id, created, model, include_usage: _ } = head;
        Self { id, object: "text_completion", created: *created, model, choices, usage }
    }
}

impl Endpoint for Completions {
    const ID_PREFIX: &'static str = "cmpl-";
    const PROMPT_PARAM: &'static str = "prompt";

    fn parse(body: &[u8]) -> Result<Ask, ApiError> {
        let mut fields = Fields::of_body(body)?;
        let mut parameters = Parameters::take(&mut fields)?;
        parameters.max_tokens.get_or_insert(MAX_TOKENS_DEFAULT);
        let prompt = take_prompt(&mut fields)?;
        Ok(Ask { parameters, prompt, ignored: fields.left_over().collect() })
    }

    fn whole(head: &Head, text: &str, reason: FinishReason, usage: Usage) -> serde_json::Result<Vec<u8>> {
        let choice = Choice { index: 0, text, logprobs: None, finish_reason: Some(finish_reason(reason)) };
        let usage = ChunkUsage::Known(WireUsage::from(usage));
        serde_json::to_vec(&Completion::new(head, &[choice], Some(usage)))
    }

    fn piece(head: &Head, piece: &Piece<'_>) -> Option<serde_json::Result<Vec<u8>>> {
        let choice = |text, finish_reason| [Choice { index: 0, text, logprobs: None, finish_reason }];
        let with_choice;
        let choices: &[Choice<'_>] = match *piece {
            // There is no role to announce.
            Piece::Opening => return None,
            Piece::Text(text) => {
                with_choice = choice(text, None);
                &with_choice
            }
            Piece::Closing(reason) => {
                with_choice = choice("", Some(finish_reason(reason)));
                &with_choice
            }
            Piece::Usage(_) => &[],
        };
        Some(serde_json::to_vec(&Completion::new(head, choices, ChunkUsage::of(head, piece))))
    }
}

/// A text or a list of tokens, alone or as the only element of a list. Tried one after the other on the text: an untagged
/// enum would first build a tree 20 times the size of a long list.
fn take_prompt(fields: &mut Fields<'_>) -> Result<Prompt, ApiError> {
    let Some(raw) = fields.take_raw("prompt") else {
        return Err(ApiError::Missing { param: fields.path("prompt") });
    };
    let json = raw.get();
    let text =
        || serde_json::from_str(json).or_else(|_| serde_json::from_str(json).map(|[text]: [String; 1]| text));
    let tokens = || {
        serde_json::from_str(json)
            .or_else(|_| serde_json::from_str(json).map(|[tokens]: [Vec<u32>; 1]| tokens))
    };
    text()
        .map(Prompt::Text)
        .or_else(|_| tokens().map(Prompt::Tokens))
        .map_err(|_| fields.invalid("prompt", "one string, or one array of token numbers"))
}
