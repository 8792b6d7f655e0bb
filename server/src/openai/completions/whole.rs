//! A completion as one document.

use serde::Serialize;
use sparkherd_engine::{FinishReason, Piece, TokenLogprob, Usage};

use super::super::answer::{Answer, Documents};
use super::super::ask::{Head, Start};
use super::super::logprobs::CompletionLogprobs;
use super::super::parameters::ServiceTier;
use super::super::wire::{WireUsage, finish_reason, index_u32};
use super::choice::CompletionChoice;

#[derive(Debug)]
pub(crate) struct CompletionWhole {
    head: Head,
    choices: Vec<(CompletionChoice, &'static str)>,
}

#[derive(Serialize)]
struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Choice<'a>>,
    usage: WireUsage,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<ServiceTier>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    text: &'a str,
    logprobs: Option<&'a CompletionLogprobs>,
    finish_reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<&'a [u32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<&'a [u32]>,
}

impl CompletionWhole {
    pub(super) fn new(head: Head, starts: Vec<Start>) -> Self {
        let choices = starts.into_iter().map(|start| (CompletionChoice::new(start), "stop")).collect();
        Self { head, choices }
    }
}

impl Answer for CompletionWhole {
    fn opening(&mut self, _: &mut Documents) -> serde_json::Result<()> {
        Ok(())
    }

    fn prompt(
        &mut self,
        index: usize,
        tokens: Vec<TokenLogprob>,
        _: &mut Documents,
    ) -> serde_json::Result<()> {
        if let Some((choice, _)) = self.choices.get_mut(index) {
            choice.push_prompt(&self.head, &tokens);
        }
        Ok(())
    }

    fn piece(&mut self, index: usize, piece: Piece, _: &mut Documents) -> serde_json::Result<()> {
        if let Some((choice, _)) = self.choices.get_mut(index) {
            choice.push(&self.head, piece);
        }
        Ok(())
    }

    fn closing(&mut self, index: usize, reason: FinishReason, _: &mut Documents) -> serde_json::Result<()> {
        if let Some((choice, ended)) = self.choices.get_mut(index) {
            *ended = if choice.is_only_echo() { "length" } else { finish_reason(reason) };
        }
        Ok(())
    }

    fn end(&mut self, usage: Usage, out: &mut Documents) -> serde_json::Result<()> {
        let Head { id, created, model, service_tier, logprobs, return_token_ids, .. } = &self.head;
        let choices = self.choices.iter().enumerate().map(|(index, (choice, finish_reason))| Choice {
            index: index_u32(index),
            text: &choice.text,
            logprobs: logprobs.then_some(&choice.logprobs),
            finish_reason,
            token_ids: return_token_ids.then_some(&choice.token_ids),
            prompt_token_ids: return_token_ids.then(|| choice.prompt_token_ids()),
        });
        out.write(&Completion {
            id,
            object: "text_completion",
            created: *created,
            model,
            choices: choices.collect(),
            usage: usage.into(),
            service_tier: *service_tier,
        })
    }
}
