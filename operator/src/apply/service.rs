//! A Service without selector for each deployment, and an EndpointSlice for each replica.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Resource, ResourceExt};
use sparkherd_crds::{DEPLOYMENT_LABEL, ENDPOINT_SLICE_MANAGER, GROUP, ModelReplica, REPLICA_LABEL, VERSION};
use sparkherd_planner::{DeploymentId, Expose, NodeName, ReplicaId};

use super::Apply;
use crate::call::CallError;
use crate::pending::Expected;

/// Port of every Service: clients write no port.
const SERVICE_PORT: u16 = 80;

/// Name of the port in Service and slice, which must agree.
const PORT_NAME: &str = "http";

/// One replica's endpoint as it should be published.
pub(crate) struct WantedEndpoint<'a> {
    pub(crate) node: &'a NodeName,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) ready: bool,
}

pub(super) async fn ensure(
    context: &Apply<'_>,
    deployment: &DeploymentId,
    deployment_uid: &str,
    expose: Expose,
) -> Result<Option<Expected>, CallError> {
    let api: Api<Service> = Api::namespaced(context.client.clone(), deployment.namespace());
    if let Some(uid) =
        owned(&context.world.services, deployment.namespace(), deployment.name(), deployment_uid)
    {
        return context
            .patch(&api, deployment.name(), &uid, serde_json::json!({"spec": service_spec(expose)}))
            .await;
    }
    match new_service(deployment, deployment_uid, expose) {
        Some(service) => context.post(&api, &service).await,
        None => Ok(None),
    }
}

/// The Service to create. `None` cannot happen: the JSON is of the type's own form.
pub(crate) fn new_service(
    deployment: &DeploymentId,
    deployment_uid: &str,
    expose: Expose,
) -> Option<Service> {
    let metadata = serde_json::json!({
        "name": deployment.name(),
        "labels": {DEPLOYMENT_LABEL: deployment.name()},
        "ownerReferences": [super::replica::owner(deployment.name(), deployment_uid)],
    });
    serde_json::from_value(serde_json::json!({"metadata": metadata, "spec": service_spec(expose)})).ok()
}

fn service_spec(expose: Expose) -> serde_json::Value {
    let type_ = match expose {
        Expose::ClusterIp => "ClusterIP",
        Expose::NodePort => "NodePort",
        Expose::LoadBalancer => "LoadBalancer",
    };
    serde_json::json!({"type": type_, "ports": [{"name": PORT_NAME, "port": SERVICE_PORT, "protocol": "TCP"}]})
}

pub(super) async fn set_endpoint(
    context: &Apply<'_>,
    replica: &ReplicaId,
    replica_uid: &str,
    wanted: &WantedEndpoint<'_>,
) -> Result<Option<Expected>, CallError> {
    let Some(object) =
        context.world.replicas.iter().find(|object| object.uid().as_deref() == Some(replica_uid))
    else {
        return Ok(None);
    };
    let api: Api<EndpointSlice> = Api::namespaced(context.client.clone(), replica.namespace());
    let pod = context.world.agent_pod(wanted.node.as_str());
    let existing = context.world.slices.iter().find(|slice| is_owned(slice.as_ref(), replica_uid));
    match existing {
        // A slice's address type is immutable: one of the other family goes, and the next pass makes the new one.
        Some(slice) if slice.address_type != address_type(wanted.address) => {
            let version = slice.resource_version().unwrap_or_default();
            context.delete(&api, &slice.name_any(), &slice.uid().unwrap_or_default(), &version).await
        }
        Some(slice) => {
            let patch = serde_json::json!({"endpoints": [endpoint(wanted, pod)], "ports": ports(wanted)});
            context.patch(&api, &slice.name_any(), &slice.uid().unwrap_or_default(), patch).await
        }
        None => match new_slice(replica, replica_uid, object, wanted, pod) {
            Some(slice) => context.post(&api, &slice).await,
            None => Ok(None),
        },
    }
}

/// The EndpointSlice to create. `None` cannot happen: the JSON is of the type's own form.
pub(crate) fn new_slice(
    replica: &ReplicaId,
    replica_uid: &str,
    object: &ModelReplica,
    wanted: &WantedEndpoint<'_>,
    pod: Option<&Pod>,
) -> Option<EndpointSlice> {
    let owner = OwnerReference {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: "ModelReplica".to_owned(),
        name: replica.name().to_owned(),
        uid: replica_uid.to_owned(),
        controller: None,
        block_owner_deletion: None,
    };
    let slice = serde_json::json!({
        "metadata": {
            "name": replica.name(),
            "labels": {
                "kubernetes.io/service-name": object.spec.deployment,
                "endpointslice.kubernetes.io/managed-by": ENDPOINT_SLICE_MANAGER,
                DEPLOYMENT_LABEL: object.spec.deployment,
                REPLICA_LABEL: replica.name(),
            },
            "ownerReferences": [owner],
        },
        "addressType": address_type(wanted.address),
        "endpoints": [endpoint(wanted, pod)],
        "ports": ports(wanted),
    });
    serde_json::from_value(slice).ok()
}

fn ports(wanted: &WantedEndpoint<'_>) -> serde_json::Value {
    serde_json::json!([{"name": PORT_NAME, "port": wanted.port, "protocol": "TCP"}])
}

/// `terminating` is never set: kube-proxy falls back to terminating endpoints that still serve, which would send new
/// requests to an engine that drains.
fn endpoint(wanted: &WantedEndpoint<'_>, pod: Option<&Pod>) -> serde_json::Value {
    let mut endpoint = serde_json::json!({
        "addresses": [wanted.address.to_string()],
        "conditions": {"ready": wanted.ready, "serving": wanted.ready},
        "nodeName": wanted.node.as_str(),
    });
    if let Some(pod) = pod {
        endpoint["targetRef"] = serde_json::json!({
            "kind": "Pod", "namespace": pod.namespace(), "name": pod.name_any(), "uid": pod.uid(),
        });
    }
    endpoint
}

const fn address_type(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

fn owned<K: Resource>(
    objects: &[std::sync::Arc<K>],
    namespace: &str,
    name: &str,
    owner_uid: &str,
) -> Option<String> {
    let object = objects.iter().find(|object| {
        object.namespace().as_deref() == Some(namespace)
            && object.name_any() == name
            && is_owned(object.as_ref(), owner_uid)
    })?;
    object.uid()
}

pub(crate) fn is_owned<K: Resource>(object: &K, owner_uid: &str) -> bool {
    object.owner_references().iter().any(|owner| owner.uid == owner_uid)
}
