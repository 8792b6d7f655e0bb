//! What was seen of the cluster, in Kubernetes' own types: from the watches' stores, or by a fresh list.

use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use sparkherd_crds::{ENDPOINT_SLICE_MANAGER, Model, ModelDeployment, ModelReplica, SparkNode};

use crate::call::{CallError, Calls};

/// Everything a pass looks at.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub deployments: Vec<Arc<ModelDeployment>>,
    pub models: Vec<Arc<Model>>,
    pub replicas: Vec<Arc<ModelReplica>>,
    pub nodes: Vec<Arc<SparkNode>>,
    /// Heartbeats of agents, in the operator's own namespace.
    pub leases: Vec<Arc<Lease>>,
    pub services: Vec<Arc<Service>>,
    /// Ours only.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// Pods of the agents, in the operator's own namespace.
    pub agent_pods: Vec<Arc<Pod>>,
    /// Objects of our kinds that this version cannot read; they delay nobody else (I12).
    pub undecodable: Vec<Undecodable>,
}

/// An object of one of our kinds that does not decode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub generation: i64,
    /// Uids of the objects it belongs to: metadata is read whatever the spec holds.
    pub owner_uids: Vec<String>,
    pub error: String,
}

/// Label selector of the agents' Pods, as the chart sets it.
pub(crate) const AGENT_POD_SELECTOR: &str =
    "app.kubernetes.io/name=sparkherd,app.kubernetes.io/component=agent";

/// Label selector of our EndpointSlices.
pub(crate) fn slice_selector() -> String {
    format!("endpointslice.kubernetes.io/managed-by={ENDPOINT_SLICE_MANAGER}")
}

impl World {
    /// The Pod that the agent of a node runs in; one that is going away is not it any more.
    pub(crate) fn agent_pod(&self, node: &str) -> Option<&Pod> {
        let runs_there = |pod: &&Arc<Pod>| {
            pod.metadata.deletion_timestamp.is_none()
                && pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
        };
        self.agent_pods.iter().find(runs_there).map(AsRef::as_ref)
    }

    /// A consistent list of every kind, for decisions that take something away (rule 2) and to settle doubts about our
    /// own writes (rule 1).
    pub(crate) async fn list(client: &Client, namespace: &str, calls: &Calls) -> Result<Self, CallError> {
        let mut undecodable = Vec::new();
        let everything = ListParams::default();
        let deployments = list_guarded(
            Api::<DeserializeGuard<ModelDeployment>>::all(client.clone()),
            calls,
            &mut undecodable,
        )
        .await?;
        let models =
            list_guarded(Api::<DeserializeGuard<Model>>::all(client.clone()), calls, &mut undecodable)
                .await?;
        let replicas =
            list_guarded(Api::<DeserializeGuard<ModelReplica>>::all(client.clone()), calls, &mut undecodable)
                .await?;
        let nodes =
            list_guarded(Api::<DeserializeGuard<SparkNode>>::all(client.clone()), calls, &mut undecodable)
                .await?;
        let leases =
            list_all(Api::<Lease>::namespaced(client.clone(), namespace), calls, &everything).await?;
        let services = list_all(Api::<Service>::all(client.clone()), calls, &everything).await?;
        let slices = list_all(
            Api::<EndpointSlice>::all(client.clone()),
            calls,
            &ListParams::default().labels(&slice_selector()),
        )
        .await?;
        let agent_pods = list_all(
            Api::<Pod>::namespaced(client.clone(), namespace),
            calls,
            &ListParams::default().labels(AGENT_POD_SELECTOR),
        )
        .await?;
        Ok(Self { deployments, models, replicas, nodes, leases, services, slices, agent_pods, undecodable })
    }
}

async fn list_all<K>(api: Api<K>, calls: &Calls, params: &ListParams) -> Result<Vec<Arc<K>>, CallError>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let list = calls.call("list", api.list(params)).await?;
    Ok(list.items.into_iter().map(Arc::new).collect())
}

async fn list_guarded<K>(
    api: Api<DeserializeGuard<K>>,
    calls: &Calls,
    undecodable: &mut Vec<Undecodable>,
) -> Result<Vec<Arc<K>>, CallError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let list = calls.call("list", api.list(&ListParams::default())).await?;
    Ok(list.items.into_iter().filter_map(|guard| split(&guard, undecodable)).collect())
}

/// The object, or an entry among the undecodable ones.
pub(crate) fn split<K>(guard: &DeserializeGuard<K>, undecodable: &mut Vec<Undecodable>) -> Option<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone,
{
    match &guard.0 {
        Ok(object) => Some(Arc::new(object.clone())),
        Err(invalid) => {
            undecodable.push(Undecodable {
                kind: K::kind(&()).into_owned(),
                namespace: guard.namespace().unwrap_or_default(),
                name: guard.name_any(),
                uid: guard.uid().unwrap_or_default(),
                generation: invalid.metadata.generation.unwrap_or_default(),
                owner_uids: guard.owner_references().iter().map(|owner| owner.uid.clone()).collect(),
                error: invalid.error.clone(),
            });
            None
        }
    }
}
