//! The shared path of both endpoints of generation, from a body to an answer.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Buf;
use futures::Stream;
use sparkherd_engine::{Generation, GenerationRequest, ModelInfo};
use warp::http::header::{CONTENT_TYPE, HeaderValue};
use warp::reply::Response;

use super::ApiError;
use super::answer::{Answer, Documents};
use super::ask::{Ask, Endpoint, Head, Prompt};
use super::ignored::with_ignored;
use super::parameters::Parameters;
use super::prepare::{compile, prepare};
use super::run::{Asked, Progress, Run};
use super::stream::event_stream;
use super::visit::{Incoming, Visit, refused};
use super::wire::{Common, EventWriter, Members};

/// Answers a request of endpoint `E`. Dropping the future or the response's body cancels the generations.
pub(crate) async fn generate<E: Endpoint, C: Buf>(
    incoming: Incoming<impl Stream<Item = Result<C, warp::Error>> + Send>,
) -> Result<Response, ApiError> {
    let mut visit = Visit::enter(incoming).await?;
    let Ask { parameters, prompt, logprobs, echo, ignored } = E::parse(visit.body.bytes())?;
    visit.check_model(&parameters.model)?;
    let info = visit.service.engine().info();
    if !info.generates {
        return Err(ApiError::NoOutputHead);
    }
    check_tokens(&parameters, &info)?;
    let choices_each = usize::try_from(parameters.choices).unwrap_or(usize::MAX);
    let prompts = match &prompt {
        Prompt::Chat(_) => 1,
        Prompt::Texts(texts) => texts.len(),
    };
    // Before anything is tokenised: what there is no room for costs nothing.
    let places = visit.reserve(&parameters.caller, prompts.saturating_mul(choices_each))?;
    let prepared = prepare::<E>(&visit.service, prompt, echo, parameters.structure.clone()).await?;
    visit.body.release();
    // All prompts of a request have the same form.
    let structure = prepared.first().and_then(|prompt| prompt.structure.clone());
    let grammar = compile(&visit.service, structure).await?;
    let Visit { service, active, arrived, .. } = visit;
    let id = service.next_id(E::ID_PREFIX);
    let members = Members::new(&Common {
        id: &id,
        object: if parameters.stream.is_some() { E::EVENT } else { E::WHOLE },
        created: service.unix_time(),
        model: &parameters.model,
        service_tier: parameters.service_tier,
    });
    let members = members.map_err(|_| ApiError::EngineFailed)?;
    let head = Head {
        return_token_ids: parameters.return_token_ids,
        logprobs: logprobs.sampled.is_some(),
        engine: Arc::clone(service.engine_arc()),
    };
    let only_echo = parameters.max_tokens == Some(0);
    let asked = Asked { choices_each, only_echo, priority: parameters.caller.priority, arrived };
    let mut starts = Vec::with_capacity(places.len());
    let mut generations: Vec<Generation> = Vec::with_capacity(places.len());
    let seed = parameters.sampling.seed.unwrap_or_else(|| service.next_seed());
    let answers = prepared
        .iter()
        .flat_map(|prompt| (0..u64::from(parameters.choices)).map(move |choice| (prompt, choice)));
    for (place, (prompt, choice)) in places.into_iter().zip(answers) {
        let mut sampling = parameters.sampling.clone();
        // Choices of one prompt differ, and are the same again under the same seed.
        sampling.seed = Some(seed.wrapping_add(choice));
        let request = GenerationRequest {
            prompt_tokens: prompt.tokens.to_vec(),
            max_tokens: parameters.max_tokens.unwrap_or(u32::MAX).max(1),
            sampling,
            ends: parameters.ends.clone(),
            logprobs,
            grammar: grammar.clone(),
            special_tokens: prompt.special_tokens(parameters.skip_special_tokens),
        };
        generations.push(place.submit(request).map_err(|error| refused(&service, E::PROMPT_PARAM, &error))?);
        starts.push(prompt.start(only_echo, service.next_seed()));
    }
    let run = Run::new(generations, asked, &service, active);
    let mut response = match parameters.stream {
        Some(usage) => event_stream(E::stream(EventWriter::new(members, usage), head, starts), run),
        None => whole(E::whole(members, head, starts), run).await?,
    };
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert("x-request-id", id);
    }
    Ok(with_ignored(response, ignored))
}

/// The engine would refuse these too, but could not say where they were written.
fn check_tokens(parameters: &Parameters, info: &ModelInfo) -> Result<(), ApiError> {
    let known = |token: &u32| *token < info.vocab_size;
    let expected = || format!("of tokens below {}", info.vocab_size);
    let invalid = |param: &str| ApiError::Invalid { param: param.to_owned(), expected: expected() };
    if !parameters.ends.stop_token_ids.iter().all(known) {
        return Err(invalid("stop_token_ids"));
    }
    if !parameters.sampling.logit_bias.keys().all(known) {
        return Err(invalid("logit_bias"));
    }
    Ok(())
}

async fn whole(mut answer: impl Answer, mut run: Run) -> Result<Response, ApiError> {
    let mut out = Documents::body();
    loop {
        let progress = poll_fn(|context| run.poll_write(&mut answer, &mut out, context)).await;
        match progress.map_err(|_| ApiError::EngineFailed)? {
            Progress::Running => {}
            Progress::Ended => {
                let mut response = Response::new(bytes::Bytes::from(out.take()).into());
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                return Ok(response);
            }
            Progress::Failed(error) => return Err(error),
            Progress::Gone => return Err(ApiError::EngineFailed),
        }
    }
}
