//! What comes before every answer that costs something: door, body, place.

use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use futures::Stream;
use sparkherd_engine::{Caller, ClientKey, SubmitError};
use tokio::time::Instant;
use warp::http::HeaderMap;

use super::{ApiError, CallerWishes, PromptSize};
use crate::access::KeyHash;
use crate::body::{Body, BodyKind, read_body};
use crate::client::{Asker, Peer};
use crate::engine::{Place, PromptError};
use crate::phase::{ActiveRequest, Phase};
use crate::service::Service;
use crate::tally::Tallied;
use crate::unread::UNREAD_BYTES_MAX;

/// Requests of one account at once that take no place of the engine: tokenising for one may not keep all others from it. They
/// are worked on one after the other, so that more would only wait; programs that count tokens ask for a few texts together.
const PASSES: usize = 16;

/// A request as it stands on the doorstep.
#[derive(Debug)]
pub(crate) struct Incoming<B> {
    pub(crate) service: Arc<Service>,
    pub(crate) headers: HeaderMap,
    pub(crate) peer: Option<Peer>,
    pub(crate) body: B,
}

/// A request whose key was good and whose body has been read.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) service: Arc<Service>,
    pub(super) active: ActiveRequest,
    pub(super) arrived: Instant,
    headers: HeaderMap,
    peer: Option<Peer>,
    key: Option<KeyHash>,
}

impl Visit {
    pub(super) async fn enter<C: Buf>(
        incoming: Incoming<impl Stream<Item = Result<C, warp::Error>> + Send>,
        kind: BodyKind,
    ) -> Result<(Self, Body), ApiError> {
        let Incoming { service, headers, peer, body } = incoming;
        // Counted before the phase is read, so that a drain either refuses this request or waits for it.
        let active = service.lifecycle().enter();
        let arrived = Instant::now();
        let key = service.audience().admits(&headers)?;
        if service.lifecycle().phase() >= Phase::Refusing {
            return Err(ApiError::Draining);
        }
        let peer = peer.map(|connection| Peer::behind(connection, &headers));
        let visit = Self { service, active, arrived, headers, peer, key };
        let Caller { account, .. } = visit.caller(&CallerWishes::default());
        let body = read_body(&visit.headers, body, kind, account, visit.service.body_budget()).await?;
        Ok((visit, body))
    }

    pub(super) fn check_model(&self, model: &str) -> Result<(), ApiError> {
        if self.service.audience().serves(model) { Ok(()) } else { Err(ApiError::unknown_model(model)) }
    }

    pub(super) fn caller(&self, wishes: &CallerWishes) -> Caller {
        let asker = Asker { key: self.key.as_ref(), headers: &self.headers, peer: self.peer };
        self.service.clients().caller(&asker, wishes)
    }

    /// Lets a request of `account`'s pass that takes no place, unless many of its own do already.
    pub(super) fn pass(&self, account: ClientKey) -> Result<Tallied, ApiError> {
        self.check_unread(account)?;
        let detail = || format!("client has {PASSES} requests under way that wait for the tokenizer");
        self.service.passes().add_one_below(account, PASSES).ok_or_else(|| self.client_limit(detail()))
    }

    /// Takes a place for each of `count` sequences, or none.
    pub(super) fn reserve(&self, caller: &Caller, count: usize) -> Result<Vec<Box<dyn Place>>, ApiError> {
        self.check_unread(caller.account)?;
        let places = (0..count).map(|_| self.service.engine().reserve(caller));
        places.collect::<Result<_, _>>().map_err(|error| refused(&self.service, "prompt", &error))
    }

    /// Whoever does not read what it asked for gets nothing more.
    fn check_unread(&self, account: ClientKey) -> Result<(), ApiError> {
        let unread_bytes = self.service.unread().bytes_of(account);
        if unread_bytes < UNREAD_BYTES_MAX {
            return Ok(());
        }
        Err(self.client_limit(format!(
            "client has {unread_bytes} bytes of answers that it has not read, and may ask below {UNREAD_BYTES_MAX}"
        )))
    }

    fn client_limit(&self, detail: String) -> ApiError {
        let retry_after_seconds = self.service.retry_after_seconds(Duration::ZERO);
        ApiError::ClientLimit { detail, retry_after_seconds }
    }
}

/// What a client is told of a prompt that cannot be made tokens.
pub(super) fn bad_prompt(service: &Service, param: &'static str, error: &PromptError) -> ApiError {
    match error {
        PromptError::Tokenizer(_) => ApiError::EngineFailed,
        PromptError::TooLong { tokens } => ApiError::ContextLength {
            param: Some(param),
            prompt: PromptSize::MoreThanTokens(*tokens),
            context: service.engine().info().context,
        },
        PromptError::NoChatTemplate | PromptError::Template(_) => {
            ApiError::Prompt { param, detail: error.to_string() }
        }
    }
}

/// What a client is told of a request that the engine does not take. `param` holds the prompt.
pub(super) fn refused(service: &Service, param: &'static str, error: &SubmitError) -> ApiError {
    match *error {
        SubmitError::PromptTooLong { prompt_tokens, context } => {
            ApiError::ContextLength { param: Some(param), prompt: PromptSize::Tokens(prompt_tokens), context }
        }
        SubmitError::NoOutputHead => ApiError::NoOutputHead,
        SubmitError::EmptyPrompt | SubmitError::UnknownToken { .. } => {
            ApiError::Prompt { param, detail: error.to_string() }
        }
        SubmitError::OutOfRange { name, allowed, .. } => {
            ApiError::Invalid { param: name.to_owned(), expected: allowed.to_owned() }
        }
        SubmitError::QueueFull { waiting, retry_after } => {
            ApiError::QueueFull { waiting, retry_after_seconds: service.retry_after_seconds(retry_after) }
        }
        SubmitError::ClientLimit { retry_after, .. } | SubmitError::ClientTokenLimit { retry_after, .. } => {
            let retry_after_seconds = service.retry_after_seconds(retry_after);
            ApiError::ClientLimit { detail: error.to_string(), retry_after_seconds }
        }
        SubmitError::Draining => ApiError::Draining,
        SubmitError::Stopped => ApiError::EngineFailed,
    }
}
