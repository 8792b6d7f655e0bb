//! The facts a plan is made of, in the planner's own types. `operator/src/observe` and `sparkherd serve` build it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use sparkherd_checkpoint::{Facts, Requantize};
use sparkherd_footprint::{Footprint, Platform, Serving};

use crate::{DeploymentId, ModelId, NodeName, Reason, ReplicaId};

/// The cluster at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub now: Timestamp,
    pub policy: Policy,
    pub deployments: BTreeMap<DeploymentId, Deployment>,
    pub models: BTreeMap<ModelId, Model>,
    pub replicas: BTreeMap<ReplicaId, Replica>,
    pub nodes: BTreeMap<NodeName, Node>,
}

/// What the admin set for the whole lab.
#[derive(Clone, Debug)]
pub struct Policy {
    /// A heartbeat older than this makes a node unreachable.
    pub heartbeat_stale_after: SignedDuration,
    /// A node unreachable for longer than this is lost: its replicas are placed elsewhere.
    pub node_lost_after: SignedDuration,
    /// Lower-case hex SHA-256 of the lab's keys.
    pub key_hashes: Vec<String>,
    /// Nobody needs a key.
    pub allow_anonymous: bool,
}

/// A `ModelDeployment`.
#[derive(Clone, Debug)]
pub struct Deployment {
    pub uid: String,
    pub generation: i64,
    /// Has a deletionTimestamp.
    pub deleting: bool,
    /// Our own earlier writes to it are not visible yet: plan no action for it in this pass (rule 1).
    pub held_back: bool,
    /// The valid spec, or the sentence that says why it is not.
    pub spec: Result<DeploymentSpec, String>,
    pub service: ServiceState,
}

/// What stands under the Service name a deployment needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceState {
    Absent,
    /// Ours and as the spec wants it, or not.
    Ours {
        expose: Expose,
    },
    /// Somebody else's: `NameTaken`.
    Foreign,
}

/// A spec that has been checked: every later step can rely on it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentSpec {
    /// As written: `file:///…`, `hf://…`, `https://…`.
    pub model: String,
    /// Names clients may send; the object's own name when the user gave none.
    pub served_names: Vec<String>,
    pub replicas: u32,
    /// Those that need a new engine, as written; absent stays absent in the revision's hash.
    pub context: Option<u32>,
    pub concurrency: Option<u32>,
    pub kv_tokens: Option<u64>,
    pub kv_dtype: Option<KvDtypeChoice>,
    pub requantize: Option<Requantize>,
    pub memory_bytes: Option<u64>,
    pub placement: Placement,
    pub rollout: Rollout,
    pub drain_seconds: u32,
    pub access: Access,
    pub expose: Expose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvDtypeChoice {
    Auto,
    Bf16,
    Fp8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Labels a `SparkNode` must carry.
    pub node_selector: BTreeMap<String, String>,
    /// Only these nodes; empty means any.
    pub nodes: BTreeSet<NodeName>,
    /// Prefer nodes without a replica of the same deployment.
    pub spread: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    Auto,
    Surge,
    Swap,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    pub strategy: Strategy,
    pub min_available: Option<u32>,
    pub progress_deadline: Option<SignedDuration>,
}

/// Who may ask, as a deployment adds to the lab's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    pub anonymous: bool,
    pub key_hashes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expose {
    ClusterIp,
    NodePort,
    LoadBalancer,
}

/// A `Model`.
#[derive(Clone, Debug)]
pub struct Model {
    pub uid: String,
    pub resource_version: String,
    pub source: String,
    /// Made by the operator (carries our label), so ours to own and delete; a user's Model is neither.
    pub made_by_operator: bool,
    pub deleting: bool,
    /// Deployments in `ownerReferences`.
    pub owners: BTreeSet<Owner>,
    pub pin: bool,
    pub prefetch_on: BTreeSet<NodeName>,
    /// Operator's fields, as they stand.
    pub resolver: Option<NodeName>,
    pub cache_on: BTreeSet<NodeName>,
    pub resolved: Option<ResolvedModel>,
    pub copies: BTreeMap<NodeName, ModelCopy>,
}

/// One entry of a Model's `ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    pub name: String,
    pub uid: String,
}

/// What the resolver's agent found, once.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedModel {
    /// Commit, `ETag`, or for `file://` the digest itself.
    pub revision: String,
    /// Digest over the file list.
    pub digest: String,
    pub bytes: u64,
    pub facts: Facts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    Absent,
    Fetching,
    Verifying,
    Ready,
    Failed,
}

