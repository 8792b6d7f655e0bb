use std::fmt;

use serde::Serialize;
use sparkherd_engine::{GenerationError, TimeoutPhase};
use thiserror::Error;
use warp::http::StatusCode;
use warp::http::header::{ALLOW, HeaderValue, RETRY_AFTER};
use warp::reply::{Reply, Response};

use crate::access::KeyProblem;

/// Seconds after which a client should try again elsewhere: a draining engine is out of its Service by then.
const RETRY_AFTER_SECONDS: u32 = 2;

/// Longest piece of a client's own words repeated in an error.
const ECHO_CHARS_MAX: usize = 200;

/// Everything a client can be told other than an answer. Names parameters and numbers, never a value's text: that could
/// be a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApiError {
    #[error("body is not valid JSON: {detail}")]
    BadJson { detail: String },
    #[error("body must be a JSON object")]
    NotAnObject,
    #[error("parameter '{param}' is required")]
    Missing { param: String },
    #[error("parameter '{param}' must be {expected}")]
    Invalid { param: String, expected: String },
    #[error("parameter '{param}' is not supported here: leave it out or send {allowed}")]
    Unsupported { param: String, allowed: &'static str },
    #[error("model '{model}' does not exist here")]
    UnknownModel { model: String },
    #[error("this model has no output head, so it generates nothing: use /v1/embeddings")]
    NoOutputHead,
    // The words that proxies and agents know OpenAI's own refusal by: LiteLLM looks at nothing else.
    #[error("{prompt} leaves no room for an answer: this model's maximum context length is {context} tokens")]
    ContextLength { param: Option<&'static str>, prompt: PromptSize, context: u32 },
    #[error("{detail}")]
    Prompt { param: &'static str, detail: String },
    #[error("parameter '{param}' cannot be followed: {detail}")]
    Grammar { param: &'static str, detail: String },
    #[error("answer cannot go on as its grammar says: {detail}")]
    GrammarFailed { detail: String },
    #[error("no API key: send it as 'Authorization: Bearer KEY'")]
    MissingKey,
    // Proxies tell a wrong key from a wrong request by the words of OpenAI's own message.
    #[error("Incorrect API key provided: it is not valid here")]
    WrongKey,
    #[error("nothing at this path: see /openapi.json")]
    UnknownPath,
    #[error("method not allowed at this path: use {allowed}")]
    Method { allowed: &'static str },
    #[error("body is larger than {limit} bytes")]
    BodyTooLarge { limit: usize },
    #[error("body did not arrive within {seconds} s")]
    BodyTimeout { seconds: u64 },
    #[error("body stalled: too little of it came in {seconds} s")]
    BodyStalled { seconds: u64 },
    #[error("body ended early")]
    BodyBroken,
    #[error("queue is full: {waiting} requests wait")]
    QueueFull { waiting: u32, retry_after_seconds: u32 },
    #[error("as many grammars are in use as there is memory for")]
    GrammarsFull { retry_after_seconds: u32 },
    #[error("bodies of other requests leave no room for this one")]
    BodiesFull { retry_after_seconds: u32 },
    #[error("{detail}")]
    ClientLimit { detail: String, retry_after_seconds: u32 },
    #[error("request waited {seconds} s without its turn coming")]
    QueueTimeout { seconds: u64 },
    #[error("answer took longer than {seconds} s and has been given up")]
    GenerationTimeout { seconds: u64 },
    #[error("engine is going away: try again")]
    Draining,
    #[error("answer was read too slowly and has been given up")]
    SlowReader,
    #[error("engine failed")]
    EngineFailed,
    #[error("no token has been produced lately: {detail}")]
    Unhealthy { detail: String },
}

/// How long a prompt is found to be; one that is far too long is not counted to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptSize {
    Tokens(usize),
    MoreThanTokens(usize),
    BodyBytes(usize),
}

impl fmt::Display for PromptSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens(tokens) => write!(formatter, "prompt of {tokens} tokens"),
            Self::MoreThanTokens(tokens) => write!(formatter, "prompt of more than {tokens} tokens"),
            Self::BodyBytes(bytes) => write!(formatter, "body of {bytes} bytes"),
        }
    }
}

/// The body of every error, and the payload of an error within a stream.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorBody<'a> {
    error: ErrorDetail<'a>,
}

#[derive(Debug, Serialize)]
struct ErrorDetail<'a> {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: &'static str,
}

