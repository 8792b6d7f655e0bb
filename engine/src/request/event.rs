use std::time::Duration;

use thiserror::Error;

use super::TokenLogprob;

/// Each accepted request ends in exactly one `Finished` or `Failed` (I19).
#[derive(Clone, Debug, PartialEq)]
pub enum GenerationEvent {
    /// Its first step begins. Once, before all others but a `Failed`.
    Started(Start),
    /// Of each prompt token but the first, which has no distribution. Once and before any text, if asked for.
    Prompt(Vec<TokenLogprob>),
    Text(Piece),
    Finished {
        reason: FinishReason,
        usage: Usage,
    },
    Failed(GenerationError),
}

/// A request leaves the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// From when its place was counted.
    pub waited: Duration,
    /// Of the prompt's tokens, those whose keys and values were found in the prefix cache.
    pub cached_tokens: u32,
}

/// Text that is sure: whole UTF-8, and no prefix of a stop string.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// Empty only if `tokens` is not.
    pub text: String,
    /// The tokens whose text became sure with this piece. The token that ended the answer is in no piece, and neither are
    /// those whose whole text a stop string cut off.
    pub tokens: Vec<SampledToken>,
}

/// A token of the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledToken {
    pub token: u32,
    /// If asked for.
    pub logprob: Option<TokenLogprob>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model's end-of-sequence token, or the end of its grammar.
    Stop,
    /// One of the request's stop strings.
    StopString,
    /// One of the request's `stop_token_ids`.
    StopToken(u32),
    /// `max_tokens` or the context is used up.
    Length,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: u32,
    /// Tokens sampled, an end-of-sequence token included.
    pub completion_tokens: u32,
    /// Of the prompt's tokens, those whose keys and values were found in the prefix cache.
    pub cached_tokens: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GenerationError {
    #[error("engine is draining")]
    Draining,
    #[error("reader fell behind by more than {events} events")]
    SlowReader { events: usize },
    #[error("{phase} took longer than {} s", limit.as_secs_f32())]
    TimedOut { phase: TimeoutPhase, limit: Duration },
    /// The answer cannot go on as the request's grammar says.
    #[error("grammar failed: {0}")]
    Grammar(String),
    /// All answers under grammars together take too much, and this one most.
    #[error("answers under grammars take more memory than there is, and this one most")]
    GrammarsFull,
    #[error("engine failed: {0}")]
    Engine(String),
}

/// What took too long, counted from the request's acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutPhase {
    /// Waiting to run for the first time.
    Queue,
    FirstToken,
    Total,
}

impl std::fmt::Display for TimeoutPhase {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Queue => "waiting to run",
            Self::FirstToken => "the first token",
            Self::Total => "the whole answer",
        })
    }
}
