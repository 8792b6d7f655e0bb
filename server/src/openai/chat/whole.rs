//! A chat answer as one document.

use serde::Serialize;
use sparkherd_engine::text::ChatDelta;
use sparkherd_engine::{FinishReason, Piece, TokenLogprob, Usage};

use super::super::answer::{Answer, ChoiceNow, Documents};
use super::super::ask::{Head, Start};
use super::super::logprobs::ChatLogprobs;
use super::super::wire::{Members, index_u32, write_whole};
use super::choice::ChatChoice;

#[derive(Debug)]
pub(crate) struct ChatWhole {
    members: Members,
    head: Head,
    prompt_token_ids: Option<std::sync::Arc<[u32]>>,
    choices: Vec<WholeChoice>,
}

#[derive(Debug)]
struct WholeChoice {
    choice: ChatChoice,
    content: String,
    reasoning: String,
    calls: Vec<Call>,
    finish_reason: &'static str,
}

#[derive(Debug, Serialize)]
struct Call {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    function: Function,
}

#[derive(Debug, Serialize)]
struct Function {
    name: String,
    arguments: String,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    message: Message<'a>,
    logprobs: Option<ChatLogprobs<'a>>,
    finish_reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<&'a [u32]>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    /// `null` beside calls only: an answer of no tokens is an empty text.
    content: Option<&'a str>,
    refusal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "<[Call]>::is_empty")]
    tool_calls: &'a [Call],
}

impl WholeChoice {
    fn fold(&mut self, deltas: Vec<ChatDelta>) {
        for delta in deltas {
            match delta {
                ChatDelta::Content(text) => self.content.push_str(&text),
                ChatDelta::Reasoning(text) => self.reasoning.push_str(&text),
                ChatDelta::ToolCallStart { index: _, id, name } => {
                    let function = Function { name, arguments: String::new() };
                    self.calls.push(Call { id, kind: "function", function });
                }
                // Arguments follow their call's start, and calls do not interleave.
                ChatDelta::ToolCallArguments { index: _, text } => {
                    if let Some(call) = self.calls.last_mut() {
                        call.function.arguments.push_str(&text);
                    }
                }
            }
        }
    }

    fn message(&self) -> Message<'_> {
        let reasoning = (!self.reasoning.is_empty()).then_some(self.reasoning.as_str());
        Message {
            role: "assistant",
            content: (self.calls.is_empty() || !self.content.is_empty()).then_some(&self.content),
            refusal: None,
            reasoning,
            reasoning_content: reasoning,
            tool_calls: &self.calls,
        }
    }
}

impl ChatWhole {
    pub(super) fn new(members: Members, head: Head, starts: Vec<Start>) -> Self {
        let prompt_tokens = starts.first().map(|start| std::sync::Arc::clone(&start.prompt_tokens));
        let prompt_token_ids = prompt_tokens.filter(|_| head.return_token_ids);
        let choices = starts.into_iter().map(|start| WholeChoice {
            choice: ChatChoice::new(&head, start),
            content: String::new(),
            reasoning: String::new(),
            calls: Vec::new(),
            finish_reason: "stop",
        });
        let choices = choices.collect();
        Self { members, head, prompt_token_ids, choices }
    }
}

impl Answer for ChatWhole {
    fn opening(&mut self, _: ChoiceNow, _: &mut Documents) -> serde_json::Result<()> {
        Ok(())
    }

    fn prompt(&mut self, _: ChoiceNow, _: Vec<TokenLogprob>, _: &mut Documents) -> serde_json::Result<()> {
        Ok(())
    }

    fn piece(&mut self, now: ChoiceNow, piece: Piece, _: &mut Documents) -> serde_json::Result<()> {
        if let Some(whole) = self.choices.get_mut(now.index) {
            let deltas = whole.choice.push(&self.head, piece);
            whole.fold(deltas);
        }
        Ok(())
    }

    fn closing(&mut self, now: ChoiceNow, reason: FinishReason, _: &mut Documents) -> serde_json::Result<()> {
        if let Some(whole) = self.choices.get_mut(now.index) {
            let deltas = whole.choice.finish();
            whole.fold(deltas);
            whole.finish_reason = whole.choice.finish_reason(reason);
        }
        Ok(())
    }

    fn end(&mut self, usage: Usage, out: &mut Documents) -> serde_json::Result<()> {
        let Head { return_token_ids, logprobs, ref engine } = self.head;
        let choices = self.choices.iter().enumerate().map(|(index, whole)| Choice {
            index: index_u32(index),
            message: whole.message(),
            logprobs: logprobs.then_some(ChatLogprobs::new(&**engine, &whole.choice.logprobs)),
            finish_reason: whole.finish_reason,
            token_ids: return_token_ids.then_some(&whole.choice.token_ids),
        });
        let choices: Vec<Choice<'_>> = choices.collect();
        write_whole(&self.members, &choices, usage, self.prompt_token_ids.as_deref(), out)
    }
}
