//! Routes, and the connections they are served on.
//!
//! hyper-util serves the filters, because `warp::serve` bounds neither connections nor headers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use futures::Stream;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use warp::Filter;
use warp::http::Method;
use warp::http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use warp::path::FullPath;
use warp::reply::{Reply, Response};

use crate::client::Peer;
use crate::health::Verdict;
use crate::openai::{self, ApiError, Chat, Completions, Incoming};
use crate::phase::Phase;
use crate::route::Route;
use crate::service::Service;

/// OpenAPI 3.1; `openai/document_tests.rs` checks that it says what the parsers know.
const DOCUMENT: &str = include_str!("openapi.json");
/// Far more than the sequences one Spark decodes together; each open connection takes about 20 KiB.
const CONNECTIONS_MAX: usize = 1024;
/// Room for long keys and proxies' additions, and a bound for what one connection may make us hold.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Both a slow header and an idle kept connection end here. Longer than the 5 s to 15 s that clients keep theirs.
const HEADER_TIMEOUT: Duration = Duration::from_mins(1);
/// A peer that acknowledges nothing for this long is gone, or reads nothing; its connection is cut by the kernel.
const WRITE_TIMEOUT: Duration = Duration::from_mins(1);
/// Pause after a failed accept: out of file descriptors does not heal faster.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    match service.metrics().render(&service.engine().stats(), service.held_bytes()) {
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
pub async fn serve(listener: TcpListener, service: Arc<Service>, end: impl Future<Output = ()>) {
    serve_routes(listener, routes(service), end).await;
}

/// The same, for any routes.
pub(crate) async fn serve_routes(
    listener: TcpListener,
    routes: impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static,
    end: impl Future<Output = ()>,
) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let mut end = std::pin::pin!(end);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            () = &mut end => break,
        };
        let Some((stream, permit)) = accepted else { continue };
        let filters = TowerToHyperService::new(warp::service(routes.clone()));
        let peer = stream.peer_addr().ok().map(|address| Peer(address.ip()));
        let with_peer = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            peer.map(|peer| request.extensions_mut().insert(peer));
            filters.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_header_size(HEADER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), with_peer);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _permit = permit;
            // Resets and broken answers: the peer knows, and a request's own end is in the metrics.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// The next connection there is room for: beyond the limit, clients wait in the kernel's backlog.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            bound(&stream);
            Some((stream, permit))
        }
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Tokens leave at once, and a peer that takes none is given up. A socket that refuses either still works.
fn bound(stream: &TcpStream) {
    let timeout_ms = u32::try_from(WRITE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, timeout_ms) {
        tracing::debug!(%error, "cannot set TCP_USER_TIMEOUT");
    }
}
