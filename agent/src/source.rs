//! Where replicas and models come from and statuses go: two level-triggered channels.
//!
//! ```text
//! Kubernetes, or `sparkherd serve` ──Desired──► agent's loop
//!                                  ◄──Observed──
//! ```
//!
//! Each side always sees the newest whole value and may miss those between: nothing can pile up, and whoever connects
//! late is not behind. Both ends of [`link`] are all that `sparkherd serve` needs; `kubernetes::run` is the other user.

use std::collections::BTreeMap;
use std::sync::Arc;

use sparkherd_crds::{Model, ModelReplica, ModelReplicaStatus, ModelStatus, SparkNode, SparkNodeStatus};
use tokio::sync::watch;

use crate::wanted::{ModelKey, ReplicaKey};

/// What the API says, of this node.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// Everything has been listed once. Until then nothing is known, so nothing is done.
    pub synced: bool,
    /// The API answers; while it does not, nothing new starts.
    pub connected: bool,
    /// Bound to this node.
    pub replicas: BTreeMap<ReplicaKey, Arc<ModelReplica>>,
    /// All of them: the agent picks those that name this node.
    pub models: BTreeMap<ModelKey, Arc<Model>>,
    pub node: Option<Arc<SparkNode>>,
}

/// What the agent says. A key that is missing has no status to write.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    pub replicas: BTreeMap<ReplicaKey, ModelReplicaStatus>,
    /// `resolved` if this node is the resolver, and this node's own entry of `nodes`.
    pub models: BTreeMap<ModelKey, ModelStatus>,
    pub node: Option<SparkNodeStatus>,
}

/// The agent's end.
#[derive(Debug)]
pub struct AgentLink {
    pub desired: watch::Receiver<Arc<Desired>>,
    pub observed: watch::Sender<Arc<Observed>>,
}

/// The end of whoever has the objects.
#[derive(Debug)]
pub struct SourceLink {
    pub desired: watch::Sender<Arc<Desired>>,
    pub observed: watch::Receiver<Arc<Observed>>,
}

/// Both ends. The source begins unsynced and unconnected.
pub fn link() -> (AgentLink, SourceLink) {
    let (desired_sender, desired) = watch::channel(Arc::new(Desired::default()));
    let (observed, observed_receiver) = watch::channel(Arc::new(Observed::default()));
    (AgentLink { desired, observed }, SourceLink { desired: desired_sender, observed: observed_receiver })
}
