//! A completion as events.

use serde::Serialize;
use sparkherd_engine::{FinishReason, Piece, TokenLogprob, Usage};

use super::super::answer::{Answer, ChoiceNow, Documents};
use super::super::ask::{Head, Start};
use super::super::logprobs::CompletionLogprobs;
use super::super::wire::{EventWriter, finish_reason, index_u32};
use super::choice::CompletionChoice;

#[derive(Debug)]
pub(crate) struct CompletionStream {
    events: EventWriter,
    head: Head,
    choices: Vec<CompletionChoice>,
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
    pub(super) fn new(events: EventWriter, head: Head, starts: Vec<Start>) -> Self {
        Self { events, head, choices: starts.into_iter().map(CompletionChoice::new).collect() }
    }

    /// Writes what a choice has said since the last time, if it has or if it ends.
    fn write_choice(
        &mut self,
        now: ChoiceNow,
        finish_reason: Option<&'static str>,
        out: &mut Documents,
    ) -> serde_json::Result<()> {
        let Some(choice) = self.choices.get_mut(now.index) else { return Ok(()) };
        if choice.text.is_empty() && finish_reason.is_none() {
            return Ok(());
        }
        let text = std::mem::take(&mut choice.text);
        let logprobs = std::mem::take(&mut choice.logprobs);
        let token_ids = std::mem::take(&mut choice.token_ids);
        let choice = Choice {
            index: index_u32(now.index),
            text: &text,
            logprobs: (!logprobs.is_empty()).then_some(&logprobs),
            finish_reason,
            token_ids: self.head.return_token_ids.then_some(&token_ids),
        };
        self.events.write(now, choice, None, out)
    }
}

impl Answer for CompletionStream {
    /// There is no role to announce; an echoed prompt comes first.
    fn opening(&mut self, now: ChoiceNow, out: &mut Documents) -> serde_json::Result<()> {
        if self.head.logprobs {
            // Its log-probabilities are not known yet, and belong to it.
            return Ok(());
        }
        self.write_choice(now, None, out)
    }

    fn prompt(
        &mut self,
        now: ChoiceNow,
        tokens: Vec<TokenLogprob>,
        _: &mut Documents,
    ) -> serde_json::Result<()> {
        if let Some(choice) = self.choices.get_mut(now.index) {
            choice.push_prompt(&self.head, &tokens);
        }
        Ok(())
    }

    fn piece(&mut self, now: ChoiceNow, piece: Piece, out: &mut Documents) -> serde_json::Result<()> {
        // The prompt, once all of it is judged.
        self.write_choice(now, None, out)?;
        if let Some(choice) = self.choices.get_mut(now.index) {
            choice.push(&self.head, piece);
        }
        self.write_choice(now, None, out)
    }

    fn closing(
        &mut self,
        now: ChoiceNow,
        reason: FinishReason,
        out: &mut Documents,
    ) -> serde_json::Result<()> {
        let only_echo = self.choices.get(now.index).is_some_and(CompletionChoice::is_only_echo);
        let reason = if only_echo { "length" } else { finish_reason(reason) };
        self.write_choice(now, None, out)?;
        self.write_choice(now, Some(reason), out)
    }

    fn end(&mut self, usage: Usage, out: &mut Documents) -> serde_json::Result<()> {
        self.events.end(usage, out)
    }
}
