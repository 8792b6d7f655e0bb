use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sparkherd_footprint::{Footprint, Serving};

use crate::Condition;

/// One engine on one Spark, and the record of its revision. Made and deleted by the operator only.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "sparkherd.dev",
    version = "v1alpha1",
    kind = "ModelReplica",
    namespaced,
    shortname = "smr",
    category = "sparkherd",
    status = "ModelReplicaStatus",
    derive = "PartialEq",
    selectable = ".spec.nodeName",
    selectable = ".spec.deployment",
    doc = "One engine on one Spark, and the record of its revision. Made and deleted by the operator only.",
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.model.source"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Memory", type_ = "string", json_path = ".status.memory.summary"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Run", type_ = "string", json_path = ".spec.run", priority = 1),
    printcolumn(name = "Revision", type_ = "string", json_path = ".spec.revision", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[x_kube(
    validation = Rule::new("self.nodeName == oldSelf.nodeName").message("nodeName is set once: a move is a new replica"),
    validation = Rule::new("self.deployment == oldSelf.deployment && self.revision == oldSelf.revision && self.model == oldSelf.model")
        .message("deployment, revision and model are set once"),
    validation = Rule::new("self.serving == oldSelf.serving && self.footprint == oldSelf.footprint && self.group == oldSelf.group")
        .message("serving, footprint and group are set once"),
    validation = Rule::new("self.attempt >= oldSelf.attempt").message("attempt never falls")
)]
#[serde(rename_all = "camelCase")]
pub struct ModelReplicaSpec {
    /// The Spark it runs on. Set once: a move is a new object.
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,
    /// Name of the ModelDeployment it serves. Set once.
    #[schemars(length(min = 1, max = 63))]
    pub deployment: String,
    /// Hash of the settings that need a new engine, and of the weights. Set once.
    #[schemars(length(min = 1, max = 64))]
    pub revision: String,
    /// The weights. Set once.
    pub model: ReplicaModel,
    /// Resolved settings. Set once.
    pub serving: Serving,
    /// Bytes promised to it. Set once.
    pub footprint: Footprint,
    /// Its place in a group of replicas that serve one model together. Set once.
    pub group: ReplicaGroup,
    /// Whether the engine should run.
    pub run: RunState,
    /// Raised with every change to `Serve`; status of another attempt does not count.
    #[schemars(range(min = 1))]
    pub attempt: u32,
    /// Seconds the engine may take to finish what runs when it stops.
    #[schemars(range(min = 0, max = 3600))]
    pub drain_seconds: u32,
    /// Who may ask.
    pub access: ReplicaAccess,
    /// Names clients may send as `model`.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 128)))]
    pub served_names: Vec<String>,
}

/// The weights a replica serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaModel {
    /// Name of the Model.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its source.
    #[schemars(length(min = 1, max = 512))]
    pub source: String,
    /// What the weights are pinned to.
    #[schemars(length(max = 128))]
    pub revision: String,
    /// Digest over the file list.
    #[schemars(length(max = 128))]
    pub digest: String,
}

/// A replica's place in a group. One Spark a model today: rank 0 of 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaGroup {
    /// Name of the group.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Place in the group, from 0; endpoints come from rank 0.
    #[schemars(range(max = 63))]
    pub rank: u32,
    /// Replicas in the group.
    #[schemars(range(min = 1, max = 64))]
    pub size: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunState {
    Serve,
    Stop,
}

/// Who may ask this replica: the lab's keys and the deployment's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaAccess {
    /// Anybody may ask.
    #[serde(default)]
    pub anonymous: bool,
    /// Lower-case hex SHA-256 of the keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(regex(pattern = r"^[0-9a-f]{64}$")))]
    pub key_hashes: Vec<String>,
}

/// What the agent sees of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelReplicaStatus {
    /// Generation of the spec the agent acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Attempt that the rest of this status is about.
    #[serde(default)]
    pub attempt: u32,
    /// `Admitted`, `WeightsReady`, `Loaded`, `Ready`, `Released` by the agent; `Reachable` by the operator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Port the engine listens on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_port: Option<u16>,
    /// This life of the engine process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub incarnation: Option<String>,
    /// The life of the agent that wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub agent_incarnation: Option<String>,
    /// How far loading is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Bytes promised and bytes touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ReplicaMemory>,
    /// What the check at start measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub performance: Option<Performance>,
    /// Engine processes started in this attempt after the first.
    #[serde(default)]
    pub restarts: u32,
    /// Crashes within the last 30 minutes of this attempt.
    #[serde(default)]
    pub failures: u32,
    /// Since when it has not been ready because of crashes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_since: Option<Time>,
    /// Why the agent would not start it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// How the last engine process ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<LastExit>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Bytes of weights read.
    pub bytes_done: u64,
    /// Bytes of weights in all.
    pub bytes_total: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaMemory {
    /// Bytes promised to it.
    pub footprint_bytes: u64,
    /// Bytes its arenas have touched.
    pub held_bytes: u64,
    /// Both as quantities, for people: `1.3Gi of 1.4Gi`.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub summary: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Performance {
    /// Tokens a second of the generation at start, one sequence alone.
    pub tokens_per_second: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// One sentence with numbers.
    #[schemars(length(max = 2048))]
    pub message: String,
    /// When it was refused.
    pub at: Time,
    /// Bytes the Spark could give to engines then.
    pub allocatable_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastExit {
    /// `code 3` or `signal 9`.
    #[schemars(length(max = 63))]
    pub status: String,
    /// What the engine said, or what the agent concluded.
    #[schemars(length(max = 2048))]
    pub reason: String,
    /// When it ended.
    pub at: Time,
}
