//! Pieces of answers that both endpoints write in the same way.

use serde::Serialize;
use sparkherd_engine::{FinishReason, Usage};

/// What every part of one answer repeats.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(super) id: String,
    /// Unix time of the request, seconds.
    pub(super) created: u64,
    pub(super) model: String,
    /// Streams that asked for usage carry `"usage": null` until the last event.
    pub(super) include_usage: bool,
}

/// What a stream says, in order: `Opening`, any number of `Text`, `Closing`, and `Usage` if asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Piece<'a> {
    Opening,
    Text(&'a str),
    Closing(FinishReason),
    Usage(Usage),
}

pub(super) const fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop | FinishReason::StopString | FinishReason::StopToken(_) => "stop",
        FinishReason::Length => "length",
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct WireUsage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptTokensDetails,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct PromptTokensDetails {
    /// No prompt is kept between requests yet.
    cached_tokens: u32,
}

impl From<Usage> for WireUsage {
    fn from(usage: Usage) -> Self {
        let Usage { prompt_tokens, completion_tokens, cached_tokens } = usage;
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens.saturating_add(completion_tokens),
            prompt_tokens_details: PromptTokensDetails { cached_tokens },
        }
    }
}

/// `usage` of a stream's event: absent unless asked for, then null but in the last.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum ChunkUsage {
    Null,
    Known(WireUsage),
}

impl ChunkUsage {
    pub(super) fn of(head: &Head, piece: &Piece<'_>) -> Option<Self> {
        let usage = if let Piece::Usage(usage) = piece { Self::Known((*usage).into()) } else { Self::Null };
        head.include_usage.then_some(usage)
    }
}
