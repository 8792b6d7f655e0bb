use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sparkherd_checkpoint::{Facts, Requantize};
use sparkherd_footprint::{Footprint, Serving};

use crate::Condition;

/// What a user wants: a model that answers at an OpenAI-compatible URL and stays up.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "sparkherd.dev",
    version = "v1alpha1",
    kind = "ModelDeployment",
    namespaced,
    shortname = "smd",
    category = "sparkherd",
    status = "ModelDeploymentStatus",
    derive = "PartialEq",
    doc = "What a user wants: a model that answers at an OpenAI-compatible URL and stays up.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.model"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes"),
    printcolumn(name = "Memory", type_ = "string", json_path = ".status.resolved.memory"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.readyReplicas", priority = 1),
    printcolumn(name = "Context", type_ = "integer", json_path = ".status.resolved.serving.context", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,40}[a-z0-9])?$')").message(
        "metadata.name names a Service: at most 42 lower-case letters, digits and '-', beginning with a letter"
    )
)]
#[x_kube(
    validation = Rule::new("!has(self.rollout) || !has(self.rollout.minAvailable) || self.rollout.minAvailable <= self.replicas")
        .message("rollout.minAvailable must be at most replicas"),
    validation = Rule::new("!has(self.context) || !has(self.kvCache) || !has(self.kvCache.tokens) || self.kvCache.tokens >= self.context")
        .message("kvCache.tokens must be at least context, or no sequence could use its whole context")
)]
#[serde(rename_all = "camelCase")]
pub struct ModelDeploymentSpec {
    /// Where the weights come from: `hf://org/name[@revision]`, `file:///path` below a root the admin allowed, or
    /// `https://host/path/` or a `.gguf` file. The only required field.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^(hf://[^/@]+/[^/@]+(@[^/@]+)?|file:///.+|https://[^/]+/.+)$')")
        .message("must be hf://org/name[@revision], file:///path or https://host/path"))]
    pub model: String,
    /// Names clients may send as `model`. Default: the object's own name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 128)))]
    pub served_names: Vec<String>,
    /// Engines wanted, each on its own Spark; 0 frees the nodes and keeps the object. Default: 1.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 64))]
    pub replicas: u32,
    /// Tokens one sequence may hold, prompt and answer together. Default: the largest of 32768, 16384, 8192 and 4096 that
    /// the model and the nodes allow, decided once per revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 16_777_216))]
    pub context: Option<u32>,
    /// Sequences decoded together at most. Default: 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub concurrency: Option<u32>,
    /// The paged pool of keys and values. Default: sized from context and concurrency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_cache: Option<KvCache>,
    /// How the weights are kept in memory. Default: as the checkpoint has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
    /// Cap on the whole footprint, bytes as a quantity; the KV pool gets what weights, workspace and runtime leave of it.
    /// Default: no cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "Option<String>",
        length(max = 32),
        regex(pattern = r"^[0-9]+(\.[0-9]{1,9})?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")
    )]
    pub memory: Option<Quantity>,
    /// Which Sparks may serve it. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// How a change of the spec replaces what serves. Default: one replica at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// Seconds a stopping engine may take to finish what runs. Default: 60.
    #[serde(default = "default_drain_seconds")]
    #[schemars(range(min = 0, max = 3600))]
    pub drain_seconds: u32,
    /// Who may ask, besides the holders of the lab's key. Default: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// How the Service is reached. Default: ClusterIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expose: Option<Expose>,
}

const fn default_replicas() -> u32 {
    1
}

const fn default_drain_seconds() -> u32 {
    60
}

/// How the weights are kept in memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Weights {
    /// `int8` rounds F32, F16 and BF16 matrices to 8 bits with a scale for each 32 elements, while they are read: about half
    /// the bytes of BF16, and as much faster to decode. Default: `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requantize: Option<Requantize>,
}

/// The paged pool of keys and values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KvCache {
    /// Size of the pool, tokens. Default: `context + (concurrency − 1) × min(context, 2048)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 4_294_967_296_u64))]
    pub tokens: Option<u64>,
    /// How an element is stored. Default: `auto`, the checkpoint's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<KvCacheDtype>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KvCacheDtype {
    Auto,
    Bf16,
    Fp8,
}

/// Which Sparks may serve a deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Labels a SparkNode must carry. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16), inner(length(max = 63)))]
    pub node_selector: BTreeMap<String, String>,
    /// Names of the Sparks that may serve it. Default: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub nodes: Vec<String>,
    /// Prefer Sparks without a replica of this deployment. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<bool>,
}

/// How a change of the spec replaces what serves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// `Surge` starts the new engine before the old one stops, `Swap` after, `Auto` as there is room. Default: `Auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<RolloutStrategy>,
    /// Ready replicas never taken below this by us. Default: `replicas` for Surge, `replicas − 1` for Auto and Swap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub min_available: Option<u32>,
    /// Seconds a new engine may take from weights on the node to ready. Default: 120 + weight bytes / 200 MB/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub progress_deadline_seconds: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutStrategy {
    Auto,
    Surge,
    Swap,
}

/// Who may ask, besides the holders of the lab's key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// Lower-case hex SHA-256 of each API key that may use it (`sparkherd key` prints one). Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(regex(pattern = r"^[0-9a-f]{64}$")))]
    pub key_hashes: Vec<String>,
    /// Anybody who reaches the Service may ask. Default: false.
    #[serde(default)]
    pub anonymous: bool,
}

/// How the Service is reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Expose {
    /// Type of the Service. Default: `ClusterIP`.
    #[serde(rename = "type", default)]
    pub type_: ExposeType,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExposeType {
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    NodePort,
    LoadBalancer,
}

/// What was decided, why, and what it waits for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelDeploymentStatus {
    /// Generation of the spec this status was planned from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Placed`, `WeightsReady`, `Progressing`, `Degraded`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Replicas that run or start.
    #[serde(default)]
    pub replicas: u32,
    /// Replicas that answer.
    #[serde(default)]
    pub ready_replicas: u32,
    /// Replicas of the wanted revision.
    #[serde(default)]
    pub updated_replicas: u32,
    /// Label selector of its replicas, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub selector: Option<String>,
    /// Where to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Url>,
    /// What was decided where the spec leaves a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<DeploymentResolved>,
    /// Sparks that serve it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 253)))]
    pub nodes: Vec<String>,
}

/// Base URLs of the OpenAI-compatible API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Url {
    /// From inside the cluster.
    #[schemars(length(max = 512))]
    pub cluster: String,
    /// From outside, where `expose` gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub external: Option<String>,
}

/// What was decided where the spec leaves a choice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentResolved {
    /// Commit, ETag or digest the weights are pinned to.
    #[schemars(length(max = 128))]
    pub revision: String,
    /// Digest over the weights' file list.
    #[schemars(length(max = 128))]
    pub digest: String,
    /// What the checkpoint is.
    pub facts: Facts,
    /// Context, concurrency and KV pool.
    pub serving: Serving,
    /// Bytes one replica takes, by part.
    pub footprint: Footprint,
    /// The same in all, as a quantity rounded up.
    #[schemars(length(max = 32))]
    pub memory: String,
}
