//! What each route answers.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Buf;
use futures::Stream;
use serde::Serialize;
use tokio::net::TcpListener;
use warp::Filter;
use warp::http::Method;
use warp::http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use warp::path::FullPath;
use warp::reply::{Reply, Response};

use crate::client::Peer;
use crate::connection::{ConnectionLimits, serve_routes};
use crate::health::Verdict;
use crate::openai::{self, ApiError, Chat, Completions, Incoming};
use crate::phase::Phase;
use crate::route::Route;
use crate::service::Service;

/// OpenAPI 3.1; `openai/document_tests.rs` checks that it says what the parsers know.
const DOCUMENT: &str = include_str!("openapi.json");

/// All routes. Every error, an unknown path's as well, has OpenAI's body.
pub fn routes(
    service: Arc<Service>,
) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static {
    warp::method()
        .and(warp::path::full())
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Peer>())
        .and(warp::body::stream())
        .then(move |method: Method, path: FullPath, headers, peer, body| {
            let incoming = Incoming { service: Arc::clone(&service), headers, peer, body };
            async move {
                let service = Arc::clone(&incoming.service);
                let response = answer(&method, path.as_str(), incoming).await.unwrap_or_else(|error| {
                    service.metrics().reject(&error);
                    error.into_response()
                });
                closing(&service, response)
            }
        })
        // Nothing above refuses a request: what cannot be served has been answered.
        .or(warp::any().map(|| ApiError::UnknownPath.into_response()))
        .unify()
}

async fn answer<C: Buf>(
    method: &Method,
    path: &str,
    incoming: Incoming<impl Stream<Item = Result<C, warp::Error>> + Send>,
) -> Result<Response, ApiError> {
    let Some((route, rest)) = Route::of(path) else { return Err(ApiError::UnknownPath) };
    if method.as_str() != route.method() {
        return Err(ApiError::Method { allowed: route.method() });
    }
    let service = Arc::clone(&incoming.service);
    match route {
        Route::ChatCompletions => openai::generate::<Chat, C>(incoming).await,
        Route::Completions => openai::generate::<Completions, C>(incoming).await,
        Route::Embeddings => openai::embed(incoming).await,
        Route::Tokenize => openai::tokenize(incoming).await,
        Route::Detokenize => openai::detokenize(incoming).await,
        Route::Models | Route::Model => {
            service.audience().admits(&incoming.headers)?;
            if route == Route::Models { Ok(openai::list(&service)) } else { openai::show(&service, rest) }
        }
        Route::Healthz => Ok(healthz(&service)),
        Route::Metrics => Ok(metrics(&service)),
        Route::Version => Ok(version()),
        Route::OpenApi => Ok(openapi()),
    }
}

fn healthz(service: &Service) -> Response {
    if service.lifecycle().phase() >= Phase::Refusing {
        return ApiError::Draining.into_response();
    }
    let detail = match service.health().verdict(&service.engine().stats()) {
        Verdict::Healthy => return "ok\n".into_response(),
        Verdict::Untried => "nothing has been generated yet".to_owned(),
        Verdict::Failing => "the last generation failed".to_owned(),
        Verdict::Stalled { step_age } => format!("a step has been running for {} s", step_age.as_secs()),
    };
    ApiError::Unhealthy { detail }.into_response()
}

fn metrics(service: &Service) -> Response {
    match service.metrics().render(&service.engine().stats(), service.process_use()) {
        Ok(text) => warp::reply::with_header(text, CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")
            .into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            ApiError::EngineFailed.into_response()
        }
    }
}

fn version() -> Response {
    #[derive(Serialize)]
    struct Version {
        version: &'static str,
    }
    warp::reply::json(&Version { version: env!("CARGO_PKG_VERSION") }).into_response()
}

/// What this server takes and answers, for programs that make clients and tests of it.
fn openapi() -> Response {
    let json = HeaderValue::from_static("application/json");
    let mut response = Response::new(bytes::Bytes::from_static(DOCUMENT.as_bytes()).into());
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// A client that keeps its connection would come back to an engine that is going away.
fn closing(service: &Service, mut response: Response) -> Response {
    if service.lifecycle().phase() > Phase::Serving {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Serves an engine's routes until `end`, then lets open connections finish what they are writing. Dropping the future
/// cuts them.
pub async fn serve(
    listener: TcpListener,
    service: Arc<Service>,
    limits: ConnectionLimits,
    end: impl Future<Output = ()>,
) {
    serve_routes(listener, routes(service), limits, end).await;
}
