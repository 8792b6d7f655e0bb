//! The shared path of both endpoints, from a body to an answer.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Buf;
use futures::Stream;
use sparkherd_engine::{
    Ends, FinishReason, Generation, GenerationError, GenerationEvent, GenerationRequest, LogprobOptions,
    SpecialTokenText, SubmitError, Usage,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use warp::http::HeaderMap;
use warp::http::header::{CONTENT_TYPE, HeaderValue};
use warp::reply::Response;

use super::ask::{Ask, Endpoint, Prompt};
use super::parameters::ignored_header;
use super::stream::event_stream;
use super::wire::Head;
use super::{ApiError, PromptSize};
use crate::body::read_body;
use crate::engine::PromptError;
use crate::metrics::Outcome;
use crate::phase::{ActiveRequest, Phase};
use crate::service::Service;

/// Answers a request of endpoint `E`. Dropping the future or the response's body cancels the generation.
pub(crate) async fn generate<E: Endpoint>(
    service: Arc<Service>,
    headers: HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>> + Send,
) -> Result<Response, ApiError> {
    // Counted before the phase is read, so that a drain either refuses this request or waits for it.
    let active = service.lifecycle().enter();
    let started = Instant::now();
    service.audience().admits(&headers)?;
    if service.lifecycle().phase() >= Phase::Refusing {
        return Err(ApiError::Draining);
    }
    let body = read_body(&headers, body, service.body_budget()).await?;
    let Ask { parameters, prompt, ignored } = E::parse(body.bytes())?;
    if !service.audience().serves(&parameters.model) {
        return Err(ApiError::unknown_model(&parameters.model));
    }
    let head = Head {
        id: service.next_id(E::ID_PREFIX),
        created: service.unix_time(),
        model: parameters.model,
        include_usage: parameters.streaming.is_some_and(|streaming| streaming.include_usage),
    };
    let prompt_tokens = tokens::<E>(&service, prompt).await?;
    drop(body);
    let mut sampling = parameters.sampling;
    sampling.seed.get_or_insert_with(|| service.next_seed());
    let request = GenerationRequest {
        prompt_tokens,
        max_tokens: parameters.max_tokens.unwrap_or(u32::MAX),
        sampling,
        ends: Ends { stop: parameters.stop, ..Ends::default() },
        logprobs: LogprobOptions::default(),
        special_tokens: SpecialTokenText::Hidden,
    };
    let generation = service.engine().submit(request).map_err(|error| refused::<E>(&error))?;
    let run = Run::new(generation, Arc::clone(&service), active, started);
    let id = HeaderValue::try_from(&head.id);
    let mut response = match parameters.streaming {
        None => whole::<E>(&head, run).await?,
        Some(_) => event_stream::<E>(head, run),
    };
    if let Ok(id) = id {
        response.headers_mut().insert("x-request-id", id);
    }
    if let Some(Ok(names)) = ignored_header(ignored.into_iter()).map(HeaderValue::try_from) {
        response.headers_mut().insert("x-sparkherd-ignored", names);
    }
    Ok(response)
}

async fn tokens<E: Endpoint>(service: &Arc<Service>, prompt: Prompt) -> Result<Vec<u32>, ApiError> {
    let engine = Arc::clone(service.engine_arc());
    let encoded = match prompt {
        Prompt::Tokens(tokens) => return Ok(tokens),
        Prompt::Text(text) => service.blocking(move || engine.encode_text(&text)).await,
        Prompt::Messages(messages) => service.blocking(move || engine.encode_chat(&messages)).await,
    };
    encoded.ok_or(ApiError::EngineFailed)?.map_err(|error| match error {
        PromptError::Tokenizer(_) => ApiError::EngineFailed,
        PromptError::TooLong { tokens } => ApiError::ContextLength {
            param: Some(E::PROMPT_PARAM),
            prompt: PromptSize::MoreThanTokens(tokens),
            context: service.engine().info().context,
        },
        PromptError::NoChatTemplate | PromptError::Template(_) => {
            ApiError::Prompt { param: E::PROMPT_PARAM, detail: error.to_string() }
        }
    })
}

fn refused<E: Endpoint>(error: &SubmitError) -> ApiError {
    let param = E::PROMPT_PARAM;
    match *error {
        SubmitError::PromptTooLong { prompt_tokens, context } => {
            ApiError::ContextLength { param: Some(param), prompt: PromptSize::Tokens(prompt_tokens), context }
        }
        SubmitError::EmptyPrompt | SubmitError::UnknownToken { .. } => {
            ApiError::Prompt { param, detail: error.to_string() }
        }
        SubmitError::OutOfRange { name, allowed, .. } => {
            ApiError::Invalid { param: name.to_owned(), expected: allowed.to_owned() }
        }
        SubmitError::QueueFull { waiting, retry_after: _ } => ApiError::QueueFull { waiting },
        SubmitError::ClientLimit { .. } | SubmitError::ClientTokenLimit { .. } => {
            ApiError::ClientLimit { detail: error.to_string() }
        }
        SubmitError::Draining => ApiError::Draining,
        SubmitError::Stopped => ApiError::EngineFailed,
    }
}

/// What a running generation says next.
#[derive(Debug)]
pub(super) enum Step {
    Text(String),
    Finished(FinishReason, Usage),
    Failed(ApiError),
    /// The engine is gone and has not even said so.
    Gone,
}

/// A generation with its book-keeping: whatever way it ends, metrics and health hear of it once (I19).
pub(super) struct Run {
    events: mpsc::Receiver<GenerationEvent>,
    aborting: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    record: Record,
}

struct Record {
    service: Arc<Service>,
    started: Instant,
    last_text: Option<Instant>,
    outcome: Outcome,
    _active: ActiveRequest,
}

impl Run {
    fn new(generation: Generation, service: Arc<Service>, active: ActiveRequest, started: Instant) -> Self {
        Self {
            events: generation.events,
            aborting: Box::pin(service.lifecycle().aborting()),
            // What nobody waits to see finished was aborted.
            record: Record { service, started, last_text: None, outcome: Outcome::Abort, _active: active },
        }
    }

    /// Not to be polled again after anything but `Text`.
    pub(super) fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        if let Poll::Ready(event) = self.events.poll_recv(context) {
            return Poll::Ready(self.record.note(event));
        }
        self.aborting.as_mut().poll(context).map(|()| Step::Failed(ApiError::Draining))
    }
}

