//! `POST /v1/embeddings`.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Buf;
use futures::{Stream, StreamExt, TryStreamExt};
use serde::Serialize;
use sparkherd_engine::{Embedding, EmbeddingRequest, Pooling, Priority};
use warp::reply::Response;

use super::ask::TextPrompt;
use super::completions::take_prompts;
use super::fields::Fields;
use super::ignored::with_ignored;
use super::parameters::take_caller;
use super::visit::{Incoming, Visit, bad_prompt, refused};
use super::{ApiError, CallerWishes, PromptSize};
use crate::body::BodyKind;
use crate::engine::Place;

/// Texts of one request: OpenAI's limit.
const INPUTS_MAX: usize = 2048;
/// Texts of one request that are queued together: enough to fill a step, and no more places than a small client takes.
const IN_FLIGHT: usize = 8;

/// Bytes of vectors in one answer, and in all of one account that are being written: OpenAI's 2048 with a thousand numbers
/// each, in base 64.
pub(crate) const VECTOR_BYTES_MAX: u32 = 12 << 20;
/// One number as text, with its comma: a sign, a point, nine digits and what zeros or exponent there are.
const FLOAT_BYTES: usize = 16;

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

/// The answer as far as it is written: a vector becomes text when it comes, and is not kept beside it.
struct EmbeddingList {
    json: Vec<u8>,
    encoding: Encoding,
    count: usize,
    prompt_tokens: u32,
}

/// What stands behind the vectors.
#[derive(Serialize)]
struct EmbeddingListEnd<'a> {
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

impl Encoding {
    const fn vector_bytes(self, hidden: usize) -> usize {
        match self {
            Self::Float => hidden.saturating_mul(FLOAT_BYTES),
            Self::Base64 => hidden.saturating_mul(size_of::<f32>()).div_ceil(3).saturating_mul(4),
        }
    }
}

/// Bytes of the vectors of so many inputs, or that they are too many for one answer.
fn vectors_bytes(inputs: usize, hidden: usize, encoding: Encoding) -> Result<u32, ApiError> {
    let each = encoding.vector_bytes(hidden);
    let bytes = u32::try_from(inputs.saturating_mul(each)).ok().filter(|bytes| *bytes <= VECTOR_BYTES_MAX);
    let fit = |encoding: Encoding| VECTOR_BYTES_MAX as usize / encoding.vector_bytes(hidden).max(1);
    bytes.ok_or_else(|| ApiError::Invalid {
        param: "input".to_owned(),
        expected: format!(
            "few enough texts for {VECTOR_BYTES_MAX} bytes of vectors in one answer: with {hidden} numbers each, {} of the \
             {inputs}, or {} with \"encoding_format\": \"base64\"",
            fit(encoding),
            fit(Encoding::Base64)
        ),
    })
}

