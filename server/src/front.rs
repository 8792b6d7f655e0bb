//! One port for several engines of one machine: a request goes to the engine that serves the `model` it names.
//!
//! ```text
//! client ─► front ─(body's `model`)─► engine :8100
//!                └──────────────────► engine :8101
//! ```
//!
//! Keys are the engines' to check: the front passes headers on and answers nothing that a key would be needed for.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use futures::TryStreamExt;
use reqwest::RequestBuilder;
use serde::Deserialize;
use serde_json::Value;
use sparkherd_engine::ClientKey;
use tokio::net::TcpListener;
use warp::Filter;
use warp::http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use warp::http::{HeaderMap, Method};
use warp::path::FullPath;
use warp::reply::{Reply, Response};

use crate::body::{Body, BodyBudget, BodyKind, read_body};
use crate::client::{PEER_HEADER, Peer};
use crate::connection::{ConnectionLimits, serve_routes};
use crate::openai::ApiError;

/// What an engine needs of a request, beside its body.
const FORWARDED: [HeaderName; 6] = [
    ACCEPT,
    AUTHORIZATION,
    CONTENT_TYPE,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-openwebui-user-email"),
    HeaderName::from_static("x-openwebui-user-id"),
];

/// What a client needs of an answer, beside its body.
const RETURNED: [HeaderName; 4] = [
    CONTENT_TYPE,
    RETRY_AFTER,
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-sparkherd-ignored"),
];

/// Where each served name answers, as it stands now.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    by_name: Arc<RwLock<BTreeMap<String, SocketAddr>>>,
}

impl Routes {
    /// Takes the place of all routes before. Requests under way go on.
    pub fn set(&self, by_name: BTreeMap<String, SocketAddr>) {
        *self.by_name.write().unwrap_or_else(PoisonError::into_inner) = by_name;
    }

    fn get(&self, name: &str) -> Option<SocketAddr> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    /// Every engine once.
    fn engines(&self) -> Vec<SocketAddr> {
        let mut engines: Vec<_> =
            self.by_name.read().unwrap_or_else(PoisonError::into_inner).values().copied().collect();
        engines.sort_unstable();
        engines.dedup();
        engines
    }
}

#[derive(Clone, Debug)]
struct Front {
    routes: Routes,
    client: reqwest::Client,
    budget: BodyBudget,
}

/// The one field that decides where a request goes.
#[derive(Deserialize)]
struct Named {
    model: Option<String>,
}

/// Serves until `end`.
pub async fn serve(
    listener: TcpListener,
    routes: Routes,
    end: impl Future<Output = ()>,
) -> Result<(), reqwest::Error> {
    // A proxy of the environment knows nothing of this machine's loopback, and must not see keys.
    let client = reqwest::Client::builder().no_proxy().build()?;
    // How long a body may be for its context is its engine's to say.
    let front = Front { routes, client, budget: BodyBudget::new(u32::MAX) };
    serve_routes(listener, filter(front), ConnectionLimits::default(), end).await;
    Ok(())
}

fn filter(
    front: Front,
) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static {
    let with_front = warp::any().map(move || front.clone());
    let healthz = warp::path!("healthz").and(warp::get()).map(|| "ok\n".into_response());
    let models = warp::path!("v1" / "models")
        .and(warp::get())
        .and(with_front.clone())
        .and(warp::header::headers_cloned())
        .then(|front: Front, headers| async move {
            front.models(&headers).await.unwrap_or_else(Reply::into_response)
        });
    let model = warp::path!("v1" / "models" / String)
        .and(warp::get())
        .and(with_front.clone())
        .and(warp::path::full())
        .and(warp::header::headers_cloned())
        .then(|name: String, front: Front, path: FullPath, headers| async move {
            front.model(&name, path.as_str(), &headers).await.unwrap_or_else(Reply::into_response)
        });
    let asks = warp::path!("v1" / ..)
        .or(warp::path!("tokenize"))
        .unify()
        .or(warp::path!("detokenize"))
        .unify()
        .and(warp::post())
        .and(with_front)
        .and(warp::path::full())
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Peer>())
        .and(warp::body::stream())
        .then(|front: Front, path: FullPath, headers: HeaderMap, peer: Option<Peer>, body| async move {
            let account = peer.map_or_else(ClientKey::default, Peer::account);
            let answer = match read_body(&headers, body, BodyKind::Prompts, account, &front.budget).await {
                Ok(body) => front.ask(path.as_str(), &headers, peer, body).await,
                Err(error) => Err(error),
            };
            answer.unwrap_or_else(Reply::into_response)
        });
    healthz
        .or(models)
        .unify()
        .or(model)
        .unify()
        .or(asks)
        .unify()
        .or(warp::any().map(|| ApiError::UnknownPath.into_response()))
        .unify()
}