impl Record {
    fn note(&mut self, event: Option<GenerationEvent>) -> Step {
        match event {
            // Not asked for.
            Some(GenerationEvent::Prompt(_)) => Step::Text(String::new()),
            Some(GenerationEvent::Text(text)) => {
                self.note_text();
                Step::Text(text.text)
            }
            Some(GenerationEvent::Finished { reason, usage }) => {
                self.service.health().note_token();
                self.outcome = match reason {
                    FinishReason::Stop | FinishReason::StopString | FinishReason::StopToken(_) => {
                        Outcome::Stop
                    }
                    FinishReason::Length => Outcome::Length,
                };
                Step::Finished(reason, usage)
            }
            Some(GenerationEvent::Failed(GenerationError::Draining)) => Step::Failed(ApiError::Draining),
            Some(GenerationEvent::Failed(GenerationError::SlowReader { .. })) => {
                Step::Failed(ApiError::SlowReader)
            }
            Some(GenerationEvent::Failed(GenerationError::TimedOut { .. })) => {
                Step::Failed(ApiError::TimedOut)
            }
            Some(GenerationEvent::Failed(GenerationError::Engine(_))) => {
                self.note_failure();
                Step::Failed(ApiError::EngineFailed)
            }
            None => {
                self.note_failure();
                Step::Gone
            }
        }
    }

    fn note_text(&mut self) {
        self.service.health().note_token();
        match self.last_text.replace(Instant::now()) {
            None => self.service.metrics().first_token(self.started),
            Some(previous) => self.service.metrics().inter_token(previous),
        }
    }

    fn note_failure(&mut self) {
        self.service.health().note_failure();
        self.outcome = Outcome::Error;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.service.metrics().finish(self.outcome, self.started);
    }
}

async fn whole<E: Endpoint>(head: &Head, mut run: Run) -> Result<Response, ApiError> {
    let mut text = String::new();
    loop {
        match poll_fn(|context| run.poll_step(context)).await {
            Step::Text(piece) => text.push_str(&piece),
            Step::Finished(reason, usage) => {
                let body = E::whole(head, &text, reason, usage).map_err(|_| ApiError::EngineFailed)?;
                let mut response = Response::new(bytes::Bytes::from(body).into());
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                return Ok(response);
            }
            Step::Failed(error) => return Err(error),
            Step::Gone => return Err(ApiError::EngineFailed),
        }
    }
}
