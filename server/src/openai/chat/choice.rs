use sparkherd_engine::text::{ChatDelta, ChatParser};
use sparkherd_engine::{FinishReason, Piece, TokenLogprob};

use super::super::ask::{Head, Start};
use super::super::wire::finish_reason;

/// What one choice has said, of which some may still be withheld.
#[derive(Debug)]
pub(super) struct ChatChoice {
    parser: Option<ChatParser>,
    /// Of tokens whose text has not been written yet.
    pub(super) logprobs: Vec<TokenLogprob>,
    pub(super) token_ids: Vec<u32>,
    called: bool,
}

impl ChatChoice {
    pub(super) fn new(head: &Head, start: Start) -> Self {
        let parser = start.parser.map(|options| head.engine.chat_format().parser(options));
        Self { parser, logprobs: Vec::new(), token_ids: Vec::new(), called: false }
    }

    /// The parts of the answer that are sure with this piece.
    pub(super) fn push(&mut self, head: &Head, piece: Piece) -> Vec<ChatDelta> {
        let Piece { text, tokens } = piece;
        if head.logprobs {
            self.logprobs.extend(tokens.iter().filter_map(|token| token.logprob.clone()));
        }
        if head.return_token_ids {
            self.token_ids.extend(tokens.iter().map(|token| token.token));
        }
        let deltas = match &mut self.parser {
            Some(parser) => parser.push(&text),
            None if text.is_empty() => Vec::new(),
            None => vec![ChatDelta::Content(text)],
        };
        self.noted(deltas)
    }

    /// What is left when no text follows.
    pub(super) fn finish(&mut self) -> Vec<ChatDelta> {
        let deltas = self.parser.as_mut().map(ChatParser::finish).unwrap_or_default();
        self.noted(deltas)
    }

    fn noted(&mut self, deltas: Vec<ChatDelta>) -> Vec<ChatDelta> {
        self.called |= deltas.iter().any(|delta| matches!(delta, ChatDelta::ToolCallStart { .. }));
        deltas
    }

    /// An answer cut in the middle of a call, by a stop string as well as by its length, says so rather than that it is calls:
    /// whoever reads `tool_calls` finds every call whole.
    pub(super) fn finish_reason(&self, reason: FinishReason) -> &'static str {
        let is_cut =
            reason == FinishReason::Length || self.parser.as_ref().is_some_and(ChatParser::is_call_cut);
        if self.called && !is_cut { "tool_calls" } else { finish_reason(reason) }
    }
}
