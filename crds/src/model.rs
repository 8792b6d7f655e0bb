use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sparkherd_checkpoint::Facts;

/// Weights, shared by all deployments of a namespace that name the same source.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "sparkherd.dev",
    version = "v1alpha1",
    kind = "Model",
    plural = "models",
    namespaced,
    shortname = "smodel",
    category = "sparkherd",
    status = "ModelStatus",
    derive = "PartialEq",
    doc = "Weights, shared by all deployments of a namespace that name the same source.",
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.source"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.nodes[*].state"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.nodes[*].resolve.reason"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes[*].node"),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.resolved.bytes"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.resolved.digest", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct ModelSpec {
    /// Where the weights come from, as in `ModelDeployment.spec.model`. Set once.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("source is set once: other weights are another Model"))]
    pub source: String,
    /// Keep the weights on the nodes that have them though nothing uses them. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<bool>,
    /// Sparks that fetch the weights before anything asks for them. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub prefetch_on: Vec<String>,
    /// Sparks that hold or fetch a copy. Written by the operator. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub cache_on: Vec<String>,
    /// The Spark that resolves the source. Written by the operator. Default: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub resolver: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelStatus {
    /// What the source is, found once by the resolver's agent. To move to new weights change the deployment's `model` or
    /// delete the Model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<ModelResolved>,
    /// The copy on each Spark; each entry is written by that Spark's agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["node".into()]))]
    pub nodes: Vec<ModelNodeStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelResolved {
    /// Commit, ETag, or for `file://` the digest.
    #[schemars(length(max = 128))]
    pub revision: String,
    /// Digest over the file list.
    #[schemars(length(max = 128))]
    pub digest: String,
    /// Bytes of all files.
    pub bytes: u64,
    /// Files by name, with their bytes.
    #[schemars(length(max = 512))]
    pub files: Vec<ModelFile>,
    /// All that the footprint needs.
    pub facts: Facts,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelFile {
    /// Path below the model's directory.
    #[schemars(length(max = 255))]
    pub name: String,
    /// Bytes of the file.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CopyState {
    Absent,
    Fetching,
    Verifying,
    Ready,
    Failed,
}

/// The weights on one Spark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelNodeStatus {
    /// Name of the Spark.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// How far the copy is.
    pub state: CopyState,
    /// Digest of what lies there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub digest: Option<String>,
    /// Bytes fetched or verified.
    #[serde(default)]
    pub bytes_done: u64,
    /// Bytes in all.
    #[serde(default)]
    pub bytes_total: u64,
    /// Bytes a second, lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Seconds left at that rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
    /// One sentence with numbers.
    #[serde(default)]
    #[schemars(length(max = 2048))]
    pub message: String,
    /// Why this Spark could not resolve the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve: Option<ResolveFailure>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolveFailure {
    /// `Unresolvable`: another Spark may try; `UnsupportedModel`: none can.
    #[schemars(length(max = 63))]
    pub reason: String,
    /// One sentence that names the file or key.
    #[schemars(length(max = 2048))]
    pub message: String,
    /// When it was last tried.
    pub at: Time,
}
