use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::ResourceExt;
use sparkherd_crds::{
    DEPLOYMENT_LABEL, FINALIZER, GROUP, ModelReplica, ModelReplicaSpec, ReplicaAccess, ReplicaGroup,
    ReplicaModel, RunState, VERSION,
};
use sparkherd_planner::{NewReplica, ReplicaId, ReplicaWrite, Run};

use super::Apply;
use crate::call::CallError;
use crate::pending::Expected;

pub(super) async fn create(context: &Apply<'_>, new: &NewReplica) -> Result<Option<Expected>, CallError> {
    context.post(&api(context, &new.id), &new_replica(new)).await
}

/// The object to create: with our finalizer from the start, or a crash here could free memory that is in use.
pub(crate) fn new_replica(new: &NewReplica) -> ModelReplica {
    // Destructured whole: a new field must be written too.
    let NewReplica { id, deployment, deployment_uid, node, revision, model, serving, footprint, write } = new;
    let mut replica = ModelReplica::new(
        id.name(),
        ModelReplicaSpec {
            node_name: node.as_str().to_owned(),
            deployment: deployment.name().to_owned(),
            revision: revision.clone(),
            model: ReplicaModel {
                name: model.name.clone(),
                source: model.source.clone(),
                revision: model.revision.clone(),
                digest: model.digest.clone(),
            },
            serving: serving.clone(),
            footprint: *footprint,
            group: ReplicaGroup { name: id.name().to_owned(), rank: 0, size: 1 },
            run: run_state(write.run),
            attempt: write.attempt,
            drain_seconds: write.drain_seconds,
            access: ReplicaAccess {
                anonymous: write.access.anonymous,
                key_hashes: write.access.key_hashes.clone(),
            },
            served_names: write.served_names.clone(),
        },
    );
    replica.metadata.namespace = Some(id.namespace().to_owned());
    replica.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    replica.metadata.labels = Some([(DEPLOYMENT_LABEL.to_owned(), deployment.name().to_owned())].into());
    replica.metadata.owner_references = Some(vec![owner(deployment.name(), deployment_uid)]);
    replica
}

/// Writes the mutable part into a spec in memory.
pub(crate) fn set_mutable(spec: &mut ModelReplicaSpec, write: &ReplicaWrite) {
    let ReplicaWrite { run, attempt, drain_seconds, access, served_names } = write;
    spec.run = run_state(*run);
    spec.attempt = *attempt;
    spec.drain_seconds = *drain_seconds;
    spec.access = ReplicaAccess { anonymous: access.anonymous, key_hashes: access.key_hashes.clone() };
    spec.served_names.clone_from(served_names);
}

/// The mutable part of the spec, every field written, so that none keeps an old value.
fn mutable_spec(write: &ReplicaWrite) -> serde_json::Value {
    let ReplicaWrite { run, attempt, drain_seconds, access, served_names } = write;
    serde_json::json!({
        "run": run_state(*run),
        "attempt": attempt,
        "drainSeconds": drain_seconds,
        "access": {"anonymous": access.anonymous, "keyHashes": access.key_hashes},
        "servedNames": served_names,
    })
}

pub(super) async fn update(
    context: &Apply<'_>,
    id: &ReplicaId,
    uid: &str,
    write: &ReplicaWrite,
) -> Result<Option<Expected>, CallError> {
    context.patch(&api(context, id), id.name(), uid, serde_json::json!({"spec": mutable_spec(write)})).await
}

pub(super) async fn delete(
    context: &Apply<'_>,
    id: &ReplicaId,
    uid: &str,
    resource_version: &str,
) -> Result<Option<Expected>, CallError> {
    context.delete(&api(context, id), id.name(), uid, resource_version).await
}

/// Takes our finalizer off. The resourceVersion makes the list written the list read.
pub(super) async fn release(
    context: &Apply<'_>,
    id: &ReplicaId,
    uid: &str,
    resource_version: &str,
) -> Result<Option<Expected>, CallError> {
    let Some(replica) = context.world.replicas.iter().find(|replica| replica.uid().as_deref() == Some(uid))
    else {
        return Ok(None);
    };
    let others: Vec<_> = replica.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).collect();
    let is_last = others.is_empty();
    let patch = serde_json::json!({"metadata": {"finalizers": others, "resourceVersion": resource_version}});
    let expected = context.patch(&api(context, id), id.name(), uid, patch).await?;
    // With the last finalizer the object goes, and no store will ever show the version of that write.
    Ok(expected.map(|version| if is_last { Expected::Gone { uid: uid.to_owned() } } else { version }))
}

/// An owner reference that does not block its owner's deletion: that would need rights on finalizers.
pub(crate) fn owner(name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: "ModelDeployment".to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: None,
        block_owner_deletion: None,
    }
}

const fn run_state(run: Run) -> RunState {
    match run {
        Run::Serve => RunState::Serve,
        Run::Stop => RunState::Stop,
    }
}

fn api(context: &Apply<'_>, id: &ReplicaId) -> Api<ModelReplica> {
    Api::namespaced(context.client.clone(), id.namespace())
}
