//! `POST /tokenize` and `POST /detokenize`, in vLLM's form.

use std::sync::Arc;

use bytes::Buf;
use futures::Stream;
use serde::Serialize;
use sparkherd_engine::text::ChatPrompt;
use sparkherd_engine::{Caller, ModelInfo};
use warp::reply::Response;

use super::chat::{CHAT_PROMPT_PARAMS, ChatAsk};
use super::fields::Fields;
use super::ignored::with_ignored;
use super::visit::{Incoming, Visit, bad_prompt};
use super::{ApiError, CallerWishes};
use crate::body::BodyKind;

/// What is to be made tokens.
#[derive(Debug, PartialEq)]
enum Source {
    Text { text: String, framed: bool },
    Chat(ChatPrompt),
}

#[derive(Debug, PartialEq)]
pub(super) struct TokenizeAsk {
    model: Option<String>,
    source: Source,
    return_token_strs: bool,
    ignored: Vec<String>,
}

#[derive(Debug, PartialEq)]
pub(super) struct DetokenizeAsk {
    model: Option<String>,
    tokens: Vec<u32>,
    ignored: Vec<String>,
}

#[derive(Serialize)]
struct Tokenized {
    count: usize,
    /// Tokens of prompt and answer together.
    max_model_len: u32,
    tokens: Vec<u32>,
    token_strs: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Detokenized {
    prompt: String,
}

impl TokenizeAsk {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::of_body(body)?;
        let model = fields.take("model", "a string")?;
        let return_token_strs = fields.take_flag("return_token_strs")?;
        let framed: Option<bool> = fields.take("add_special_tokens", "true or false")?;
        let mut ignored = Vec::new();
        let text: Option<String> = fields.take("prompt", "a string")?;
        let source = match text {
            Some(text) => {
                // They would say nothing about a text.
                if let Some(name) = CHAT_PROMPT_PARAMS.iter().find(|name| fields.take_raw(name).is_some()) {
                    return Err(fields.invalid(name, "left out beside 'prompt'"));
                }
                Source::Text { text, framed: framed.unwrap_or(true) }
            }
            // A template writes the special tokens itself.
            None if framed == Some(true) => {
                return Err(fields.invalid("add_special_tokens", "false or left out with 'messages'"));
            }
            None => Source::Chat(ChatAsk::take(&mut fields, &mut ignored)?.prompt),
        };
        ignored.extend(fields.left_over());
        Ok(Self { model, source, return_token_strs, ignored })
    }
}

impl DetokenizeAsk {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::of_body(body)?;
        let model = fields.take("model", "a string")?;
        let tokens = fields.take_required("tokens", "an array of token numbers")?;
        Ok(Self { model, tokens, ignored: fields.left_over().collect() })
    }
}

pub(crate) async fn tokenize<C: Buf>(
    incoming: Incoming<impl Stream<Item = Result<C, warp::Error>> + Send>,
) -> Result<Response, ApiError> {
    let (visit, body) = Visit::enter(incoming, BodyKind::Prompt).await?;
    let TokenizeAsk { model, source, return_token_strs, ignored } = TokenizeAsk::parse(body.bytes())?;
    let Caller { account, .. } = visit.caller(&CallerWishes::default());
    let held = (visit.pass(account)?, body.into_share());
    model.map_or(Ok(()), |model| visit.check_model(&model))?;
    let param = if matches!(source, Source::Text { .. }) { "prompt" } else { "messages" };
    let engine = Arc::clone(visit.service.engine_arc());
    let encode = move || {
        let tokens = match source {
            Source::Text { text, framed } => engine.encode_text(&text, framed)?,
            Source::Chat(prompt) => engine.encode_chat(&prompt)?.tokens,
        };
        let text = |token: &u32| String::from_utf8_lossy(&engine.token_bytes(*token)).into_owned();
        let token_strs = return_token_strs.then(|| tokens.iter().map(text).collect());
        Ok((tokens, token_strs))
    };
    let (encoded, _held) = visit.service.blocking(held, encode).await.ok_or(ApiError::EngineFailed)?;
    let (tokens, token_strs) = encoded.map_err(|error| bad_prompt(&visit.service, param, &error))?;
    let max_model_len = visit.service.engine().info().context;
    let answer = Tokenized { count: tokens.len(), max_model_len, tokens, token_strs };
    let json = serde_json::to_vec(&answer).map_err(|_| ApiError::EngineFailed)?;
    Ok(with_ignored(visit.service.unread().respond(account, json), ignored))
}

pub(crate) async fn detokenize<C: Buf>(
    incoming: Incoming<impl Stream<Item = Result<C, warp::Error>> + Send>,
) -> Result<Response, ApiError> {
    let (visit, body) = Visit::enter(incoming, BodyKind::Prompt).await?;
    let DetokenizeAsk { model, tokens, ignored } = DetokenizeAsk::parse(body.bytes())?;
    let Caller { account, .. } = visit.caller(&CallerWishes::default());
    let held = (visit.pass(account)?, body.into_share());
    model.map_or(Ok(()), |model| visit.check_model(&model))?;
    let ModelInfo { context, vocab_size, .. } = visit.service.engine().info();
    let fits = u32::try_from(tokens.len()).is_ok_and(|count| count <= context);
    if !fits || tokens.iter().any(|token| *token >= vocab_size) {
        let expected = format!("an array of at most {context} tokens below {vocab_size}");
        return Err(ApiError::Invalid { param: "tokens".to_owned(), expected });
    }
    let engine = Arc::clone(visit.service.engine_arc());
    let decoded = visit.service.blocking(held, move || engine.decode(&tokens)).await;
    let (decoded, _held) = decoded.ok_or(ApiError::EngineFailed)?;
    let prompt = decoded.map_err(|error| bad_prompt(&visit.service, "tokens", &error))?;
    let json = serde_json::to_vec(&Detokenized { prompt }).map_err(|_| ApiError::EngineFailed)?;
    Ok(with_ignored(visit.service.unread().respond(account, json), ignored))
}
