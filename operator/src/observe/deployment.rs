use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use kube::ResourceExt;
use sparkherd_crds::{
    ExposeType, KvCacheDtype, ModelDeployment, ModelDeploymentSpec, RolloutStrategy, parse_quantity,
};
use sparkherd_planner::{
    Access, Deployment, DeploymentId, DeploymentSpec, Expose, KvDtypeChoice, NodeName, Placement, Rollout,
    ServiceState, Strategy,
};

use super::service;
use crate::world::World;

/// `held_back`: those whose latest writes of ours are not visible yet.
pub(super) fn deployments(
    world: &World,
    held_back: &BTreeSet<DeploymentId>,
) -> BTreeMap<DeploymentId, Deployment> {
    let decoded = world.deployments.iter().map(|object| {
        let id = DeploymentId::new(object.namespace().unwrap_or_default(), object.name_any());
        let uid = object.uid().unwrap_or_default();
        let deployment = Deployment {
            generation: object.metadata.generation.unwrap_or_default(),
            deleting: object.metadata.deletion_timestamp.is_some(),
            held_back: held_back.contains(&id),
            spec: unreadable_replica(world, &uid).map_or_else(|| deployment_spec(object), Err),
            service: service::state(world, &id, &uid),
            uid,
        };
        (id, deployment)
    });
    let undecodable =
        world.undecodable.iter().filter(|object| object.kind == "ModelDeployment").map(|object| {
            let id = DeploymentId::new(&object.namespace, &object.name);
            let deployment = Deployment {
                uid: object.uid.clone(),
                generation: object.generation,
                deleting: false,
                held_back: false,
                spec: Err(format!("this version of sparkherd cannot read the object: {}", object.error)),
                service: ServiceState::Absent,
            };
            (id, deployment)
        });
    decoded.chain(undecodable).collect()
}

/// Why a deployment must stay as it is: one of its engines runs from a record that this version cannot read, as after a
/// downgrade. Without knowing which engine that is, another would be started beside it.
fn unreadable_replica(world: &World, deployment_uid: &str) -> Option<String> {
    let object = world.undecodable.iter().find(|object| {
        object.kind == "ModelReplica" && object.owner_uids.iter().any(|uid| uid == deployment_uid)
    })?;
    Some(format!(
        "this version of sparkherd cannot read its ModelReplica {}, and changes nothing meanwhile: {}",
        object.name, object.error
    ))
}

/// The spec, checked; or the sentence that says what is wrong with it. The API server has refused most of this already;
/// `sparkherd serve` has no API server before it.
pub fn deployment_spec(object: &ModelDeployment) -> Result<DeploymentSpec, String> {
    // Destructured whole: a new field must be thought of here.
    let ModelDeploymentSpec {
        model,
        served_names,
        replicas,
        context,
        concurrency,
        kv_cache,
        weights,
        memory,
        placement,
        rollout,
        drain_seconds,
        access,
        expose,
    } = &object.spec;
    check_source(model)?;
    let kv_cache = kv_cache.clone().unwrap_or_default();
    let memory_bytes = match memory {
        None => None,
        Some(quantity) => Some(parse_quantity(&quantity.0).map_err(|error| format!("spec.memory: {error}"))?),
    };
    let served_names = if served_names.is_empty() { vec![object.name_any()] } else { served_names.clone() };
    Ok(DeploymentSpec {
        model: model.clone(),
        served_names,
        replicas: *replicas,
        context: *context,
        concurrency: *concurrency,
        kv_tokens: kv_cache.tokens,
        kv_dtype: kv_cache.dtype.map(kv_dtype),
        requantize: weights.as_ref().and_then(|weights| weights.requantize),
        memory_bytes,
        placement: placement
            .as_ref()
            .map_or_else(|| Placement { spread: true, ..Placement::default() }, placement_of),
        rollout: rollout_of(&rollout.clone().unwrap_or_default()),
        drain_seconds: *drain_seconds,
        access: access.clone().map_or_else(Access::default, |access| Access {
            anonymous: access.anonymous,
            key_hashes: access.key_hashes,
        }),
        expose: match expose.clone().unwrap_or_default().type_ {
            ExposeType::ClusterIp => Expose::ClusterIp,
            ExposeType::NodePort => Expose::NodePort,
            ExposeType::LoadBalancer => Expose::LoadBalancer,
        },
    })
}

