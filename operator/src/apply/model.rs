use kube::Api;
use sparkherd_crds::{MADE_BY_OPERATOR_LABEL, Model};
use sparkherd_planner::{ModelId, ModelWrite, NodeName};

use super::Apply;
use crate::call::CallError;
use crate::pending::Expected;

pub(super) async fn create(
    context: &Apply<'_>,
    id: &ModelId,
    source: &str,
    write: &ModelWrite,
) -> Result<Option<Expected>, CallError> {
    context.post(&api(context, id), &new_model(id, source, write)).await
}

/// The object to create.
pub(crate) fn new_model(id: &ModelId, source: &str, write: &ModelWrite) -> Model {
    let ModelWrite { owners, resolver, cache_on } = write;
    let mut model = Model::new(
        id.name(),
        sparkherd_crds::ModelSpec {
            source: source.to_owned(),
            pin: None,
            prefetch_on: Vec::new(),
            cache_on: cache_on.iter().map(|node| node.as_str().to_owned()).collect(),
            resolver: resolver.as_ref().map(|node| node.as_str().to_owned()),
        },
    );
    model.metadata.namespace = Some(id.namespace().to_owned());
    model.metadata.labels = Some([(MADE_BY_OPERATOR_LABEL.to_owned(), "true".to_owned())].into());
    model.metadata.owner_references =
        Some(owners.iter().map(|owner| super::replica::owner(&owner.name, &owner.uid)).collect());
    model
}

pub(super) async fn update(
    context: &Apply<'_>,
    id: &ModelId,
    uid: &str,
    write: &ModelWrite,
) -> Result<Option<Expected>, CallError> {
    let ModelWrite { owners, resolver, cache_on } = write;
    let made_by_operator = context.world.models.iter().any(|model| {
        let meta = &model.metadata;
        meta.uid.as_deref() == Some(uid)
            && meta
                .labels
                .iter()
                .flatten()
                .any(|(key, value)| key == MADE_BY_OPERATOR_LABEL && value == "true")
    });
    let mut patch = serde_json::json!({
        "spec": {
            "cacheOn": cache_on.iter().map(NodeName::as_str).collect::<Vec<_>>(),
            "resolver": resolver.as_ref().map(NodeName::as_str),
        },
    });
    if made_by_operator {
        let owners: Vec<_> =
            owners.iter().map(|owner| super::replica::owner(&owner.name, &owner.uid)).collect();
        patch["metadata"]["ownerReferences"] = serde_json::json!(owners);
    }
    context.patch(&api(context, id), id.name(), uid, patch).await
}

pub(super) async fn delete(
    context: &Apply<'_>,
    id: &ModelId,
    uid: &str,
    resource_version: &str,
) -> Result<Option<Expected>, CallError> {
    context.delete(&api(context, id), id.name(), uid, resource_version).await
}

fn api(context: &Apply<'_>, id: &ModelId) -> Api<Model> {
    Api::namespaced(context.client.clone(), id.namespace())
}
