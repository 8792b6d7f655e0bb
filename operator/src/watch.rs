//! One reflector per kind. Any event marks the world dirty; nothing is decided here.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use sparkherd_crds::{Model, ModelDeployment, ModelReplica, SparkNode};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::warn;

use crate::metrics::Metrics;
use crate::world::{AGENT_POD_SELECTOR, World, slice_selector, split};

/// A watch that hears nothing is renewed this often, so a silent partition is noticed.
const WATCH_SECONDS: u32 = 45;

/// A watcher keeps its old resourceVersion when a start fails; past this many failures in a row it is thrown away and
/// begun again with a list.
const FAILURES_BEFORE_RESTART: u32 = 5;

/// The stores behind a [`World`].
#[derive(Clone)]
pub(crate) struct Stores {
    deployments: Store<DeserializeGuard<ModelDeployment>>,
    models: Store<DeserializeGuard<Model>>,
    replicas: Store<DeserializeGuard<ModelReplica>>,
    nodes: Store<DeserializeGuard<SparkNode>>,
    leases: Store<Lease>,
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    agent_pods: Store<Pod>,
}

/// What every watch shares.
#[derive(Clone)]
pub(crate) struct Signals {
    pub(crate) dirty: Arc<Notify>,
    pub(crate) metrics: Metrics,
}

impl Stores {
    /// Starts every watch on `tasks`.
    pub(crate) fn start(
        client: &Client,
        namespace: &str,
        signals: &Signals,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let plain = || watcher::Config::default().timeout(WATCH_SECONDS);
        Self {
            deployments: watch(Api::all(client.clone()), plain(), "ModelDeployment", signals, tasks),
            models: watch(Api::all(client.clone()), plain(), "Model", signals, tasks),
            replicas: watch(Api::all(client.clone()), plain(), "ModelReplica", signals, tasks),
            nodes: watch(Api::all(client.clone()), plain(), "SparkNode", signals, tasks),
            leases: watch(Api::namespaced(client.clone(), namespace), plain(), "Lease", signals, tasks),
            services: watch(Api::all(client.clone()), plain(), "Service", signals, tasks),
            slices: watch(
                Api::all(client.clone()),
                plain().labels(&slice_selector()),
                "EndpointSlice",
                signals,
                tasks,
            ),
            agent_pods: watch(
                Api::namespaced(client.clone(), namespace),
                plain().labels(AGENT_POD_SELECTOR),
                "Pod",
                signals,
                tasks,
            ),
        }
    }

    /// Returns when every store has been filled once; planning earlier would see nothing and place everything again.
    pub(crate) async fn ready(&self) {
        let Self { deployments, models, replicas, nodes, leases, services, slices, agent_pods } = self;
        // A store whose writer is gone never becomes ready; its task's end is the operator's end, seen elsewhere.
        let _ = tokio::join!(
            deployments.wait_until_ready(),
            models.wait_until_ready(),
            replicas.wait_until_ready(),
            nodes.wait_until_ready(),
            leases.wait_until_ready(),
            services.wait_until_ready(),
            slices.wait_until_ready(),
            agent_pods.wait_until_ready(),
        );
    }

    pub(crate) fn world(&self) -> World {
        let mut undecodable = Vec::new();
        World {
            deployments: decoded(&self.deployments, &mut undecodable),
            models: decoded(&self.models, &mut undecodable),
            replicas: decoded(&self.replicas, &mut undecodable),
            nodes: decoded(&self.nodes, &mut undecodable),
            leases: self.leases.state(),
            services: self.services.state(),
            slices: self.slices.state(),
            agent_pods: self.agent_pods.state(),
            undecodable,
        }
    }
}

fn decoded<K>(
    store: &Store<DeserializeGuard<K>>,
    undecodable: &mut Vec<crate::world::Undecodable>,
) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.state().iter().filter_map(|guard| split(guard, undecodable)).collect()
}

fn watch<K>(
    api: Api<K>,
    config: watcher::Config,
    kind: &'static str,
    signals: &Signals,
    tasks: &mut JoinSet<()>,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    let (store, mut writer) = reflector::store();
    let signals = signals.clone();
    tasks.spawn(async move {
        loop {
            let mut failures = 0;
            let mut stream = watcher(api.clone(), config.clone()).default_backoff().boxed();
            while let Some(event) = stream.next().await {
                match event {
                    Ok(event) => {
                        failures = 0;
                        signals.metrics.saw_event(kind);
                        writer.apply_watcher_event(&event);
                        // The pages of a first list are not a world yet.
                        if !matches!(event, watcher::Event::Init | watcher::Event::InitApply(_)) {
                            signals.dirty.notify_one();
                        }
                    }
                    Err(error) => {
                        failures += 1;
                        warn!(kind, failures, %error, "watch failed");
                        if failures >= FAILURES_BEFORE_RESTART {
                            break;
                        }
                    }
                }
            }
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    });
    store
}

/// Pause before a watch that kept failing is begun again; the watcher's own back-off has waited long before this.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
