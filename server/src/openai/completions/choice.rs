use sparkherd_engine::{Piece, TokenLogprob};

use super::super::ask::{Head, Start};
use super::super::logprobs::CompletionLogprobs;

/// What one choice has said since it was last written.
#[derive(Debug)]
pub(super) struct CompletionChoice {
    start: Start,
    pub(super) text: String,
    pub(super) logprobs: CompletionLogprobs,
    pub(super) token_ids: Vec<u32>,
    /// Characters before the next token.
    offset: usize,
    /// Whether the prompt's first token is told.
    judged: bool,
}

impl CompletionChoice {
    pub(super) fn new(start: Start) -> Self {
        let text = start.echo.as_deref().unwrap_or_default().to_owned();
        Self {
            start,
            text,
            logprobs: CompletionLogprobs::default(),
            token_ids: Vec::new(),
            offset: 0,
            judged: false,
        }
    }

    pub(super) fn prompt_token_ids(&self) -> &[u32] {
        &self.start.prompt_tokens
    }

    /// The prompt's next tokens; before the first of them is one that nothing came before.
    pub(super) fn push_prompt(&mut self, head: &Head, tokens: &[TokenLogprob]) {
        if !std::mem::replace(&mut self.judged, true)
            && let Some(&first) = self.start.prompt_tokens.first()
        {
            self.offset = self.logprobs.push_first(&*head.engine, first);
        }
        for token in tokens {
            self.offset = self.logprobs.push(&*head.engine, token, self.offset);
        }
    }

    pub(super) fn push(&mut self, head: &Head, piece: Piece) {
        if self.start.only_echo {
            return;
        }
        let Piece { text, tokens } = piece;
        self.text.push_str(&text);
        if head.return_token_ids {
            self.token_ids.extend(tokens.iter().map(|token| token.token));
        }
        if head.logprobs {
            for token in tokens.iter().filter_map(|token| token.logprob.as_ref()) {
                self.offset = self.logprobs.push(&*head.engine, token, self.offset);
            }
        }
    }

    /// A token sampled only because something must be is none of the answer.
    pub(super) const fn is_only_echo(&self) -> bool {
        self.start.only_echo
    }
}
