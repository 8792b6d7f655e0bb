use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use sparkherd_crds::{
    Condition, ConditionStatus, FINALIZER, ModelReplica, ModelReplicaStatus, RunState, find_condition,
};
use sparkherd_planner::{
    Access, Endpoint, Exit, NodeName, Refusal, Replica, ReplicaId, ReplicaModel, ReplicaStatus, Reported, Run,
};

use super::{saturating_u32, timestamp};
use crate::world::World;

pub(super) fn replicas(world: &World) -> BTreeMap<ReplicaId, Replica> {
    let endpoints = endpoints(world);
    world
        .replicas
        .iter()
        .map(|object| {
            let id = ReplicaId::new(object.namespace().unwrap_or_default(), object.name_any());
            (id, replica(object, object.uid().and_then(|uid| endpoints.get(&uid).cloned())))
        })
        .collect()
}

/// Our slices by the uid of the replica that owns them.
fn endpoints(world: &World) -> BTreeMap<String, Endpoint> {
    let owned = world.slices.iter().filter_map(|slice| {
        let owner = slice.owner_references().iter().find(|owner| owner.kind == "ModelReplica")?;
        Some((owner.uid.clone(), endpoint(slice)))
    });
    owned.collect()
}

fn endpoint(slice: &EndpointSlice) -> Endpoint {
    let first = slice.endpoints.first();
    let address = first
        .and_then(|endpoint| endpoint.addresses.first())
        .and_then(|address| address.parse::<IpAddr>().ok());
    let ready = first
        .and_then(|endpoint| endpoint.conditions.as_ref())
        .and_then(|conditions| conditions.ready)
        .unwrap_or(true);
    let port = slice.ports.iter().flatten().find_map(|port| port.port).unwrap_or_default();
    Endpoint { address, port: u16::try_from(port).unwrap_or_default(), ready }
}

fn replica(object: &ModelReplica, endpoint: Option<Endpoint>) -> Replica {
    let spec = &object.spec;
    Replica {
        uid: object.uid().unwrap_or_default(),
        resource_version: object.resource_version().unwrap_or_default(),
        created_at: timestamp(object.metadata.creation_timestamp.as_ref()),
        deleting: object.metadata.deletion_timestamp.is_some(),
        has_finalizer: object.finalizers().iter().any(|finalizer| finalizer == FINALIZER),
        owner_uid: object
            .owner_references()
            .iter()
            .find(|owner| owner.kind == "ModelDeployment")
            .map(|owner| owner.uid.clone()),
        node: NodeName::new(&spec.node_name),
        deployment: spec.deployment.clone(),
        revision: spec.revision.clone(),
        model: ReplicaModel {
            name: spec.model.name.clone(),
            source: spec.model.source.clone(),
            revision: spec.model.revision.clone(),
            digest: spec.model.digest.clone(),
        },
        serving: spec.serving.clone(),
        footprint: spec.footprint,
        run: match spec.run {
            RunState::Serve => Run::Serve,
            RunState::Stop => Run::Stop,
        },
        attempt: spec.attempt,
        drain_seconds: spec.drain_seconds,
        access: Access { anonymous: spec.access.anonymous, key_hashes: spec.access.key_hashes.clone() },
        served_names: spec.served_names.clone(),
        status: object
            .status
            .clone()
            .map(|reported| status(reported, object.metadata.generation))
            .unwrap_or_default(),
        endpoint,
    }
}

fn status(status: ModelReplicaStatus, generation: Option<i64>) -> ReplicaStatus {
    // Stopping and deleting both raise the generation: a `Released` of before says nothing of the engine that ran since.
    let is_about_now = status.observed_generation >= generation;
    let reported = |type_: &str| find_condition(&status.conditions, type_).map(reported);
    ReplicaStatus {
        attempt: status.attempt,
        admitted: reported("Admitted"),
        weights_ready: reported("WeightsReady"),
        loaded: reported("Loaded"),
        ready: reported("Ready"),
        released: reported("Released").filter(|_| is_about_now),
        agent_incarnation: status.agent_incarnation,
        endpoint_port: status.endpoint_port,
        failures: status.failures,
        failed_since: status.failed_since.map(|time| time.0),
        refusal: status.refusal.map(|refusal| Refusal {
            message: refusal.message,
            at: refusal.at.0,
            allocatable_bytes: refusal.allocatable_bytes,
        }),
        last_exit: status.last_exit.map(|exit| Exit {
            status: exit.status,
            reason: exit.reason,
            at: exit.at.0,
        }),
        held_bytes: status.memory.map(|memory| memory.held_bytes).unwrap_or_default(),
        restarts: saturating_u32(i64::from(status.restarts)),
    }
}

fn reported(condition: &Condition) -> Reported {
    Reported {
        value: condition.status == ConditionStatus::True,
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        since: condition.last_transition_time.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_counts_for_the_stop_it_was_said_of() {
        let reported = |observed: i64| -> ReplicaStatus {
            let value = serde_json::json!({
                "observedGeneration": observed, "attempt": 1,
                "conditions": [{
                    "type": "Released", "status": "True", "reason": "Draining", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }],
            });
            status(serde_json::from_value(value).unwrap(), Some(3))
        };
        assert!(reported(3).released.is_some());
        assert!(reported(2).released.is_none());
    }
}
