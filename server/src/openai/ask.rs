use sparkherd_engine::{FinishReason, Usage};

use super::ApiError;
use super::parameters::Parameters;
use super::wire::{Head, Piece};
use crate::engine::ChatMessage;

/// What is to be continued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Prompt {
    Messages(Vec<ChatMessage>),
    Text(String),
    Tokens(Vec<u32>),
}

/// A request of either endpoint, understood: the only form the shared path knows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ask {
    pub(super) parameters: Parameters,
    pub(super) prompt: Prompt,
    /// Parameters that were not looked at, for `x-sparkherd-ignored`.
    pub(super) ignored: Vec<String>,
}

/// What differs between the endpoints: how a body is read and how an answer is written.
pub(crate) trait Endpoint: Send + Sync + 'static {
    /// What ids of its answers begin with.
    const ID_PREFIX: &'static str;
    /// The parameter that holds the prompt, for errors about it.
    const PROMPT_PARAM: &'static str;

    fn parse(body: &[u8]) -> Result<Ask, ApiError>;

    /// The whole answer as one JSON document.
    fn whole(head: &Head, text: &str, reason: FinishReason, usage: Usage) -> serde_json::Result<Vec<u8>>;

    /// One event of a stream, or `None` where this endpoint has nothing to say.
    fn piece(head: &Head, piece: &Piece<'_>) -> Option<serde_json::Result<Vec<u8>>>;
}
