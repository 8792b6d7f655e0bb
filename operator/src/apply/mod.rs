//! Actions become calls. The only writer of Models' and Replicas' specs, Services and EndpointSlices.
//!
//! First creation is a POST under a deterministic name; every later write is a merge patch that carries the uid it was
//! decided on, so that it can neither bring back a deleted object nor touch its successor (I4; docs/decisions/0002 says
//! why not server-side apply here). Deletions carry uid and resourceVersion.

pub(crate) mod model;
pub(crate) mod replica;
pub(crate) mod service;

use std::collections::BTreeSet;

use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sparkherd_crds::OPERATOR_MANAGER;
use sparkherd_planner::{Action, DeploymentId};

use crate::call::{CallError, Calls};
use crate::pending::Expected;
use crate::world::World;

/// What carrying out actions needs.
pub(crate) struct Apply<'a> {
    pub(crate) client: &'a Client,
    pub(crate) calls: &'a Calls,
    pub(crate) world: &'a World,
}

/// A write that took effect: for whom, and what the stores must show before it counts as seen.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) deployments: BTreeSet<DeploymentId>,
    pub(crate) expected: Expected,
}

/// Carries out one action. `None`: nothing had to change, or somebody else was faster and the next pass will see it.
pub(crate) async fn apply(context: &Apply<'_>, action: &Action) -> Result<Option<Written>, CallError> {
    let expected = match action {
        Action::CreateModel { id, source, write } => model::create(context, id, source, write).await?,
        Action::UpdateModel { id, uid, write } => model::update(context, id, uid, write).await?,
        Action::DeleteModel { id, uid, resource_version } => {
            model::delete(context, id, uid, resource_version).await?
        }
        Action::CreateReplica(new) => replica::create(context, new).await?,
        Action::UpdateReplica { id, uid, deployment: _, write } => {
            replica::update(context, id, uid, write).await?
        }
        Action::DeleteReplica { id, uid, resource_version, deployment: _, reason: _ } => {
            replica::delete(context, id, uid, resource_version).await?
        }
        Action::ReleaseReplica { id, uid, resource_version } => {
            replica::release(context, id, uid, resource_version).await?
        }
        Action::EnsureService { deployment, uid, expose } => {
            service::ensure(context, deployment, uid, *expose).await?
        }
        Action::SetEndpoint { replica, uid, deployment: _, node, address, port, ready } => {
            let wanted = service::WantedEndpoint { node, address: *address, port: *port, ready: *ready };
            service::set_endpoint(context, replica, uid, &wanted).await?
        }
    };
    Ok(expected.map(|expected| Written { deployments: deployments_of(action, context.world), expected }))
}

/// The deployments whose next plan must not be made before this write is visible.
pub(crate) fn deployments_of(action: &Action, world: &World) -> BTreeSet<DeploymentId> {
    match action {
        Action::CreateModel { id, write, .. } | Action::UpdateModel { id, write, .. } => {
            write.owners.iter().map(|owner| DeploymentId::new(id.namespace(), &owner.name)).collect()
        }
        Action::DeleteModel { .. } => BTreeSet::new(),
        Action::CreateReplica(new) => [new.deployment.clone()].into(),
        Action::UpdateReplica { deployment, .. }
        | Action::DeleteReplica { deployment, .. }
        | Action::EnsureService { deployment, .. }
        | Action::SetEndpoint { deployment, .. } => [deployment.clone()].into(),
        Action::ReleaseReplica { id, uid, .. } => world
            .replicas
            .iter()
            .filter(|replica| replica.uid().as_deref() == Some(uid))
            .map(|replica| DeploymentId::new(id.namespace(), &replica.spec.deployment))
            .collect(),
    }
}

impl Apply<'_> {
    /// POST. An object of that name that exists already is somebody's: the next pass sees whose.
    async fn post<K>(&self, api: &Api<K>, object: &K) -> Result<Option<Expected>, CallError>
    where
        K: Resource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
    {
        let params = PostParams { dry_run: false, field_manager: Some(OPERATOR_MANAGER.to_owned()) };
        match self.calls.call("create", api.create(&params, object)).await {
            Ok(created) => Ok(seen_as(&created)),
            Err(error) if error.code() == Some(409) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A merge patch of the object with this uid. Gone or replaced meanwhile: nothing to do.
    async fn patch<K>(
        &self,
        api: &Api<K>,
        name: &str,
        uid: &str,
        mut patch: serde_json::Value,
    ) -> Result<Option<Expected>, CallError>
    where
        K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
    {
        patch["metadata"]["uid"] = uid.into();
        let params =
            PatchParams { field_manager: Some(OPERATOR_MANAGER.to_owned()), ..PatchParams::default() };
        match self.calls.call("patch", api.patch(name, &params, &Patch::Merge(patch))).await {
            Ok(patched) => Ok(seen_as(&patched)),
            Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn delete<K>(
        &self,
        api: &Api<K>,
        name: &str,
        uid: &str,
        resource_version: &str,
    ) -> Result<Option<Expected>, CallError>
    where
        K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let preconditions =
            Preconditions { uid: Some(uid.to_owned()), resource_version: Some(resource_version.to_owned()) };
        let params = DeleteParams::background().preconditions(preconditions);
        match self.calls.call("delete", api.delete(name, &params)).await {
            // Still there behind a finalizer: seen once its deletionTimestamp is. Otherwise once it is gone.
            Ok(outcome) => Ok(outcome
                .left()
                .map_or_else(|| Some(Expected::Gone { uid: uid.to_owned() }), |object| seen_as(&object))),
            Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn seen_as<K: Resource>(object: &K) -> Option<Expected> {
    Some(Expected::Version { uid: object.uid()?, resource_version: object.resource_version()? })
}
