//! What HTTP needs of an engine. Two implementations: the real [`EngineHandle`](sparkherd_engine::EngineHandle), and the
//! scripted engine of [`crate::fake`], which tests and `sparkherd engine --fake` share.

use std::fmt::Debug;

use sparkherd_engine::text::{ChatFormat, ChatPrompt, ReasoningStart};
use sparkherd_engine::{
    CacheSize, Caller, ClientKey, EmbeddingRequest, EngineFailure, EngineStats, Generation,
    GenerationRequest, Grammar, GrammarError, GrammarSource, ModelInfo, PendingEmbedding, SubmitError,
};
use thiserror::Error;

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

/// A conversation as the model is given it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedChat {
    pub tokens: Vec<u32>,
    /// Where the answer begins: among thoughts, or not.
    pub reasoning_start: ReasoningStart,
}

/// An engine as HTTP sees it. Every method returns without waiting for the device.
pub trait ChatEngine: Debug + Send + Sync + 'static {
    fn info(&self) -> ModelInfo;

    fn cache_size(&self) -> CacheSize;

    fn stats(&self) -> EngineStats;

    /// How the model's answers are split into thoughts, words and calls.
    fn chat_format(&self) -> &ChatFormat;

    /// Tokens of a conversation rendered by the model's template. CPU work: call it where blocking is allowed.
    fn encode_chat(&self, prompt: &ChatPrompt) -> Result<EncodedChat, PromptError>;

    /// Tokens of a plain text, `framed` with what the tokenizer puts around every text or not. CPU work as well.
    fn encode_text(&self, text: &str, framed: bool) -> Result<Vec<u32>, PromptError>;

    /// The text of tokens, special ones included; U+FFFD for what is none.
    fn decode(&self, tokens: &[u32]) -> Result<String, PromptError>;

    /// The bytes a token stands for.
    fn token_bytes(&self, token: u32) -> Vec<u8>;

    /// Compiles what an answer must be. Takes seconds at worst: call it where blocking is allowed.
    fn compile_grammar(&self, source: &GrammarSource, account: ClientKey) -> Result<Grammar, GrammarError>;

    /// Counts a place for one request, before anything is spent on it.
    fn reserve(&self, caller: &Caller) -> Result<Box<dyn Place>, SubmitError>;

    /// Takes nothing new from now on; what runs goes on.
    fn drain(&self);

    /// Why the engine can never answer again, if so.
    fn failed(&self) -> Option<EngineFailure>;
}

/// A place for one request, given back when dropped.
pub trait Place: Debug + Send {
    fn submit(self: Box<Self>, request: GenerationRequest) -> Result<Generation, SubmitError>;

    fn embed(self: Box<Self>, request: EmbeddingRequest) -> Result<PendingEmbedding, SubmitError>;
}
