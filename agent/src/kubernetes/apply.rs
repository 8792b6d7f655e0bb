//! One function for each object this agent writes: forced server-side apply of the whole of what it says, on `/status`, with
//! the uid, so that an object of the same name made since is never touched (I4) and a deleted one is not made again.

use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource};
use serde_json::{Value, json};
use sparkherd_crds::{Model, ModelReplica, ModelReplicaStatus, ModelStatus, SparkNode, SparkNodeStatus};

use super::{KubernetesError, limited};
use crate::metrics::Metrics;
use crate::wanted::{ModelKey, ReplicaKey};

/// Client, manager and counters of all applies.
#[derive(Clone, Copy)]
pub struct Applier<'a> {
    pub client: &'a Client,
    pub manager: &'a str,
    pub metrics: &'a Metrics,
}

impl Applier<'_> {
    pub async fn replica(
        &self,
        key: &ReplicaKey,
        status: &ModelReplicaStatus,
    ) -> Result<(), KubernetesError> {
        let api = Api::<PartialObjectMeta<ModelReplica>>::namespaced(self.client.clone(), &key.namespace);
        self.apply(api, "apply modelreplica status", &key.name, &key.uid, json!(status)).await
    }

    /// `standing`: the Model as last seen.
    ///
    /// Whoever stops sending a field under server-side apply takes it away. `resolved` is written once and must outlive both
    /// a restart of this agent and the choice of another resolver, so a manager that owns it goes on sending it as it stands.
    pub async fn model(
        &self,
        key: &ModelKey,
        standing: &Model,
        status: &ModelStatus,
    ) -> Result<(), KubernetesError> {
        let kept = standing.status.as_ref().and_then(|status| status.resolved.clone());
        let mut status = status.clone();
        if status.resolved.is_none() && owns_resolved(standing, self.manager) {
            status.resolved = kept;
        }
        let api = Api::<PartialObjectMeta<Model>>::namespaced(self.client.clone(), &key.namespace);
        self.apply(api, "apply model status", &key.name, &key.uid, json!(status)).await
    }

    pub async fn node(&self, name: &str, uid: &str, status: &SparkNodeStatus) -> Result<(), KubernetesError> {
        let api = Api::<PartialObjectMeta<SparkNode>>::all(self.client.clone());
        self.apply(api, "apply sparknode status", name, uid, json!(status)).await
    }

    async fn apply<K>(
        &self,
        api: Api<PartialObjectMeta<K>>,
        call: &'static str,
        name: &str,
        uid: &str,
        status: Value,
    ) -> Result<(), KubernetesError>
    where
        K: Resource<DynamicType = ()>,
    {
        let object = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": name, "uid": uid},
            "status": status,
        });
        let parameters = PatchParams::apply(self.manager).force();
        limited(self.metrics, call, name, api.patch_status(name, &parameters, &Patch::Apply(&object)))
            .await
            .map(|_| ())
    }
}

/// Whether the API server has `status.resolved` down as this manager's.
fn owns_resolved(model: &Model, manager: &str) -> bool {
    model.metadata.managed_fields.iter().flatten().any(|entry| {
        entry.manager.as_deref() == Some(manager)
            && entry
                .fields_v1
                .as_ref()
                .is_some_and(|fields| fields.0.pointer("/f:status/f:resolved").is_some())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sparkherd_crds::Model;

    use super::owns_resolved;

    #[test]
    fn knows_what_it_owns() {
        let model: Model = serde_json::from_value(json!({
            "apiVersion": "sparkherd.dev/v1alpha1",
            "kind": "Model",
            "metadata": {"name": "m", "managedFields": [
                {"manager": "sparkherd-agent/a", "operation": "Apply", "fieldsType": "FieldsV1",
                 "fieldsV1": {"f:status": {"f:resolved": {"f:digest": {}}, "f:nodes": {}}}},
                {"manager": "sparkherd-agent/b", "operation": "Apply", "fieldsType": "FieldsV1",
                 "fieldsV1": {"f:status": {"f:nodes": {}}}},
            ]},
            "spec": {"source": "file:///m"},
        }))
        .unwrap();
        assert!(owns_resolved(&model, "sparkherd-agent/a"));
        assert!(!owns_resolved(&model, "sparkherd-agent/b"));
        assert!(!owns_resolved(&model, "sparkherd-operator"));
    }
}
