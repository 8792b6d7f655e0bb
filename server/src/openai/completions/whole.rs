//! A completion as one document.

use serde::Serialize;
use sparkherd_engine::{FinishReason, Piece, TokenLogprob, Usage};

use super::super::answer::{Answer, ChoiceNow, Documents};
use super::super::ask::{Head, Start};
use super::super::logprobs::CompletionLogprobs;
use super::super::wire::{Members, finish_reason, index_u32, write_whole};
use super::choice::CompletionChoice;

#[derive(Debug)]
pub(crate) struct CompletionWhole {
    members: Members,
    head: Head,
    choices: Vec<(CompletionChoice, &'static str)>,
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
    pub(super) fn new(members: Members, head: Head, starts: Vec<Start>) -> Self {
        let choices = starts.into_iter().map(|start| (CompletionChoice::new(start), "stop")).collect();
        Self { members, head, choices }
    }
}

impl Answer for CompletionWhole {
    fn opening(&mut self, _: ChoiceNow, _: &mut Documents) -> serde_json::Result<()> {
        Ok(())
    }

    fn prompt(
        &mut self,
        now: ChoiceNow,
        tokens: Vec<TokenLogprob>,
        _: &mut Documents,
    ) -> serde_json::Result<()> {
        if let Some((choice, _)) = self.choices.get_mut(now.index) {
            choice.push_prompt(&self.head, &tokens);
        }
        Ok(())
    }

    fn piece(&mut self, now: ChoiceNow, piece: Piece, _: &mut Documents) -> serde_json::Result<()> {
        if let Some((choice, _)) = self.choices.get_mut(now.index) {
            choice.push(&self.head, piece);
        }
        Ok(())
    }

    fn closing(&mut self, now: ChoiceNow, reason: FinishReason, _: &mut Documents) -> serde_json::Result<()> {
        if let Some((choice, ended)) = self.choices.get_mut(now.index) {
            *ended = if choice.is_only_echo() { "length" } else { finish_reason(reason) };
        }
        Ok(())
    }

    fn end(&mut self, usage: Usage, out: &mut Documents) -> serde_json::Result<()> {
        let Head { logprobs, return_token_ids, .. } = self.head;
        let choices = self.choices.iter().enumerate().map(|(index, (choice, finish_reason))| Choice {
            index: index_u32(index),
            text: &choice.text,
            logprobs: logprobs.then_some(&choice.logprobs),
            finish_reason,
            token_ids: return_token_ids.then_some(&choice.token_ids),
            prompt_token_ids: return_token_ids.then(|| choice.prompt_token_ids()),
        });
        let choices: Vec<Choice<'_>> = choices.collect();
        write_whole(&self.members, &choices, usage, None, out)
    }
}