/// A Model on one node, as that node's agent reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelCopy {
    pub state: CopyState,
    pub digest: Option<String>,
    pub bytes_done: u64,
    pub bytes_total: u64,
    pub message: String,
    /// Why this node could not resolve the source.
    pub resolve: Option<ResolveVerdict>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ResolveVerdict {
    /// `Unresolvable` rotates the resolver, `UnsupportedModel` does not.
    pub reason: Reason,
    pub message: String,
    pub at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    Serve,
    Stop,
}

/// A `ModelReplica`: an engine wanted on a node, and the record of its revision.
#[derive(Clone, Debug)]
pub struct Replica {
    pub uid: String,
    pub resource_version: String,
    pub created_at: Timestamp,
    pub deleting: bool,
    /// Carries `sparkherd.dev/release`.
    pub has_finalizer: bool,
    /// uid in the owner reference to a `ModelDeployment`, if there is one.
    pub owner_uid: Option<String>,
    pub node: NodeName,
    /// Name of the deployment in the same namespace.
    pub deployment: String,
    pub revision: String,
    pub model: ReplicaModel,
    pub serving: Serving,
    pub footprint: Footprint,
    /// Mutable part of the spec.
    pub run: Run,
    pub attempt: u32,
    pub drain_seconds: u32,
    pub access: Access,
    pub served_names: Vec<String>,
    pub status: ReplicaStatus,
    /// Its `EndpointSlice`, if there is one.
    pub endpoint: Option<Endpoint>,
}

/// The weights a replica serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaModel {
    pub name: String,
    pub source: String,
    pub revision: String,
    pub digest: String,
}

/// One condition as an agent reported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    pub value: bool,
    pub reason: String,
    pub message: String,
    pub since: Timestamp,
}

/// What an agent says of a replica. The planner ignores all but `released` of another attempt than the spec's.
#[derive(Clone, Debug, Default)]
pub struct ReplicaStatus {
    pub attempt: u32,
    pub admitted: Option<Reported>,
    pub weights_ready: Option<Reported>,
    pub loaded: Option<Reported>,
    pub ready: Option<Reported>,
    pub released: Option<Reported>,
    /// Life of the agent that wrote this; endpoints of an earlier one are unpublished (I6).
    pub agent_incarnation: Option<String>,
    pub endpoint_port: Option<u16>,
    /// Crashes within the last 30 minutes.
    pub failures: u32,
    pub failed_since: Option<Timestamp>,
    pub refusal: Option<Refusal>,
    pub last_exit: Option<Exit>,
    pub held_bytes: u64,
    pub restarts: u32,
}

/// The agent would not start it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub message: String,
    pub at: Timestamp,
    /// What the node could take when it refused.
    pub allocatable_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code or signal, as text: `code 3`, `signal 9`.
    pub status: String,
    pub reason: String,
    pub at: Timestamp,
}

/// An `EndpointSlice` of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Option<IpAddr>,
    pub port: u16,
    pub ready: bool,
}

/// A `SparkNode`.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one condition or switch of the object, read by name"
)]
#[derive(Clone, Debug)]
pub struct Node {
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    pub cordoned: bool,
    pub drain: bool,
    /// The agent's own word.
    pub ready: bool,
    pub driver_supported: bool,
    pub memory_pressure: bool,
    /// When its Lease was last seen to change, by the operator's clock.
    pub heartbeat_at: Option<Timestamp>,
    /// The Lease's holder: the agent's current life.
    pub lease_incarnation: Option<String>,
    /// The life that wrote the status.
    pub status_incarnation: Option<String>,
    /// Where its engines answer: the agent's Pod, or `--node-address`.
    pub address: Option<IpAddr>,
    /// One `Unified`, or `Device` and `Host`.
    pub pools: Vec<Pool>,
    pub platform: Option<Platform>,
    pub store: Store,
    /// Since when available memory has been below half the reserve; rule 4.
    pub starved_since: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    Unified,
    Device,
    Host,
}

/// One pool of memory of a node, bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    pub kind: PoolKind,
    pub total_bytes: u64,
    /// What all our engines together may take.
    pub allocatable_bytes: u64,
    pub reserve_bytes: u64,
}

/// Disk of a node's model store, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Store {
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub evictable_bytes: u64,
}
