use std::sync::Arc;

use sparkherd_engine::text::ParserOptions;
use sparkherd_engine::{LogprobOptions, Usage};

use super::ApiError;
use super::answer::Answer;
use super::chat::ChatAsk;
use super::parameters::Parameters;
use super::wire::{EventWriter, Members};
use crate::body::BodyKind;
use crate::engine::ChatEngine;

/// What is to be continued.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Prompt {
    Chat(Box<ChatAsk>),
    Texts(Vec<TextPrompt>),
}

/// A prompt as plain text, or as tokens that a client has made itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TextPrompt {
    Text(String),
    Tokens(Vec<u32>),
}

/// A request of either endpoint, understood: the only form the shared path knows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ask {
    pub(super) parameters: Parameters,
    pub(super) prompt: Prompt,
    pub(super) logprobs: LogprobOptions,
    /// Whether answers begin with their prompt.
    pub(super) echo: bool,
    /// Parameters that were not looked at, for `x-sparkherd-ignored`.
    pub(super) ignored: Vec<String>,
}

/// What writing an answer takes.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(super) return_token_ids: bool,
    /// Whether token log-probabilities were asked for.
    pub(super) logprobs: bool,
    /// For the text of single tokens.
    pub(super) engine: Arc<dyn ChatEngine>,
}

/// One choice, before its first token.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(super) prompt_tokens: Arc<[u32]>,
    /// What the answer begins with, where the prompt is echoed.
    pub(super) echo: Option<Arc<str>>,
    /// Whether the sampled token is thrown away: a prompt was sent only to be judged.
    pub(super) only_echo: bool,
    /// How a chat answer is split.
    pub(super) parser: Option<ParserOptions>,
}

/// What differs between the endpoints: how a body is read and how an answer is written.
pub(crate) trait Endpoint: Send + Sync + 'static {
    /// What ids of its answers begin with.
    const ID_PREFIX: &'static str;
    /// `object` of an answer in one document, and of a stream's events.
    const WHOLE: &'static str;
    const EVENT: &'static str;
    /// The parameter that holds the prompt, for errors about it.
    const PROMPT_PARAM: &'static str;
    /// How large a body may be.
    const BODY: BodyKind;

    type Whole: Answer;
    type Stream: Answer + Unpin;

    fn parse(body: &[u8]) -> Result<Ask, ApiError>;

    /// Writes one JSON document at the end.
    fn whole(members: Members, head: Head, starts: Vec<Start>) -> Self::Whole;

    /// Writes an event for each piece.
    fn stream(events: EventWriter, head: Head, starts: Vec<Start>) -> Self::Stream;
}

/// `usage` of all choices together: choices of one prompt share it, so it counts once.
pub(super) fn total_usage(usages: &[Usage], choices_each: usize) -> Usage {
    let prompts = usages.iter().step_by(choices_each.max(1));
    prompts.fold(
        Usage {
            completion_tokens: usages.iter().map(|usage| usage.completion_tokens).sum(),
            ..Usage::default()
        },
        |total, usage| Usage {
            prompt_tokens: total.prompt_tokens.saturating_add(usage.prompt_tokens),
            cached_tokens: total.cached_tokens.saturating_add(usage.cached_tokens),
            ..total
        },
    )
}
