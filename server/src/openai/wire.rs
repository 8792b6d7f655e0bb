//! Pieces of answers that both endpoints write in the same way.

use serde::Serialize;
use sparkherd_engine::{FinishReason, Usage};

use super::answer::{ChoiceNow, Documents};
use super::parameters::{ServiceTier, StreamUsage};

pub(super) const fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop | FinishReason::StopString | FinishReason::StopToken(_) => "stop",
        FinishReason::Length => "length",
    }
}

/// Choices are few.
pub(super) fn index_u32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// Members of an object, rendered once: those that all documents of one answer begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Members {
    open_object: Vec<u8>,
}

/// What all documents of one answer begin with.
#[derive(Debug, Serialize)]
pub(super) struct Common<'a> {
    pub(super) id: &'a str,
    pub(super) object: &'static str,
    /// Unix time of the request, seconds.
    pub(super) created: u64,
    pub(super) model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service_tier: Option<ServiceTier>,
}

impl Members {
    pub(super) fn new(common: &Common<'_>) -> serde_json::Result<Self> {
        let mut open_object = serde_json::to_vec(common)?;
        // The closing brace.
        open_object.pop();
        Ok(Self { open_object })
    }

    /// The object without its end.
    pub(super) fn open_object(&self) -> &[u8] {
        &self.open_object
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
    /// Tokens of the prompt that the prefix cache had.
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

/// `usage` of a stream's event, where it was asked for: null but in the last, or what the event's choice has used by then.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum ChunkUsage {
    Null,
    Known(WireUsage),
}

/// A stream's event, beside what all of its events say.
#[derive(Debug, Serialize)]
struct Chunk<'a, C> {
    choices: &'a [C],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<ChunkUsage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<&'a [u32]>,
}

/// An answer in one document, beside what its stream's events would say too.
#[derive(Debug, Serialize)]
struct Whole<'a, C> {
    choices: &'a [C],
    usage: WireUsage,
    /// Always null: there is one backend, and the version is at `/version`.
    system_fingerprint: (),
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<&'a [u32]>,
}

/// Writes the events of one stream.
#[derive(Debug)]
pub(crate) struct EventWriter {
    members: Members,
    usage: StreamUsage,
}

impl EventWriter {
    pub(super) const fn new(members: Members, usage: StreamUsage) -> Self {
        Self { members, usage }
    }

    /// An event of the choice `now` is about.
    pub(super) fn write(
        &self,
        now: ChoiceNow,
        choice: impl Serialize,
        prompt_token_ids: Option<&[u32]>,
        out: &mut Documents,
    ) -> serde_json::Result<()> {
        let usage = match self.usage {
            StreamUsage::Never => None,
            StreamUsage::AtTheEnd => Some(ChunkUsage::Null),
            StreamUsage::Continuous { .. } => Some(ChunkUsage::Known(now.usage.into())),
        };
        out.write(&self.members, &Chunk { choices: &[choice], usage, prompt_token_ids })
    }

    /// The event after all choices, if there is to be one.
    pub(super) fn end(&self, usage: Usage, out: &mut Documents) -> serde_json::Result<()> {
        if !matches!(self.usage, StreamUsage::AtTheEnd | StreamUsage::Continuous { and_at_the_end: true }) {
            return Ok(());
        }
        let usage = Some(ChunkUsage::Known(usage.into()));
        out.write(&self.members, &Chunk::<()> { choices: &[], usage, prompt_token_ids: None })
    }
}

/// Writes an answer as one document.
pub(super) fn write_whole(
    members: &Members,
    choices: &[impl Serialize],
    usage: Usage,
    prompt_token_ids: Option<&[u32]>,
    out: &mut Documents,
) -> serde_json::Result<()> {
    let usage = usage.into();
    out.write(members, &Whole { choices, usage, system_fingerprint: (), prompt_token_ids })
}
