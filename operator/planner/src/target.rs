use sparkherd_checkpoint::Facts;
use sparkherd_footprint::{Footprint, FootprintError, Platform, Serving, plan};

use crate::phase::has_copy;
use crate::resolve::unresolved;
use crate::revision::revision;
use crate::serving;
use crate::snapshot::{DeploymentSpec, Model, Replica, ReplicaModel, Snapshot};
use crate::{DeploymentId, ModelId, NodeName, Reason};

/// An engine to run: a revision with everything it needs to be started on some node.
#[derive(Clone, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) revision: String,
    pub(crate) model: ReplicaModel,
    pub(crate) serving: Serving,
    pub(crate) model_id: ModelId,
    /// The Model, while it still holds the weights of this digest.
    pub(crate) weights: Option<&'a Model>,
    /// What a record of the revision says, for a node whose own footprint cannot be computed.
    recorded: Option<Footprint>,
}

/// Why no engine can be described for a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blocked {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl<'a> Target<'a> {
    /// What the spec asks for, once its weights are resolved. The settings of a record of the same revision are used again.
    pub(crate) fn of_spec(
        snapshot: &'a Snapshot,
        id: &DeploymentId,
        spec: &DeploymentSpec,
        (model_id, model): (&ModelId, &'a Model),
        records: &[&Replica],
    ) -> Result<Self, Blocked> {
        let Some(resolved) = &model.resolved else {
            return Err(unresolved(model));
        };
        let revision = revision(spec, &resolved.digest);
        let record = records.iter().find(|record| record.revision == revision);
        let serving = match record {
            Some(record) => record.serving.clone(),
            None => serving::choose(snapshot, id, spec, &resolved.facts)?,
        };
        let model_of_replica = ReplicaModel {
            name: model_id.name().to_owned(),
            source: model.source.clone(),
            revision: resolved.revision.clone(),
            digest: resolved.digest.clone(),
        };
        Ok(Self {
            revision,
            model: model_of_replica,
            serving,
            model_id: model_id.clone(),
            weights: Some(model),
            recorded: record.map(|record| record.footprint),
        })
    }

    /// What a record ran, to run it again here or on another node.
    pub(crate) fn of_record(snapshot: &'a Snapshot, namespace: &str, record: &Replica) -> Self {
        let model_id = ModelId::new(namespace, &record.model.name);
        let holds_these = |model: &&Model| {
            model.resolved.as_ref().is_some_and(|resolved| resolved.digest == record.model.digest)
        };
        let weights = snapshot.models.get(&model_id).filter(holds_these);
        Self {
            revision: record.revision.clone(),
            model: record.model.clone(),
            serving: record.serving.clone(),
            model_id,
            weights,
            recorded: Some(record.footprint),
        }
    }

    pub(crate) fn facts(&self) -> Option<&'a Facts> {
        self.weights.and_then(|model| model.resolved.as_ref()).map(|resolved| &resolved.facts)
    }

    /// Bytes it takes on a node of this platform.
    pub(crate) fn footprint_on(&self, platform: &Platform) -> Result<Footprint, FootprintError> {
        match (self.facts(), self.recorded) {
            (Some(facts), _) => plan(facts, &self.serving, platform),
            (None, Some(recorded)) => Ok(recorded),
            (None, None) => Err(FootprintError::TooLarge { part: "weights" }),
        }
    }

    pub(crate) fn has_weights_on(&self, node: &NodeName) -> bool {
        self.weights.is_some_and(|model| has_copy(model, node, &self.model.digest))
    }
}
