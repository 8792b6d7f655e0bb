//! `POST /v1/chat/completions`.

use serde::Serialize;
use sparkherd_engine::{FinishReason, Usage};

use super::ApiError;
use super::ask::{Ask, Endpoint, Prompt};
use super::fields::Fields;
use super::messages::take_messages;
use super::parameters::Parameters;
use super::wire::{ChunkUsage, Head, Piece, WireUsage, finish_reason};

#[derive(Debug)]
pub(crate) struct Chat;

#[derive(Debug, Serialize)]
struct ChatCompletion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: [Choice<'a>; 1],
    usage: WireUsage,
    system_fingerprint: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Choice<'a> {
    index: u32,
    message: AnswerMessage<'a>,
    logprobs: Option<()>,
    finish_reason: &'static str,
}

#[derive(Debug, Serialize)]
struct AnswerMessage<'a> {
    role: &'static str,
    content: &'a str,
    refusal: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct ChatCompletionChunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [ChunkChoice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<ChunkUsage>,
}

#[derive(Debug, Serialize)]
struct ChunkChoice<'a> {
    index: u32,
    delta: Delta<'a>,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

#[derive(Debug, Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

impl Endpoint for Chat {
    const ID_PREFIX: &'static str = "chatcmpl-";
    const PROMPT_PARAM: &'static str = "messages";

    fn parse(body: &[u8]) -> Result<Ask, ApiError> {
        let mut fields = Fields::of_body(body)?;
        let parameters = Parameters::take(&mut fields)?;
        let mut ignored = Vec::new();
        let messages = take_messages(&mut fields, &mut ignored)?;
        ignored.extend(fields.left_over());
        Ok(Ask { parameters, prompt: Prompt::Messages(messages), ignored })
    }

    fn whole(head: &Head, text: &str, reason: FinishReason, usage: Usage) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&ChatCompletion {
            id: &head.id,
            object: "chat.completion",
            created: head.created,
            model: &head.model,
            choices: [Choice {
                index: 0,
                message: AnswerMessage { role: "assistant", content: text, refusal: None },
                logprobs: None,
                finish_reason: finish_reason(reason),
            }],
            usage: usage.into(),
            system_fingerprint: None,
        })
    }

    fn piece(head: &Head, piece: &Piece<'_>) -> Option<serde_json::Result<Vec<u8>>> {
        let choice = |delta, finish_reason| [ChunkChoice { index: 0, delta, logprobs: None, finish_reason }];
        let with_choice;
        let choices: &[ChunkChoice<'_>] = match *piece {
            // Role and an empty content, once: clients that fold deltas would else repeat the role.
            Piece::Opening => {
                with_choice = choice(Delta { role: Some("assistant"), content: Some("") }, None);
                &with_choice
            }
            Piece::Text(text) => {
                with_choice = choice(Delta { role: None, content: Some(text) }, None);
                &with_choice
            }
            Piece::Closing(reason) => {
                with_choice = choice(Delta::default(), Some(finish_reason(reason)));
                &with_choice
            }
            Piece::Usage(_) => &[],
        };
        Some(serde_json::to_vec(&ChatCompletionChunk {
            id: &head.id,
            object: "chat.completion.chunk",
            created: head.created,
            model: &head.model,
            choices,
            usage: ChunkUsage::of(head, piece),
        }))
    }
}
