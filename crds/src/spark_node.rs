use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sparkherd_footprint::Backend;

use crate::Condition;

/// One Spark: what it has, and what of that is promised.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "sparkherd.dev",
    version = "v1alpha1",
    kind = "SparkNode",
    shortname = "spark",
    category = "sparkherd",
    status = "SparkNodeStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "One Spark: what it has, and what of that is promised.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reachable",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Reachable\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Memory", type_ = "string", json_path = ".status.memory.summary"),
    printcolumn(name = "Engine", type_ = "string", json_path = ".status.engine.backend"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "GPU", type_ = "string", json_path = ".status.gpu.name", priority = 1),
    printcolumn(name = "Kernel", type_ = "string", json_path = ".status.os.kernel", priority = 1),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.agentVersion", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct SparkNodeSpec {
    /// Nothing new is placed here. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordoned: Option<bool>,
    /// Replicas here are moved elsewhere. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<bool>,
    /// Bytes kept for the host, as a quantity. Default: 10Gi on a GB10, elsewhere the larger of 1Gi and 10 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "Option<String>",
        length(max = 32),
        regex(pattern = r"^[0-9]+(\.[0-9]{1,9})?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")
    )]
    pub reserve: Option<Quantity>,
}

/// What the agent sees.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SparkNodeStatus {
    /// `Ready`, `MemoryPressure`, `MemoryStarved`, `ClockDegraded`, `DriverSupported`, `DiskPressure` by the agent; `Reachable` by the operator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Memory by pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<NodeMemory>,
    /// What engines here run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineFacts>,
    /// The largest processes that are not ours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub others: Vec<OtherProcess>,
    /// Disk of the model store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreFacts>,
    /// The GPU, as far as the driver tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuFacts>,
    /// The CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuFacts>,
    /// The operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<OsFacts>,
    /// Fast network links.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub links: Vec<LinkFacts>,
    /// Weights that lie on this Spark.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub cached: Vec<CachedModel>,
    /// Version of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub agent_version: Option<String>,
    /// This life of the agent process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub incarnation: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MemoryDomain {
    Unified,
    Device,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeMemory {
    /// `Unified`: CPU and GPU share one pool. `Device`: the GPU has its own.
    pub domain: MemoryDomain,
    /// One `Unified`, or `Device` and `Host`.
    #[schemars(length(min = 1, max = 2))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["pool".into()]))]
    pub pools: Vec<MemoryPool>,
    /// What engines may still take of the whole, as quantities, for people: `6.9Gi free of 8.0Gi`.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub summary: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum PoolKind {
    Unified,
    Device,
    Host,
}

/// One pool of memory. Rewritten when allocatable moves by more than 1 % of total; live values are metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemoryPool {
    /// Which pool.
    pub pool: PoolKind,
    /// Bytes the pool has.
    pub total_bytes: u64,
    /// Bytes all our engines together may take.
    pub allocatable_bytes: u64,
    /// Bytes promised to replicas bound here.
    pub promised_bytes: u64,
    /// Bytes our engines have touched.
    pub held_bytes: u64,
    /// Bytes of everybody else.
    pub others_bytes: u64,
    /// Bytes kept for the host.
    pub reserve_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EngineFacts {
    /// What computes.
    pub backend: Backend,
    /// `sm_121` on a GB10; the instruction set on a CPU.
    #[schemars(length(max = 63))]
    pub architecture: String,
    /// Threads an engine computes with.
    pub threads: u32,
    /// Host bytes of a running engine beside its arenas and tokenizer.
    pub runtime_host_bytes: u64,
    /// Device bytes of a running engine beside its arenas.
    pub runtime_device_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OtherProcess {
    /// Name of the program, without arguments.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Bytes it holds of the host's memory, also through the GPU's driver.
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreFacts {
    /// Bytes of the file system the store lies on.
    pub total_bytes: u64,
    /// Bytes free there.
    pub free_bytes: u64,
    /// Bytes of weights nothing uses.
    pub evictable_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuFacts {
    /// As the driver names it.
    #[schemars(length(max = 127))]
    pub name: String,
    /// For example `12.1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15))]
    pub compute_capability: Option<String>,
    /// Version of the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub driver: Option<String>,
    /// Newest CUDA the driver runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub cuda: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CpuFacts {
    /// Model as the kernel names it.
    #[schemars(length(max = 127))]
    pub model: String,
    /// Logical cores.
    pub cores: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OsFacts {
    /// Kernel release.
    #[schemars(length(max = 127))]
    pub kernel: String,
    /// Name and version of the distribution.
    #[schemars(length(max = 127))]
    pub release: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkFacts {
    /// Interface name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Megabits a second, while it is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub megabits_per_second: Option<u64>,
    /// RDMA device of the same port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub rdma_device: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CachedModel {
    /// Digest over the file list.
    #[schemars(length(max = 128))]
    pub digest: String,
    /// Bytes of all files.
    pub bytes: u64,
}
