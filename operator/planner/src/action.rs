use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use sparkherd_footprint::{Footprint, Serving};

use crate::snapshot::{Access, Expose, Owner, ReplicaModel, Run};
use crate::{DeploymentId, ModelId, NodeName, Reason, ReplicaId, Report};

/// What to do next, what is to be said of each deployment, and when to look again though nothing happens.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "an unread plan changes nothing"]
pub struct Plan {
    /// In the order in which they are to be done; a failed one ends its deployment's turn.
    pub actions: Vec<Action>,
    pub report: BTreeMap<DeploymentId, Report>,
    /// Nodes, and with them the replicas bound there, that answer (`Reachable`).
    pub reachable: BTreeMap<NodeName, bool>,
    pub recheck_at: Option<Timestamp>,
}

/// One write. Each is idempotent and names what it was decided on (I4).
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    CreateModel {
        id: ModelId,
        source: String,
        write: ModelWrite,
    },
    UpdateModel {
        id: ModelId,
        uid: String,
        write: ModelWrite,
    },
    DeleteModel {
        id: ModelId,
        uid: String,
        resource_version: String,
    },
    CreateReplica(Box<NewReplica>),
    UpdateReplica {
        id: ReplicaId,
        uid: String,
        deployment: DeploymentId,
        write: ReplicaWrite,
    },
    DeleteReplica {
        id: ReplicaId,
        uid: String,
        resource_version: String,
        deployment: DeploymentId,
        reason: Reason,
    },
    /// Takes our finalizer off a deleted replica whose memory is back or whose node is lost (I13).
    ReleaseReplica {
        id: ReplicaId,
        uid: String,
        resource_version: String,
    },
    EnsureService {
        deployment: DeploymentId,
        uid: String,
        expose: Expose,
    },
    /// Writes the replica's `EndpointSlice`; `ready: false` also means not serving.
    SetEndpoint {
        replica: ReplicaId,
        uid: String,
        deployment: DeploymentId,
        node: NodeName,
        address: IpAddr,
        port: u16,
        ready: bool,
    },
}

/// The operator's whole part of a Model; what is left out of an apply is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelWrite {
    pub owners: BTreeSet<Owner>,
    pub resolver: Option<NodeName>,
    pub cache_on: BTreeSet<NodeName>,
}

/// A replica to create: everything that is set once, and the mutable part's first value.
#[derive(Clone, Debug, PartialEq)]
pub struct NewReplica {
    pub id: ReplicaId,
    pub deployment: DeploymentId,
    pub deployment_uid: String,
    pub node: NodeName,
    pub revision: String,
    pub model: ReplicaModel,
    pub serving: Serving,
    pub footprint: Footprint,
    pub write: ReplicaWrite,
}

/// The mutable part of a replica's spec, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaWrite {
    pub run: Run,
    pub attempt: u32,
    pub drain_seconds: u32,
    /// With the lab's keys merged in.
    pub access: Access,
    pub served_names: Vec<String>,
}

impl Action {
    /// Whether it takes serving capacity or an object away, so that it is decided again on a fresh list (rule 2).
    pub fn is_destructive(&self) -> bool {
        match self {
            Self::DeleteModel { .. } | Self::DeleteReplica { .. } | Self::ReleaseReplica { .. } => true,
            Self::UpdateReplica { write, .. } => write.run == Run::Stop,
            Self::SetEndpoint { ready, .. } => !ready,
            Self::CreateModel { .. }
            | Self::UpdateModel { .. }
            | Self::CreateReplica(_)
            | Self::EnsureService { .. } => false,
        }
    }

    /// The kind as a metric label.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::CreateModel { .. } => "create_model",
            Self::UpdateModel { .. } => "update_model",
            Self::DeleteModel { .. } => "delete_model",
            Self::CreateReplica(_) => "create_replica",
            Self::UpdateReplica { .. } => "update_replica",
            Self::DeleteReplica { .. } => "delete_replica",
            Self::ReleaseReplica { .. } => "release_replica",
            Self::EnsureService { .. } => "ensure_service",
            Self::SetEndpoint { .. } => "set_endpoint",
        }
    }
}
