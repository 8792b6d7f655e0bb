//! Log-probabilities of tokens, in chat's form and in the older form of completions.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use sparkherd_engine::TokenLogprob;

use crate::engine::ChatEngine;

/// OpenAI's limit for chat, and vLLM's for both.
pub(super) const TOP_LOGPROBS_MAX: u32 = 20;

/// What JSON has instead of the logarithm of 0, as vLLM writes it.
const LOGPROB_MIN: f32 = -9999.0;

/// `logprobs` of one choice or event of chat: made text as it is written, which takes ten times what the numbers take.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct ChatLogprobs<'a> {
    content: ChatContent<'a>,
    refusal: Option<()>,
}

#[derive(Clone, Copy, Debug)]
struct ChatContent<'a> {
    engine: &'a dyn ChatEngine,
    tokens: &'a [TokenLogprob],
}

impl<'a> ChatLogprobs<'a> {
    pub(super) const fn new(engine: &'a dyn ChatEngine, tokens: &'a [TokenLogprob]) -> Self {
        Self { content: ChatContent { engine, tokens }, refusal: None }
    }
}

impl Serialize for ChatContent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.tokens.iter().map(|token| ChatLogprob::new(self.engine, token)))
    }
}

#[derive(Serialize)]
struct ChatLogprob {
    #[serde(flatten)]
    token: TokenText,
    top_logprobs: Vec<TokenText>,
}

impl ChatLogprob {
    fn new(engine: &dyn ChatEngine, judged: &TokenLogprob) -> Self {
        let TokenLogprob { token, logprob, top } = judged;
        let text = |(token, logprob): &(u32, f32)| TokenText::new(engine, *token, *logprob);
        Self { token: text(&(*token, *logprob)), top_logprobs: top.iter().map(text).collect() }
    }
}

/// A token as text. One that is part of a character has U+FFFD there, and its true bytes beside.
#[derive(Serialize)]
struct TokenText {
    token: String,
    #[serde(serialize_with = "finite")]
    logprob: f32,
    bytes: Vec<u8>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls it with")]
fn finite<S: Serializer>(logprob: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f32(logprob.max(LOGPROB_MIN))
}

impl TokenText {
    fn new(engine: &dyn ChatEngine, token: u32, logprob: f32) -> Self {
        let bytes = engine.token_bytes(token);
        Self { token: String::from_utf8_lossy(&bytes).into_owned(), logprob, bytes }
    }
}

fn token_text(engine: &dyn ChatEngine, token: u32) -> String {
    String::from_utf8_lossy(&engine.token_bytes(token)).into_owned()
}

/// `logprobs` of one choice or event of completions: one entry a token in each list.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct CompletionLogprobs {
    tokens: Vec<String>,
    /// `null` for the first token of a prompt, which nothing came before.
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
    /// Characters of the answer's text before the token; of text as its tokens spell it.
    text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    /// Adds the first token of a prompt, which nothing came before; returns where the next one begins.
    pub(super) fn push_first(&mut self, engine: &dyn ChatEngine, token: u32) -> usize {
        let text = token_text(engine, token);
        let next = text.chars().count();
        self.tokens.push(text);
        self.token_logprobs.push(None);
        self.top_logprobs.push(None);
        self.text_offset.push(0);
        next
    }

    /// Adds a token that begins `offset` characters into the text; returns where the next one begins.
    pub(super) fn push(&mut self, engine: &dyn ChatEngine, judged: &TokenLogprob, offset: usize) -> usize {
        let TokenLogprob { token, logprob, top } = judged;
        let text = token_text(engine, *token);
        let logprob = logprob.max(LOGPROB_MIN);
        let likeliest =
            top.iter().map(|(token, logprob)| (token_text(engine, *token), logprob.max(LOGPROB_MIN)));
        let mut likeliest: BTreeMap<String, f32> = likeliest.collect();
        // The token itself is among them, however unlikely it was.
        likeliest.entry(text.clone()).or_insert(logprob);
        let next = offset + text.chars().count();
        self.tokens.push(text);
        self.token_logprobs.push(Some(logprob));
        self.top_logprobs.push(Some(likeliest));
        self.text_offset.push(offset);
        next
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}
