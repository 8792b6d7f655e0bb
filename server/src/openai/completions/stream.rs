//! A completion as events.

use serde::Serialize;
use sparkherd_engine::{FinishReason, Piece, TokenLogprob, Usage};

use super::super::answer::{Answer, Documents};
use super::super::ask::{Head, Start};
use super::super::logprobs::CompletionLogprobs;
use super::super::parameters::ServiceTier;
use super::super::wire::{ChunkUsage, finish_reason, index_u32};
use super::choice::CompletionChoice;

#[derive(Debug)]
pub(crate) struct CompletionStream {
    head: Head,
    choices: Vec<CompletionChoice>,
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [Choice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<ChunkUsage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<ServiceTier>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    text: &'a str,
    logprobs: Option<&'a CompletionLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<&'a [u32]>,
}

impl CompletionStream {
    pub(super) fn new(head: Head, starts: Vec<Start>) -> Self {
        Self { head, choices: starts.into_iter().map(CompletionChoice::new).collect() }
    }

    fn write(
        &self,
        choices: &[Choice<'_>],
        usage: Option<ChunkUsage>,
        out: &mut Documents,
    ) -> serde_json::Result<()> {
        let Head { id, created, model, service_tier, .. } = &self.head;
        out.write(&Chunk {
            id,
            object: "text_completion",
            created: *created,
            model,
            choices,
            usage,
            service_tier: *service_tier,
        })
    }

    /// Writes what a choice has said since the last time, if it has or if it ends.
    fn write_choice(
        &mut self,
        index: usize,
        finish_reason: Option<&'static str>,
        out: &mut Documents,
    ) -> serde_json::Result<()> {
        let Some(choice) = self.choices.get_mut(index) else { return Ok(()) };
        if choice.text.is_empty() && finish_reason.is_none() {
            return Ok(());
        }
        let text = std::mem::take(&mut choice.text);
        let logprobs = std::mem::take(&mut choice.logprobs);
        let token_ids = std::mem::take(&mut choice.token_ids);
        let choice = Choice {
            index: index_u32(index),
            text: &text,
            logprobs: (!logprobs.is_empty()).then_some(&logprobs),
            finish_reason,
            token_ids: self.head.return_token_ids.then_some(&token_ids),
        };
        self.write(&[choice], self.head.include_usage.then_some(ChunkUsage::Null), out)
    }
}

impl Answer for CompletionStream {
    /// There is no role to announce; an echoed prompt comes first.
    fn opening(&mut self, out: &mut Documents) -> serde_json::Result<()> {
        if self.head.logprobs {
            // Its log-probabilities are not known yet, and belong to it.
            return Ok(());
        }
        (0..self.choices.len()).try_for_each(|index| self.write_choice(index, None, out))
    }

    fn prompt(
        &mut self,
        index: usize,
        tokens: Vec<TokenLogprob>,
        out: &mut Documents,
    ) -> serde_json::Result<()> {
        if let Some(choice) = self.choices.get_mut(index) {
            choice.push_prompt(&self.head, &tokens);
        }
        self.write_choice(index, None, out)
    }

    fn piece(&mut self, index: usize, piece: Piece, out: &mut Documents) -> serde_json::Result<()> {
        if let Some(choice) = self.choices.get_mut(index) {
            choice.push(&self.head, piece);
        }
        self.write_choice(index, None, out)
    }

    fn closing(&mut self, index: usize, reason: FinishReason, out: &mut Documents) -> serde_json::Result<()> {
        let only_echo = self.choices.get(index).is_some_and(CompletionChoice::is_only_echo);
        let reason = if only_echo { "length" } else { finish_reason(reason) };
        self.write_choice(index, Some(reason), out)
    }

    fn end(&mut self, usage: Usage, out: &mut Documents) -> serde_json::Result<()> {
        if self.head.include_usage {
            self.write(&[], Some(ChunkUsage::Known(usage.into())), out)?;
        }
        Ok(())
    }
}