/// The engine would refuse these too, but one by one, with the others waiting as numbers beside them.
fn check_lengths(inputs: &[TextPrompt], context: u32) -> Result<(), ApiError> {
    let length = |input: &TextPrompt| match input {
        TextPrompt::Text(_) => 0,
        TextPrompt::Tokens(tokens) => tokens.len(),
    };
    let longest = inputs.iter().map(length).max().unwrap_or_default();
    if u32::try_from(longest).is_ok_and(|tokens| tokens <= context) {
        return Ok(());
    }
    Err(ApiError::ContextLength { param: Some("input"), prompt: PromptSize::Tokens(longest), context })
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

impl EmbeddingList {
    fn new(encoding: Encoding) -> Self {
        Self { json: br#"{"object":"list","data":["#.to_vec(), encoding, count: 0, prompt_tokens: 0 }
    }

    fn push(&mut self, embedding: Embedding) -> serde_json::Result<()> {
        let Embedding { values, usage, waited: _ } = embedding;
        let object = EmbeddingObject {
            object: "embedding",
            index: self.count,
            embedding: Vector::new(values, self.encoding),
        };
        if self.count > 0 {
            self.json.push(b',');
        }
        serde_json::to_writer(&mut self.json, &object)?;
        self.count += 1;
        self.prompt_tokens = self.prompt_tokens.saturating_add(usage.prompt_tokens);
        Ok(())
    }

    fn finish(mut self, model: &str) -> serde_json::Result<Vec<u8>> {
        let prompt_tokens = self.prompt_tokens;
        let usage = EmbeddingUsage { prompt_tokens, total_tokens: prompt_tokens };
        self.json.extend_from_slice(b"],");
        let end = serde_json::to_vec(&EmbeddingListEnd { model, usage })?;
        self.json.extend_from_slice(end.strip_prefix(b"{").unwrap_or(&end));
        Ok(self.json)
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
    let (visit, body) = Visit::enter(incoming, BodyKind::Texts).await?;
    let ask = EmbeddingAsk::parse(body.bytes())?;
    let share = body.into_share();
    let EmbeddingAsk { model, inputs, encoding, pooling, caller, ignored } = ask;
    visit.check_model(&model)?;
    check_lengths(&inputs, visit.service.engine().info().context)?;
    let vectors_bytes = vectors_bytes(inputs.len(), visit.service.engine().info().hidden, encoding)?;
    let caller = visit.caller(&caller);
    // Before anything is tokenised: what there is no room for costs nothing.
    let first = visit.reserve(&caller, 1)?;
    let engine = Arc::clone(visit.service.engine_arc());
    let encode = move || {
        let tokens = |input| match input {
            TextPrompt::Text(text) => engine.encode_text(&text, true),
            TextPrompt::Tokens(tokens) => Ok(tokens),
        };
        inputs.into_iter().map(tokens).collect::<Result<Vec<_>, _>>()
    };
    let encoded = visit.service.blocking((first, share), encode).await;
    let (tokens, (mut first, share)) = encoded.ok_or(ApiError::EngineFailed)?;
    drop(share);
    let tokens = tokens.map_err(|error| bad_prompt(&visit.service, "input", &error))?;
    let _share = visit.service.take(visit.service.vectors(), caller.account, vectors_bytes).await?;
    let requests = tokens.into_iter().map(|prompt_tokens| {
        let place = first.pop().map_or_else(
            || visit.reserve(&caller, 1).map(|mut places| places.pop()),
            |place| Ok(Some(place)),
        );
        embed_one(&visit, place, caller.priority, EmbeddingRequest { prompt_tokens, pooling })
    });
    let mut embeddings = futures::stream::iter(requests).buffered(IN_FLIGHT);
    let mut list = EmbeddingList::new(encoding);
    while let Some(embedding) = embeddings.try_next().await? {
        list.push(embedding).map_err(|_| ApiError::EngineFailed)?;
    }
    let json = list.finish(&model).map_err(|_| ApiError::EngineFailed)?;
    Ok(with_ignored(visit.service.unread().respond(caller.account, json), ignored))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_of_one_answer_are_bounded_before_any_is_computed() {
        assert_eq!(vectors_bytes(2048, 384, Encoding::Float), Ok(VECTOR_BYTES_MAX));
        assert!(vectors_bytes(INPUTS_MAX, 1024, Encoding::Base64).is_ok());
        assert_eq!(vectors_bytes(1, 3, Encoding::Base64), Ok(16));
        let refused = vectors_bytes(2048, 4096, Encoding::Float).unwrap_err().to_string();
        assert!(refused.contains("192 of the 2048, or 575 with"), "{refused}");
        assert!(vectors_bytes(usize::MAX, 4096, Encoding::Base64).is_err());
    }

    /// What is written takes no more than was counted for it.
    #[test]
    fn vectors_are_counted_in_full() {
        let values: Vec<f32> = (0..4096_u32).map(|index| (index as f32 - 2048.3) / 91_234.56).collect();
        for encoding in [Encoding::Float, Encoding::Base64] {
            let json = serde_json::to_vec(&Vector::new(values.clone(), encoding)).unwrap();
            // Brackets or quotes stand around it.
            assert!(json.len() <= encoding.vector_bytes(values.len()) + 2, "{encoding:?}: {}", json.len());
        }
    }
}