impl ApiError {
    pub(crate) fn unknown_model(model: &str) -> Self {
        Self::UnknownModel { model: model.chars().take(ECHO_CHARS_MAX).collect() }
    }

    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Self::BadJson { .. }
            | Self::NotAnObject
            | Self::Missing { .. }
            | Self::Invalid { .. }
            | Self::Unsupported { .. }
            | Self::NoOutputHead
            | Self::ContextLength { .. }
            | Self::Prompt { .. }
            | Self::Grammar { .. }
            | Self::GrammarFailed { .. }
            | Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::MissingKey | Self::WrongKey => StatusCode::UNAUTHORIZED,
            Self::UnknownModel { .. } | Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout { .. } | Self::BodyStalled { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ClientLimit { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::EngineFailed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::GenerationTimeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::QueueFull { .. }
            | Self::GrammarsFull { .. }
            | Self::BodiesFull { .. }
            | Self::QueueTimeout { .. }
            | Self::Draining
            | Self::SlowReader
            | Self::Unhealthy { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What programs act on; OpenAI's word where OpenAI has one.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::BadJson { .. } | Self::NotAnObject => "invalid_json",
            Self::Missing { .. } => "missing_required_parameter",
            Self::Invalid { .. } => "invalid_value",
            Self::Unsupported { .. } => "unsupported_parameter",
            Self::UnknownModel { .. } => "model_not_found",
            // OpenAI's word for what is right elsewhere and not with this model.
            Self::NoOutputHead => "unsupported_value",
            Self::ContextLength { .. } => "context_length_exceeded",
            Self::Prompt { .. } => "invalid_prompt",
            Self::Grammar { .. } | Self::GrammarFailed { .. } => "invalid_grammar",
            Self::MissingKey | Self::WrongKey => "invalid_api_key",
            Self::UnknownPath => "unknown_url",
            Self::Method { .. } => "method_not_supported",
            Self::BodyTooLarge { .. } => "request_too_large",
            Self::BodyTimeout { .. } | Self::BodyStalled { .. } => "request_timeout",
            Self::BodyBroken => "incomplete_body",
            Self::QueueFull { .. } | Self::GrammarsFull { .. } | Self::BodiesFull { .. } => "queue_full",
            Self::ClientLimit { .. } => "rate_limit_exceeded",
            Self::QueueTimeout { .. } => "queue_timeout",
            Self::GenerationTimeout { .. } => "generation_timeout",
            Self::Draining => "draining",
            Self::SlowReader => "slow_reader",
            Self::EngineFailed => "engine_failed",
            Self::Unhealthy { .. } => "unhealthy",
        }
    }

    fn param(&self) -> Option<&str> {
        match self {
            Self::Missing { param } | Self::Invalid { param, .. } | Self::Unsupported { param, .. } => {
                Some(param)
            }
            Self::Prompt { param, .. } | Self::Grammar { param, .. } => Some(param),
            Self::ContextLength { param, .. } => *param,
            Self::UnknownModel { .. } | Self::NoOutputHead => Some("model"),
            _ => None,
        }
    }

    pub(crate) fn body(&self) -> ErrorBody<'_> {
        let kind = match self {
            Self::ClientLimit { .. } => "rate_limit_error",
            _ if self.status().is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        ErrorBody {
            error: ErrorDetail { message: self.to_string(), kind, param: self.param(), code: self.code() },
        }
    }
}

impl From<KeyProblem> for ApiError {
    fn from(problem: KeyProblem) -> Self {
        match problem {
            KeyProblem::Missing => Self::MissingKey,
            KeyProblem::Wrong => Self::WrongKey,
        }
    }
}

impl From<&GenerationError> for ApiError {
    fn from(error: &GenerationError) -> Self {
        match *error {
            GenerationError::Draining => Self::Draining,
            GenerationError::SlowReader { .. } => Self::SlowReader,
            GenerationError::TimedOut { phase: TimeoutPhase::Queue, limit } => {
                Self::QueueTimeout { seconds: limit.as_secs() }
            }
            GenerationError::TimedOut { phase: TimeoutPhase::FirstToken | TimeoutPhase::Total, limit } => {
                Self::GenerationTimeout { seconds: limit.as_secs() }
            }
            GenerationError::Grammar(ref detail) => Self::GrammarFailed { detail: detail.clone() },
            GenerationError::GrammarsFull => Self::GrammarsFull { retry_after_seconds: RETRY_AFTER_SECONDS },
            GenerationError::Engine(_) => Self::EngineFailed,
        }
    }
}

impl Reply for ApiError {
    fn into_response(self) -> Response {
        let mut response =
            warp::reply::with_status(warp::reply::json(&self.body()), self.status()).into_response();
        let headers = response.headers_mut();
        match self {
            Self::Method { allowed } => {
                headers.insert(ALLOW, HeaderValue::from_static(allowed));
            }
            Self::QueueFull { retry_after_seconds, .. }
            | Self::GrammarsFull { retry_after_seconds }
            | Self::BodiesFull { retry_after_seconds }
            | Self::ClientLimit { retry_after_seconds, .. } => {
                headers.insert(RETRY_AFTER, HeaderValue::from(retry_after_seconds));
            }
            Self::Draining | Self::QueueTimeout { .. } => {
                headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
            }
            _ => {}
        }
        response
    }
}
