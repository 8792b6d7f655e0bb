//! A small real request: the proof that the whole path from prompt to token works, or to a vector where the model has no
//! tokens to give.

use std::time::Duration;

use sparkherd_engine::{
    Caller, EmbeddingRequest, Ends, GenerationEvent, GenerationRequest, LogprobOptions, Pooling, Sampling,
    SpecialTokenText,
};
use tokio::time::Instant;

use crate::engine::ChatEngine;
use crate::service::Service;

/// Enough to time a token, too few to delay anybody.
const TOKENS: u32 = 8;
/// A model that has not answered after this time is of no use to anybody.
const TIMEOUT: Duration = Duration::from_mins(2);
/// What is continued; any text does.
const PROMPT: &str = "Hello";

/// Tokens per second of a request that worked, or why it did not: generated ones, or embedded ones. Notes the outcome in the service's health.
pub(super) async fn probe(service: &Service) -> Result<f64, String> {
    let engine = service.engine();
    let request =
        async { if engine.info().generates { generate(engine).await } else { embed(engine).await } };
    let result = tokio::time::timeout(TIMEOUT, request).await;
    let result = result.unwrap_or_else(|_| Err(format!("no answer in {} s", TIMEOUT.as_secs())));
    match &result {
        Ok(_) => service.health().note_token(),
        Err(_) => service.health().note_failure(),
    }
    result
}

/// What the model is given: never nothing, and never too long.
fn prompt(engine: &dyn ChatEngine) -> Result<Vec<u32>, String> {
    let mut prompt_tokens = engine.encode_text(PROMPT, true).map_err(|error| error.to_string())?;
    // A tokenizer may make nothing of a text, and a tiny context may not hold it: any token does.
    let room = engine.info().context.saturating_sub(1).max(1);
    prompt_tokens.truncate(usize::try_from(room).unwrap_or(usize::MAX));
    if prompt_tokens.is_empty() {
        prompt_tokens.push(0);
    }
    Ok(prompt_tokens)
}

async fn embed(engine: &dyn ChatEngine) -> Result<f64, String> {
    let request = EmbeddingRequest { prompt_tokens: prompt(engine)?, pooling: Pooling::Last };
    let started = Instant::now();
    let place = engine.reserve(&Caller::default()).map_err(|error| error.to_string())?;
    let pending = place.embed(request).map_err(|error| error.to_string())?;
    match pending.answer.await {
        Ok(Ok(embedding)) => Ok(per_second(embedding.usage.prompt_tokens, started)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it ended without a word".to_owned()),
    }
}

async fn generate(engine: &dyn ChatEngine) -> Result<f64, String> {
    let request = GenerationRequest {
        prompt_tokens: prompt(engine)?,
        max_tokens: TOKENS,
        sampling: Sampling::default(),
        ends: Ends::default(),
        logprobs: LogprobOptions::default(),
        grammar: None,
        special_tokens: SpecialTokenText::Hidden,
    };
    let started = Instant::now();
    let place = engine.reserve(&Caller::default()).map_err(|error| error.to_string())?;
    let mut generation = place.submit(request).map_err(|error| error.to_string())?;
    loop {
        match generation.events.recv().await {
            Some(GenerationEvent::Started(_) | GenerationEvent::Prompt(_) | GenerationEvent::Text(_)) => {}
            Some(GenerationEvent::Finished { usage, .. }) if usage.completion_tokens > 0 => {
                return Ok(per_second(usage.completion_tokens, started));
            }
            Some(GenerationEvent::Finished { .. }) => return Err("it ended without a token".to_owned()),
            Some(GenerationEvent::Failed(error)) => return Err(error.to_string()),
            None => return Err("it ended without a word".to_owned()),
        }
    }
}

fn per_second(tokens: u32, started: Instant) -> f64 {
    f64::from(tokens) / started.elapsed().as_secs_f64().max(f64::EPSILON)
}
