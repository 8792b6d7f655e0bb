use std::collections::BTreeMap;

use kube::ResourceExt;
use sparkherd_crds::{CopyState as CrdCopyState, MADE_BY_OPERATOR_LABEL, Model as CrdModel, ModelNodeStatus};
use sparkherd_planner::{
    CopyState, Model, ModelCopy, ModelId, NodeName, Owner, Reason, ResolveVerdict, ResolvedModel,
};

use crate::world::World;

pub(super) fn models(world: &World) -> BTreeMap<ModelId, Model> {
    world
        .models
        .iter()
        .map(|object| {
            (ModelId::new(object.namespace().unwrap_or_default(), object.name_any()), model(object))
        })
        .collect()
}

fn model(object: &CrdModel) -> Model {
    let status = object.status.clone().unwrap_or_default();
    Model {
        uid: object.uid().unwrap_or_default(),
        resource_version: object.resource_version().unwrap_or_default(),
        source: object.spec.source.clone(),
        made_by_operator: object.labels().get(MADE_BY_OPERATOR_LABEL).is_some_and(|value| value == "true"),
        deleting: object.metadata.deletion_timestamp.is_some(),
        owners: object
            .owner_references()
            .iter()
            .filter(|owner| owner.kind == "ModelDeployment")
            .map(|owner| Owner { name: owner.name.clone(), uid: owner.uid.clone() })
            .collect(),
        pin: object.spec.pin.unwrap_or(false),
        prefetch_on: object.spec.prefetch_on.iter().map(NodeName::new).collect(),
        resolver: object.spec.resolver.as_ref().map(NodeName::new),
        cache_on: object.spec.cache_on.iter().map(NodeName::new).collect(),
        resolved: status.resolved.map(|resolved| ResolvedModel {
            revision: resolved.revision,
            digest: resolved.digest,
            bytes: resolved.bytes,
            facts: resolved.facts,
        }),
        copies: status.nodes.into_iter().map(|entry| (NodeName::new(&entry.node), copy(entry))).collect(),
    }
}

fn copy(entry: ModelNodeStatus) -> ModelCopy {
    ModelCopy {
        state: match entry.state {
            CrdCopyState::Absent => CopyState::Absent,
            CrdCopyState::Fetching => CopyState::Fetching,
            CrdCopyState::Verifying => CopyState::Verifying,
            CrdCopyState::Ready => CopyState::Ready,
            CrdCopyState::Failed => CopyState::Failed,
        },
        digest: entry.digest,
        bytes_done: entry.bytes_done,
        bytes_total: entry.bytes_total,
        message: entry.message,
        resolve: entry.resolve.map(|failure| ResolveVerdict {
            // An agent newer than this operator may know more reasons; what it could not read stays unread.
            reason: Reason::parse(&failure.reason).unwrap_or(Reason::Unresolvable),
            message: failure.message,
            at: failure.at.0,
        }),
    }
}
