//! Writes statuses, by server-side apply, where they differ from what stands.

use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::Recorder;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use sparkherd_crds::{Condition, ModelDeployment, ModelReplica, OPERATOR_MANAGER, SparkNode};
use sparkherd_planner::{DeploymentId, NodeName, Plan};
use tracing::info;

use crate::call::{CallError, Calls};
use crate::events;
use crate::status::{deployment_status, node_reachable, replica_reachable};
use crate::world::World;

pub(crate) struct StatusWriter<'a> {
    pub(crate) client: &'a Client,
    pub(crate) calls: &'a Calls,
    pub(crate) recorder: &'a Recorder,
    pub(crate) now: Timestamp,
}

impl StatusWriter<'_> {
    /// Writes every status that changed. One that fails does not keep the others from being written.
    pub(crate) async fn write(&self, world: &World, plan: &Plan) -> Result<(), CallError> {
        let mut outcome = Ok(());
        for object in &world.deployments {
            let id = DeploymentId::new(object.namespace().unwrap_or_default(), object.name_any());
            let Some(report) = plan.report.get(&id) else { continue };
            let status = deployment_status(object, report, self.now);
            if object.status.as_ref() == Some(&status) {
                continue;
            }
            if let Some(ready) = sparkherd_crds::find_condition(&status.conditions, "Ready") {
                info!(deployment = %id, ready = ?ready.status, reason = ready.reason, message = ready.message, "status");
            }
            let written = self.apply_status(object.as_ref(), &serde_json::json!(status)).await;
            if written.is_ok() {
                events::publish(self.recorder, self.calls, object, &status.conditions).await;
            }
            outcome = outcome.and(written);
        }
        outcome.and(self.write_reachable(world, plan).await)
    }

    async fn write_reachable(&self, world: &World, plan: &Plan) -> Result<(), CallError> {
        let mut outcome = Ok(());
        let reachable = |node: &str| plan.reachable.get(&NodeName::new(node)).copied();
        for object in &world.nodes {
            let Some(up) = reachable(&object.name_any()) else { continue };
            if let Some(condition) = node_reachable(object, up, self.now) {
                outcome = outcome.and(self.apply_condition::<SparkNode>(object, condition).await);
            }
        }
        for object in &world.replicas {
            // A replica whose node has gone is on no reachable node.
            let up = reachable(&object.spec.node_name).unwrap_or(false);
            if let Some(condition) = replica_reachable(object, up, self.now) {
                outcome = outcome.and(self.apply_condition::<ModelReplica>(object, condition).await);
            }
        }
        outcome
    }

    async fn apply_condition<K: StatusOf>(&self, object: &K, condition: Condition) -> Result<(), CallError> {
        self.apply_status(object, &serde_json::json!({"conditions": [condition]})).await
    }

    async fn apply_status<K: StatusOf>(
        &self,
        object: &K,
        status: &serde_json::Value,
    ) -> Result<(), CallError> {
        let patch = serde_json::json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"uid": object.uid()},
            "status": status,
        });
        let params = PatchParams::apply(OPERATOR_MANAGER).force();
        let api = K::api(self.client.clone(), object.namespace().as_deref());
        match self
            .calls
            .call("patch_status", api.patch_status(&object.name_any(), &params, &Patch::Apply(patch)))
            .await
        {
            Ok(_) => Ok(()),
            // Gone, or another object by that name: nothing to say of it any more.
            Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A kind whose status we write, and where its objects are.
trait StatusOf: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug {
    fn api(client: Client, namespace: Option<&str>) -> Api<Self>;
}

impl StatusOf for ModelDeployment {
    fn api(client: Client, namespace: Option<&str>) -> Api<Self> {
        Api::namespaced(client, namespace.unwrap_or_default())
    }
}

impl StatusOf for ModelReplica {
    fn api(client: Client, namespace: Option<&str>) -> Api<Self> {
        Api::namespaced(client, namespace.unwrap_or_default())
    }
}

impl StatusOf for SparkNode {
    fn api(client: Client, _: Option<&str>) -> Api<Self> {
        Api::all(client)
    }
}