fn check_source(source: &str) -> Result<(), String> {
    let path = source.split_once("://").map(|(scheme, rest)| (scheme, !rest.is_empty()));
    match path {
        Some(("file", true)) if source.starts_with("file:///") => Ok(()),
        Some(("hf" | "https", true)) => Ok(()),
        _ => Err(format!(
            "spec.model {source:?} must be hf://org/name[@revision], file:///path or https://host/path"
        )),
    }
}

const fn kv_dtype(dtype: KvCacheDtype) -> KvDtypeChoice {
    match dtype {
        KvCacheDtype::Auto => KvDtypeChoice::Auto,
        KvCacheDtype::Bf16 => KvDtypeChoice::Bf16,
        KvCacheDtype::Fp8 => KvDtypeChoice::Fp8,
    }
}

fn placement_of(placement: &sparkherd_crds::Placement) -> Placement {
    let sparkherd_crds::Placement { node_selector, nodes, spread } = placement;
    Placement {
        node_selector: node_selector.clone(),
        nodes: nodes.iter().map(NodeName::new).collect(),
        spread: spread.unwrap_or(true),
    }
}

fn rollout_of(rollout: &sparkherd_crds::Rollout) -> Rollout {
    let sparkherd_crds::Rollout { strategy, min_available, progress_deadline_seconds } = rollout;
    Rollout {
        strategy: match strategy {
            None | Some(RolloutStrategy::Auto) => Strategy::Auto,
            Some(RolloutStrategy::Surge) => Strategy::Surge,
            Some(RolloutStrategy::Swap) => Strategy::Swap,
        },
        min_available: *min_available,
        progress_deadline: progress_deadline_seconds
            .map(|seconds| SignedDuration::from_secs(i64::from(seconds))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kube::core::DeserializeGuard;
    use sparkherd_crds::ModelReplica;

    use super::*;
    use crate::world::split;

    fn parsed(spec: &serde_json::Value) -> Result<DeploymentSpec, String> {
        let object = serde_json::json!({
            "apiVersion": "sparkherd.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "coder"}, "spec": spec,
        });
        deployment_spec(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn one_field_is_enough() {
        let spec = parsed(&serde_json::json!({"model": "file:///models/tiny"})).unwrap();
        assert_eq!(spec.served_names, ["coder"]);
        assert_eq!((spec.replicas, spec.drain_seconds, spec.context), (1, 60, None));
        assert!(spec.placement.spread);
    }

    #[test]
    fn an_unreadable_record_keeps_its_deployment_as_it_is() {
        let object = |name: &str| {
            let mut object = ModelDeployment::new(
                name,
                serde_json::from_value(serde_json::json!({"model": "file:///models/tiny"})).unwrap(),
            );
            object.metadata.namespace = Some("lab".to_owned());
            object.metadata.uid = Some(format!("uid-of-{name}"));
            Arc::new(object)
        };
        let guard: DeserializeGuard<ModelReplica> = serde_json::from_value(serde_json::json!({
            "apiVersion": "sparkherd.dev/v1alpha1", "kind": "ModelReplica",
            "metadata": {"name": "coder-1", "namespace": "lab", "uid": "1", "ownerReferences": [{
                "apiVersion": "sparkherd.dev/v1alpha1", "kind": "ModelDeployment", "name": "coder", "uid": "uid-of-coder"}]},
            "spec": {"nodeName": 7},
        }))
        .unwrap();
        let mut world = World { deployments: vec![object("coder"), object("chat")], ..World::default() };
        assert!(split(&guard, &mut world.undecodable).is_none());
        let seen = deployments(&world, &BTreeSet::new());
        let spec_of = |name: &str| &seen[&DeploymentId::new("lab", name)].spec;
        let error = spec_of("coder").as_ref().unwrap_err();
        assert!(error.contains("ModelReplica coder-1") && error.contains("integer `7`"), "{error}");
        assert!(spec_of("chat").is_ok(), "I12");
    }

    #[test]
    fn a_source_no_agent_could_read_is_named() {
        for source in ["", "tiny", "ftp://host/x", "file://relative", "hf://"] {
            let error = parsed(&serde_json::json!({"model": source})).unwrap_err();
            assert!(error.contains("spec.model"), "{source}: {error}");
        }
    }

    #[test]
    fn a_memory_cap_is_read_as_bytes_or_refused() {
        let spec = parsed(&serde_json::json!({"model": "hf://a/b", "memory": "1.5Gi"})).unwrap();
        assert_eq!(spec.memory_bytes, Some(1_610_612_736));
        let error = parsed(&serde_json::json!({"model": "hf://a/b", "memory": "lots"})).unwrap_err();
        assert!(error.starts_with("spec.memory"), "{error}");
    }
}
