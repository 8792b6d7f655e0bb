//! What the API asks of this node, parsed once: objects in, valid types out.

use std::fmt;

use jiff::Timestamp;
use sparkherd_crds::{ModelReplica, RunState};
use sparkherd_footprint::{Footprint, Serving};
use sparkherd_protocol::Access;

/// One `ModelReplica` object: a new object of the same name is another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaKey {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// One Model object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelKey {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl fmt::Display for ReplicaKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for ModelKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// A replica bound to this node.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub generation: Option<i64>,
    pub created_at: Option<Timestamp>,
    pub deployment: String,
    /// `run: Serve` and no deletionTimestamp.
    pub serve: bool,
    pub attempt: u32,
    pub drain_seconds: u32,
    /// Name of the Model, in the replica's own namespace (I16).
    pub model: String,
    pub digest: String,
    pub serving: Serving,
    pub footprint: Footprint,
    pub access: Access,
    pub served_names: Vec<String>,
}

impl Wanted {
    pub fn new(replica: &ModelReplica) -> Self {
        let spec = &replica.spec;
        Self {
            generation: replica.metadata.generation,
            created_at: replica.metadata.creation_timestamp.as_ref().map(|time| time.0),
            deployment: spec.deployment.clone(),
            serve: spec.run == RunState::Serve && replica.metadata.deletion_timestamp.is_none(),
            attempt: spec.attempt,
            drain_seconds: spec.drain_seconds,
            model: spec.model.name.clone(),
            digest: spec.model.digest.clone(),
            serving: spec.serving.clone(),
            footprint: spec.footprint,
            access: Access { anonymous: spec.access.anonymous, key_hashes: spec.access.key_hashes.clone() },
            served_names: spec.served_names.clone(),
        }
    }
}
