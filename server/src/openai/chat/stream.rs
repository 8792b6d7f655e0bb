//! A chat answer as events.

use serde::Serialize;
use sparkherd_engine::text::ChatDelta;
use sparkherd_engine::{FinishReason, Piece, TokenLogprob, Usage};

use super::super::answer::{Answer, ChoiceNow, Documents};
use super::super::ask::{Head, Start};
use super::super::logprobs::ChatLogprobs;
use super::super::wire::{EventWriter, index_u32};
use super::choice::ChatChoice;

/// Probabilities of so many tokens, with those beside them, that wait for their text: with twenty each, 150 kB.
const LOGPROBS_WITHHELD_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct ChatStream {
    events: EventWriter,
    head: Head,
    prompt_token_ids: Option<std::sync::Arc<[u32]>>,
    choices: Vec<ChatChoice>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    delta: Delta<'a>,
    logprobs: Option<ChatLogprobs<'a>>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<&'a [u32]>,
}

#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    /// Thoughts under vLLM's name and under `DeepSeek`'s: clients read one or the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[Call<'a>; 1]>,
}

/// The first event of a call has its id and name, the next one its arguments.
#[derive(Serialize)]
struct Call<'a> {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

impl<'a> Delta<'a> {
    fn of(delta: &'a ChatDelta) -> Self {
        let call = |index, id, kind, name, arguments| Self {
            tool_calls: Some([Call { index, id, kind, function: Function { name, arguments } }]),
            ..Self::default()
        };
        match delta {
            ChatDelta::Content(text) => Self { content: Some(text), ..Self::default() },
            ChatDelta::Reasoning(text) => {
                Self { reasoning: Some(text), reasoning_content: Some(text), ..Self::default() }
            }
            ChatDelta::ToolCallStart { index, id, name } => {
                call(*index, Some(id), Some("function"), Some(name), "")
            }
            ChatDelta::ToolCallArguments { index, text } => call(*index, None, None, None, text),
        }
    }
}

impl ChatStream {
    pub(super) fn new(events: EventWriter, head: Head, starts: Vec<Start>) -> Self {
        let prompt_tokens = starts.first().map(|start| std::sync::Arc::clone(&start.prompt_tokens));
        let prompt_token_ids = prompt_tokens.filter(|_| head.return_token_ids);
        let choices = starts.into_iter().map(|start| ChatChoice::new(&head, start)).collect();
        Self { events, head, prompt_token_ids, choices }
    }

    /// Writes one event for each delta, or an empty one; the first carries the log-probabilities of the tokens there have been.
    fn deltas(
        &self,
        now: ChoiceNow,
        deltas: &[ChatDelta],
        logprobs: &[TokenLogprob],
        token_ids: &[u32],
        out: &mut Documents,
    ) -> serde_json::Result<()> {
        let first = deltas.first().map(Delta::of).unwrap_or_default();
        let rest = deltas.iter().skip(1).map(Delta::of);
        for (position, delta) in std::iter::once(first).chain(rest).enumerate() {
            let first = position == 0;
            let choice = Choice {
                index: index_u32(now.index),
                delta,
                logprobs: (first && self.head.logprobs)
                    .then_some(ChatLogprobs::new(&*self.head.engine, logprobs)),
                finish_reason: None,
                token_ids: (first && self.head.return_token_ids).then_some(token_ids),
            };
            self.events.write(now, choice, None, out)?;
        }
        Ok(())
    }
}

impl Answer for ChatStream {
    /// Role and an empty content, once: clients that fold deltas would else repeat the role.
    fn opening(&mut self, now: ChoiceNow, out: &mut Documents) -> serde_json::Result<()> {
        let delta = Delta { role: Some("assistant"), content: Some(""), ..Delta::default() };
        let index = index_u32(now.index);
        let choice = Choice { index, delta, logprobs: None, finish_reason: None, token_ids: None };
        let prompt_token_ids = self.prompt_token_ids.as_deref().filter(|_| now.index == 0);
        self.events.write(now, choice, prompt_token_ids, out)
    }

    fn prompt(&mut self, _: ChoiceNow, _: Vec<TokenLogprob>, _: &mut Documents) -> serde_json::Result<()> {
        Ok(())
    }

    fn piece(&mut self, now: ChoiceNow, piece: Piece, out: &mut Documents) -> serde_json::Result<()> {
        let Some(choice) = self.choices.get_mut(now.index) else { return Ok(()) };
        let deltas = choice.push(&self.head, piece);
        // A call is withheld until it is whole, and has no end of probabilities.
        if deltas.is_empty() && choice.logprobs.len() < LOGPROBS_WITHHELD_MAX {
            return Ok(());
        }
        let (logprobs, token_ids) =
            (std::mem::take(&mut choice.logprobs), std::mem::take(&mut choice.token_ids));
        self.deltas(now, &deltas, &logprobs, &token_ids, out)
    }

    fn closing(
        &mut self,
        now: ChoiceNow,
        reason: FinishReason,
        out: &mut Documents,
    ) -> serde_json::Result<()> {
        let Some(choice) = self.choices.get_mut(now.index) else { return Ok(()) };
        let deltas = choice.finish();
        let finish_reason = choice.finish_reason(reason);
        let (mut logprobs, mut token_ids) =
            (std::mem::take(&mut choice.logprobs), std::mem::take(&mut choice.token_ids));
        if !deltas.is_empty() {
            self.deltas(now, &deltas, &logprobs, &token_ids, out)?;
            logprobs.clear();
            token_ids.clear();
        }
        let choice = Choice {
            index: index_u32(now.index),
            delta: Delta::default(),
            // Tokens without text of their own, such as the one that ended the answer.
            logprobs: (!logprobs.is_empty()).then_some(ChatLogprobs::new(&*self.head.engine, &logprobs)),
            finish_reason: Some(finish_reason),
            token_ids: (!token_ids.is_empty()).then_some(&token_ids),
        };
        self.events.write(now, choice, None, out)
    }

    fn end(&mut self, usage: Usage, out: &mut Documents) -> serde_json::Result<()> {
        self.events.end(usage, out)
    }
}
