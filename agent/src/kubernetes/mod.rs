//! The agent's side of the API server.
//!
//! ```text
//! watch: ModelReplicas of this node, Models, own SparkNode ──► Desired
//! Observed ──► apply: one function a kind, on /status, forced, only on change
//! heartbeat: Lease <node>, while the loop goes round ──► connected
//! ```
//!
//! Rights used, and no others: list/watch modelreplicas and models, patch their /status; list/watch/create sparknodes, patch
//! their /status; get nodes; create/patch leases in the operator's namespace.

mod apply;
mod heartbeat;
mod node;
mod watch;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use thiserror::Error;

use crate::health::Health;
use crate::metrics::Metrics;
use crate::source::SourceLink;

/// Above the server's own end of a watch (45 s), so that a black-holed connection ends without cutting a healthy one.
const WATCH_READ_LIMIT: Duration = Duration::from_mins(1);

/// Of one call that is no watch.
const CALL_LIMIT: Duration = Duration::from_secs(10);

const CONNECT_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Error)]
pub enum KubernetesError {
    #[error("cannot read the kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    #[error("no kubeconfig, and not in a Pod: {0}")]
    Infer(#[from] kube::config::InferConfigError),
    #[error("cannot make a client: {0}")]
    Client(#[source] Box<kube::Error>),
    #[error("{call} {name}: no answer within {} s", CALL_LIMIT.as_secs())]
    TimedOut { call: &'static str, name: String },
    #[error("{call} {name}: {source}")]
    Call { call: &'static str, name: String, source: Box<kube::Error> },
}

/// Two clients: watches may be silent for long, calls may not; neither repeats a call by itself.
#[derive(Clone)]
pub struct Clients {
    watch: Client,
    call: Client,
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Clients")
    }
}

impl Clients {
    /// From this file, or from the Pod's `ServiceAccount` or the usual places.
    pub async fn connect(kubeconfig: Option<&Path>) -> Result<Self, KubernetesError> {
        let mut config = match kubeconfig {
            Some(path) => {
                let options = KubeConfigOptions::default();
                kube::Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?
            }
            None => kube::Config::infer().await?,
        };
        // A repeated call after 504 may be done twice; whoever calls repeats, with back-off, what it knows to be safe.
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT_LIMIT);
        let client =
            |config| Client::try_from(config).map_err(|error| KubernetesError::Client(Box::new(error)));
        config.read_timeout = Some(WATCH_READ_LIMIT);
        let watch = client(config.clone())?;
        config.read_timeout = Some(CALL_LIMIT);
        let call = client(config)?;
        Ok(Self { watch, call })
    }
}

/// Who this agent is to the API server.
#[derive(Clone, Debug)]
pub struct Identity {
    pub node_name: String,
    /// The operator's namespace: the Lease lies there.
    pub namespace: String,
    /// This life of the agent.
    pub incarnation: String,
}

/// Runs watches, writes and the heartbeat until the agent has ended and its last statuses are written.
pub async fn run(
    identity: &Identity,
    clients: Clients,
    link: SourceLink,
    health: &Health,
    metrics: &Metrics,
) {
    let SourceLink { desired, observed } = link;
    let desired = Arc::new(desired);
    tokio::select! {
        () = watch::run(&clients.watch, &identity.node_name, &desired) => {}
        () = heartbeat::run(&clients.call, identity, health, metrics, &desired) => {}
        () = writer::run(&clients.call, identity, desired.subscribe(), observed, metrics) => {}
    }
}

/// A call with a time limit, counted.
async fn limited<T>(
    metrics: &Metrics,
    call: &'static str,
    name: &str,
    answer: impl Future<Output = kube::Result<T>>,
) -> Result<T, KubernetesError> {
    let result = match tokio::time::timeout(CALL_LIMIT, answer).await {
        Ok(answer) => answer.map_err(|source| KubernetesError::Call {
            call,
            name: name.to_owned(),
            source: Box::new(source),
        }),
        Err(_) => Err(KubernetesError::TimedOut { call, name: name.to_owned() }),
    };
    let outcome = if result.is_ok() { "ok" } else { "error" };
    metrics.api_calls.with_label_values(&[call, outcome]).inc();
    result
}

impl KubernetesError {
    /// The API server's status code, where it answered.
    fn code(&self) -> Option<u16> {
        match self {
            Self::Call { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            _ => None,
        }
    }
}