impl Front {
    async fn ask(
        &self,
        path: &str,
        headers: &HeaderMap,
        peer: Option<Peer>,
        body: Body,
    ) -> Result<Response, ApiError> {
        let named: Named = serde_json::from_slice(body.as_ref())
            .map_err(|error| ApiError::BadJson { detail: error.to_string() })?;
        let model = named.model.ok_or_else(|| ApiError::Missing { param: "model".to_owned() })?;
        let engine = self.routes.get(&model).ok_or_else(|| ApiError::unknown_model(&model))?;
        let mut request =
            self.request(Method::POST, engine, path, headers).header(CONTENT_LENGTH, body.as_ref().len());
        if let Some(Peer(address)) = peer {
            request = request.header(PEER_HEADER, address.to_string());
        }
        // As a stream, of which nothing is kept once it is sent: an answer may take minutes.
        let body = futures::stream::iter([Ok::<_, Infallible>(body.into_shared())]);
        send(request.body(reqwest::Body::wrap_stream(body))).await.map(returned)
    }

    async fn model(&self, name: &str, path: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
        let engine = self.routes.get(name).ok_or_else(|| ApiError::unknown_model(name))?;
        send(self.request(Method::GET, engine, path, headers)).await.map(returned)
    }

    /// What all engines serve, in one list. An engine that refuses the key refuses for all.
    async fn models(&self, headers: &HeaderMap) -> Result<Response, ApiError> {
        let mut data = Vec::new();
        for engine in self.routes.engines() {
            let answer = send(self.request(Method::GET, engine, "/v1/models", headers)).await?;
            if !answer.status().is_success() {
                return Ok(returned(answer));
            }
            let list: Value = answer.json().await.map_err(|_| ApiError::EngineFailed)?;
            data.extend(list["data"].as_array().cloned().unwrap_or_default());
        }
        Ok(warp::reply::json(&serde_json::json!({"object": "list", "data": data})).into_response())
    }

    fn request(&self, method: Method, engine: SocketAddr, path: &str, headers: &HeaderMap) -> RequestBuilder {
        let mut request = self.client.request(method, format!("http://{engine}{path}"));
        for name in &FORWARDED {
            if let Some(value) = headers.get(name) {
                request = request.header(name, value);
            }
        }
        request
    }
}

async fn send(request: RequestBuilder) -> Result<reqwest::Response, ApiError> {
    // The engine died since its route was made; it will be back.
    request.send().await.map_err(|_| ApiError::Draining)
}

/// Passes an answer on as it comes. An engine that dies cuts the client's connection too: the stream ends in an error.
fn returned(answer: reqwest::Response) -> Response {
    let mut builder = warp::http::Response::builder().status(answer.status());
    for name in &RETURNED {
        if let Some(value) = answer.headers().get(name) {
            builder = builder.header(name, value);
        }
    }
    let body =
        warp::reply::stream(answer.bytes_stream().map_err(std::io::Error::other)).into_response().into_body();
    builder.body(body).unwrap_or_else(|_| ApiError::EngineFailed.into_response())
}
