//! What HTTP needs of an engine. Two implementations: the real [`EngineHandle`](sparkherd_engine::EngineHandle), and the
//! scripted engine of [`crate::fake`], which tests and `sparkherd engine --fake` share.

use std::fmt::Debug;

use serde::Serialize;
use sparkherd_engine::{EngineStats, Generation, GenerationRequest, ModelInfo, SubmitError};
use thiserror::Error;

/// Who speaks. A request's `developer` is `System`: the name OpenAI gave the same role later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
}

/// One message of a conversation, with its text parts joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChatMessage {
    pub role: Role,
    pub content: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PromptError {
    #[error("model has no chat template: use /v1/completions")]
    NoChatTemplate,
    /// The template's own words, e.g. that roles must alternate.
    #[error("chat template refused the messages: {0}")]
    Template(String),
    /// Found before all of it was tokenised, which costs memory by the length.
    #[error("prompt has more than {tokens} tokens")]
    TooLong { tokens: usize },
    #[error("tokenizer failed: {0}")]
    Tokenizer(String),
}

/// An engine as HTTP sees it. Every method returns without waiting for the device.
pub trait ChatEngine: Debug + Send + Sync + 'static {
    fn info(&self) -> ModelInfo;

    fn stats(&self) -> EngineStats;

    /// Tokens of a conversation rendered by the model's template, up to where the assistant answers. CPU work: call it
    /// where blocking is allowed.
    fn encode_chat(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, PromptError>;

    /// Tokens of a plain text, with what the tokenizer puts in front of every text. CPU work as well.
    fn encode_text(&self, text: &str) -> Result<Vec<u32>, PromptError>;

    fn submit(&self, request: GenerationRequest) -> Result<Generation, SubmitError>;

    /// Takes nothing new from now on; what runs goes on.
    fn drain(&self);

    /// Why the engine can never answer again, if so.
    fn failed(&self) -> Option<String>;
}
