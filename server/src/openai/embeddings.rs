//! `POST /v1/embeddings`.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Buf;
use futures::{Stream, StreamExt, TryStreamExt};
use serde::Serialize;
use sparkherd_engine::{Embedding, EmbeddingRequest, Pooling, Priority};
use warp::reply::{Reply, Response};

use super::ask::TextPrompt;
use super::completions::take_prompts;
use super::fields::Fields;
use super::ignored::with_ignored;
use super::parameters::take_caller;
use super::visit::{Incoming, Visit, bad_prompt, refused};
use super::{ApiError, CallerWishes};
use crate::engine::Place;

/// Texts of one request. Clients cut theirs into lists of at most a thousand; their vectors are held until all are there.
const INPUTS_MAX: usize = 1024;
/// Texts of one request that are queued together: enough to fill a step, and no more places than a small client takes.
const IN_FLIGHT: usize = 8;

/// How a vector is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Float,
    /// Little-endian binary32 in base 64, which OpenAI's clients ask for to save time.
    Base64,
}

#[derive(Debug, PartialEq)]
pub(super) struct EmbeddingAsk {
    model: String,
    inputs: Vec<TextPrompt>,
    encoding: Encoding,
    pooling: Pooling,
    caller: CallerWishes,
    ignored: Vec<String>,
}

#[derive(Serialize)]
struct EmbeddingList<'a> {
    object: &'static str,
    data: Vec<EmbeddingObject>,
    model: &'a str,
    usage: EmbeddingUsage,
}

#[derive(Serialize)]
struct EmbeddingObject {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct EmbeddingUsage {
    prompt_tokens: u32,
    total_tokens: u32,
}

impl Vector {
    fn new(values: Vec<f32>, encoding: Encoding) -> Self {
        match encoding {
            Encoding::Float => Self::Float(values),
            Encoding::Base64 => {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                Self::Base64(BASE64_STANDARD.encode(bytes))
            }
        }
    }
}

impl EmbeddingAsk {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::of_body(body)?;
        let model = fields.take_required("model", "a string")?;
        // A vector cut short is another vector, unless the model was trained to be cut; none here says that it was.
        if fields.take_raw("dimensions").is_some() {
            return Err(ApiError::Unsupported { param: fields.path("dimensions"), allowed: "null" });
        }
        let (caller, _) = take_caller(&mut fields)?;
        let inputs = take_prompts(&mut fields, "input")?;
        if inputs.is_empty() || inputs.len() > INPUTS_MAX {
            return Err(fields.invalid("input", format!("1 to {INPUTS_MAX} texts or lists of tokens")));
        }
        let encoding: Option<String> = fields.take("encoding_format", "\"float\" or \"base64\"")?;
        let encoding = match encoding.as_deref() {
            None | Some("float") => Encoding::Float,
            Some("base64") => Encoding::Base64,
            Some(_) => return Err(fields.invalid("encoding_format", "\"float\" or \"base64\"")),
        };
        let pooling: Option<String> = fields.take("pooling", "\"last\" or \"mean\"")?;
        let pooling = match pooling.as_deref() {
            // What embedding checkpoints of decoder families are trained for.
            None | Some("last") => Pooling::Last,
            Some("mean") => Pooling::Mean,
            Some(_) => return Err(fields.invalid("pooling", "\"last\" or \"mean\"")),
        };
        Ok(Self { model, inputs, encoding, pooling, caller, ignored: fields.left_over().collect() })
    }
}

/// Answers with one vector for each text. Dropping the future cancels those under way.
pub(crate) async fn embed<C: Buf>(
    incoming: Incoming<impl Stream<Item = Result<C, warp::Error>> + Send>,
) -> Result<Response, ApiError> {
    let mut visit = Visit::enter(incoming).await?;
    let ask = EmbeddingAsk::parse(visit.body.bytes())?;
    let EmbeddingAsk { model, inputs, encoding, pooling, caller, ignored } = ask;
    visit.check_model(&model)?;
    // Before anything is tokenised: what there is no room for costs nothing.
    let mut first = visit.reserve(&caller, 1)?;
    let engine = Arc::clone(visit.service.engine_arc());
    let encode = move || {
        let tokens = |input| match input {
            TextPrompt::Text(text) => engine.encode_text(&text, true),
            TextPrompt::Tokens(tokens) => Ok(tokens),
        };
        inputs.into_iter().map(tokens).collect::<Result<Vec<_>, _>>()
    };
    let tokens = visit.service.blocking(encode).await.ok_or(ApiError::EngineFailed)?;
    let tokens = tokens.map_err(|error| bad_prompt(&visit.service, "input", &error))?;
    visit.body.release();
    let requests = tokens.into_iter().map(|prompt_tokens| {
        let place = first.pop().map_or_else(
            || visit.reserve(&caller, 1).map(|mut places| places.pop()),
            |place| Ok(Some(place)),
        );
        embed_one(&visit, place, caller.priority, EmbeddingRequest { prompt_tokens, pooling })
    });
    let embeddings: Vec<Embedding> =
        futures::stream::iter(requests).buffered(IN_FLIGHT).try_collect().await?;
    let prompt_tokens = embeddings.iter().fold(0_u32, |sum, one| sum.saturating_add(one.usage.prompt_tokens));
    let data =
        embeddings.into_iter().enumerate().map(|(index, Embedding { values, usage: _, waited: _ })| {
            EmbeddingObject { object: "embedding", index, embedding: Vector::new(values, encoding) }
        });
    let usage = EmbeddingUsage { prompt_tokens, total_tokens: prompt_tokens };
    let answer = EmbeddingList { object: "list", data: data.collect(), model: &model, usage };
    Ok(with_ignored(warp::reply::json(&answer).into_response(), ignored))
}

async fn embed_one(
    visit: &Visit,
    place: Result<Option<Box<dyn Place>>, ApiError>,
    priority: Priority,
    request: EmbeddingRequest,
) -> Result<Embedding, ApiError> {
    let place = place?.ok_or(ApiError::EngineFailed)?;
    let pending = place.embed(request).map_err(|error| refused(&visit.service, "input", &error))?;
    let answer = tokio::select! {
        answer = pending.answer => answer,
        () = visit.service.lifecycle().aborting() => return Err(ApiError::Draining),
    };
    match answer {
        Ok(Ok(embedding)) => {
            visit.service.health().note_token();
            visit.service.metrics().started(priority, embedding.waited);
            Ok(embedding)
        }
        Ok(Err(error)) => {
            if matches!(error, sparkherd_engine::GenerationError::Engine(_)) {
                visit.service.health().note_failure();
            }
            Err((&error).into())
        }
        // The engine is gone without a word.
        Err(_) => {
            visit.service.health().note_failure();
            Err(ApiError::EngineFailed)
        }
    }
}
