//! The shared path of both endpoints of generation, from a body to an answer.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Buf;
use futures::Stream;
use sparkherd_engine::{ClientKey, Generation, GenerationRequest, Grammar, LogprobOptions, ModelInfo};
use warp::http::header::HeaderValue;
use warp::reply::Response;

use super::ApiError;
use super::answer::{Answer, Documents};
use super::ask::{Ask, Endpoint, Head, Prompt, Start};
use super::ignored::with_ignored;
use super::parameters::Parameters;
use super::prepare::{Prepared, Wanted, compile, prepare};
use super::run::{Asked, Progress, Run, RunHolds};
use super::stream::event_stream;
use super::told::{Telling, Told};
use super::visit::{Incoming, Visit, refused};
use super::wire::{Common, EventWriter, Members};
use crate::engine::Place;
use crate::room::RoomShare;
use crate::service::Service;

/// Answers a request of endpoint `E`. Dropping the future or the response's body cancels the generations.
pub(crate) async fn generate<E: Endpoint, C: Buf>(
    incoming: Incoming<impl Stream<Item = Result<C, warp::Error>> + Send>,
) -> Result<Response, ApiError> {
    let (visit, body) = Visit::enter(incoming, E::BODY).await?;
    let Ask { parameters, prompt, logprobs, echo, ignored } = E::parse(body.bytes())?;
    let share = body.into_share();
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
    let caller = visit.caller(&parameters.caller);
    let places = visit.reserve(&caller, prompts.saturating_mul(choices_each))?;
    let structure = parameters.structure.clone();
    let wanted = Wanted { echo, structure };
    let prepared = prepare::<E, _>(&visit.service, prompt, wanted, (places, share)).await?;
    let (prepared, (places, share)) = prepared;
    // What was read has become tokens: whoever waits for the answer holds nobody else's body up.
    drop(share);
    check_prompts::<E>(&prepared, parameters.choices, &info)?;
    let Told { probabilities, max_tokens } = telling(&prepared, &parameters, logprobs, &info).told()?;
    let told = take_told(&visit.service, caller.account, probabilities).await?;
    // All prompts of a request have the same form.
    let structure = prepared.first().and_then(|prompt| prompt.structure.clone());
    let (grammar, places) = compile(&visit.service, structure, caller.account, places).await?;
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
    let asked = Asked {
        choices_each,
        only_echo: parameters.only_echo(),
        priority: parameters.caller.priority,
        arrived,
    };
    let submission =
        Submission { places, prepared: &prepared, parameters: &parameters, max_tokens, logprobs, grammar };
    let (generations, starts) = submission.submit::<E>(&service)?;
    let run = |told| Run::new(generations, asked, &service, RunHolds { active, told });
    let mut response = if let Some(usage) = parameters.stream {
        event_stream(E::stream(EventWriter::new(members, usage), head, starts), run(told))
    } else {
        // A whole answer keeps its probabilities to its end.
        let json = whole(E::whole(members, head, starts), run(None)).await?;
        drop(told);
        service.unread().respond(caller.account, json)
    };
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert("x-request-id", id);
    }
    Ok(with_ignored(response, ignored))
}

/// A request whose prompts are tokens and whose answers have places.
struct Submission<'a> {
    places: Vec<Box<dyn Place>>,
    prepared: &'a [Prepared],
    parameters: &'a Parameters,
    /// Of each answer.
    max_tokens: u32,
    logprobs: LogprobOptions,
    grammar: Option<Grammar>,
}

impl Submission<'_> {
    /// Has all answers begun, the choices of a prompt one after the other.
    fn submit<E: Endpoint>(self, service: &Service) -> Result<(Vec<Generation>, Vec<Start>), ApiError> {
        let Self { places, prepared, parameters, max_tokens, logprobs, grammar } = self;
        let mut starts = Vec::with_capacity(places.len());
        let mut generations = Vec::with_capacity(places.len());
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
                max_tokens,
                sampling,
                ends: parameters.ends.clone(),
                logprobs,
                grammar: grammar.clone(),
                special_tokens: prompt.special_tokens(parameters.skip_special_tokens),
            };
            let generation = place.submit(request);
            generations.push(generation.map_err(|error| refused(service, E::PROMPT_PARAM, &error))?);
            starts.push(prompt.start(parameters.only_echo(), service.next_seed()));
        }
        Ok((generations, starts))
    }
}

fn telling(
    prepared: &[Prepared],
    parameters: &Parameters,
    logprobs: LogprobOptions,
    info: &ModelInfo,
) -> Telling {
    let tokens = |prompt: &Prepared| u32::try_from(prompt.tokens.len()).unwrap_or(u32::MAX);
    Telling {
        prompts: prepared.iter().map(tokens).collect(),
        choices: parameters.choices,
        logprobs,
        max_tokens: parameters.max_tokens,
        min_tokens: parameters.ends.min_tokens,
        context: info.context,
        whole: parameters.stream.is_none(),
    }
}

/// Waits until so many probabilities may be told. The share is held until they are written.
async fn take_told(service: &Service, account: ClientKey, count: u32) -> Result<Option<RoomShare>, ApiError> {
    if count == 0 {
        return Ok(None);
    }
    service.take(service.probabilities(), account, count).await.map(Some)
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

/// What could never wait together is refused for good: whoever is told to come again finds the same.
fn check_prompts<E: Endpoint>(prepared: &[Prepared], choices: u32, info: &ModelInfo) -> Result<(), ApiError> {
    let tokens = prepared.iter().map(|prompt| u64::try_from(prompt.tokens.len()).unwrap_or(u64::MAX));
    let count = tokens.fold(0, u64::saturating_add).saturating_mul(u64::from(choices));
    let max = info.request_prompt_tokens_max;
    // One alone always finds room, if it fits the context.
    if matches!((prepared, choices), ([_], 1)) || count <= max {
        return Ok(());
    }
    Err(ApiError::Invalid {
        param: E::PROMPT_PARAM.to_owned(),
        expected: format!(
            "at most {max} tokens over all answers of one request: these have {count}, which is prompt tokens × n"
        ),
    })
}

async fn whole(mut answer: impl Answer, mut run: Run) -> Result<Vec<u8>, ApiError> {
    let mut out = Documents::body();
    loop {
        let progress = poll_fn(|context| run.poll_write(&mut answer, &mut out, context)).await;
        match progress.map_err(|_| ApiError::EngineFailed)? {
            Progress::Running => {}
            Progress::Interrupted => tokio::task::yield_now().await,
            Progress::Ended => return Ok(out.take()),
            Progress::Failed(error) => return Err(error),
            Progress::Gone => return Err(ApiError::EngineFailed),
        }
    }
}
