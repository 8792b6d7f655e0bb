//! `/metrics` and `/healthz` of the agent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use thiserror::Error;
use tokio::net::TcpListener;
use warp::Filter;
use warp::http::{Response, StatusCode};

use crate::health::{EngineTarget, Health};
use crate::metrics::Metrics;
use crate::reexport::{Scrape, merge};

/// An engine that does not answer within this is left out: a scrape must not wait for a hung one.
const SCRAPE_LIMIT: Duration = Duration::from_secs(1);

/// An engine's metrics are some tens of KiB.
const SCRAPE_BYTES_MAX: usize = 4 << 20;

const TEXT_FORMAT: &str = "text/plain; version=0.0.4";

#[derive(Debug, Error)]
pub enum AdminError {
    #[error("cannot listen on {address}: {source}")]
    Bind { address: SocketAddr, source: std::io::Error },
    #[error("cannot make an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

/// Binds and serves until the process ends. Returns the bound address and the server.
pub async fn bind(
    address: SocketAddr,
    metrics: Metrics,
    health: Arc<Health>,
) -> Result<(SocketAddr, impl Future<Output = ()>), AdminError> {
    let failed = |source| AdminError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let client = reqwest::Client::builder().timeout(SCRAPE_LIMIT).no_proxy().build()?;
    let alive = Arc::clone(&health);
    let healthz = warp::path!("healthz").and(warp::get()).map(move || {
        let (status, text) = if alive.is_alive() {
            (StatusCode::OK, "ok\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the loop hangs\n")
        };
        warp::reply::with_status(text, status)
    });
    let scrape = warp::path!("metrics").and(warp::get()).then(move || {
        let (client, metrics, health) = (client.clone(), metrics.clone(), Arc::clone(&health));
        async move { text_response(exposition(&client, &metrics, &health).await) }
    });
    Ok((bound, warp::serve(healthz.or(scrape)).incoming(listener).run()))
}

fn text_response(text: Result<String, prometheus::Error>) -> Response<String> {
    let (status, text) = match text {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", warp::http::HeaderValue::from_static(TEXT_FORMAT));
    response
}

async fn exposition(
    client: &reqwest::Client,
    metrics: &Metrics,
    health: &Health,
) -> Result<String, prometheus::Error> {
    let targets = health.targets();
    let scrapes: Vec<Scrape> =
        join_all(targets.iter().map(|target| scrape(client, target))).await.into_iter().flatten().collect();
    metrics.scrape_failures.inc_by((targets.len() - scrapes.len()) as u64);
    Ok(metrics.text()? + &merge(&scrapes))
}

/// `None` if it does not answer whole and in time.
async fn scrape(client: &reqwest::Client, target: &EngineTarget) -> Option<Scrape> {
    let mut response = client.get(format!("http://{}/metrics", target.address)).send().await.ok()?;
    if !response.status().is_success() {
        return None;
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len() + chunk.len() > SCRAPE_BYTES_MAX {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(Scrape {
        namespace: target.namespace.clone(),
        deployment: target.deployment.clone(),
        replica: target.replica.clone(),
        text: String::from_utf8(body).ok()?,
    })
}
