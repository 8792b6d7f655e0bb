//! `GET /v1/models` and `GET /v1/models/{id}`.

use serde::Serialize;
use warp::reply::{Reply, Response};

use super::ApiError;
use crate::service::Service;

#[derive(Debug, Serialize)]
struct ModelList<'a> {
    object: &'static str,
    data: Vec<Model<'a>>,
}

#[derive(Debug, Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    /// Unix time when this engine started, seconds.
    created: u64,
    owned_by: &'static str,
    /// Tokens of prompt and answer together, under the name vLLM's clients read.
    max_model_len: u32,
}

fn model<'a>(service: &Service, name: &'a str) -> Model<'a> {
    Model {
        id: name,
        object: "model",
        created: service.started_unix(),
        owned_by: "sparkherd",
        max_model_len: service.engine().info().context,
    }
}

pub(crate) fn list(service: &Service) -> Response {
    let audience = service.audience();
    let data = audience.names().iter().map(|name| model(service, name)).collect();
    warp::reply::json(&ModelList { object: "list", data }).into_response()
}

/// `tail`: the rest of the path as sent; names may contain slashes, which clients escape or not.
pub(crate) fn show(service: &Service, tail: &str) -> Result<Response, ApiError> {
    let name = percent_decoded(tail);
    if service.audience().serves(&name) {
        Ok(warp::reply::json(&model(service, &name)).into_response())
    } else {
        Err(ApiError::unknown_model(&name))
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = (*first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
