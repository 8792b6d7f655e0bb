//! The custom resources of `sparkherd.dev/v1alpha1`. Types only: no client, no async.
//!
//! ```text
//! ModelDeployment  what the user wants            ──┐ operator
//! Model            weights, shared by deployments ◄─┤ makes and binds
//! ModelReplica     one engine on one Spark        ◄─┘        agent writes status, of its own node only
//! SparkNode        one Spark: memory, GPU, disk   ◄────────── agent
//! ```
//!
//! One kind, one file. Who writes which field is in ARCHITECTURE.md; a field appears with the feature it controls.

#![expect(clippy::struct_field_names, reason = "byte fields of the API say their unit")]
#![expect(clippy::duplicated_attributes, reason = "each printer column has a name and a type of its own")]

mod condition;
mod model;
mod model_deployment;
mod model_replica;
mod name;
mod quantity;
mod spark_node;

pub use condition::{Condition, ConditionStatus, find_condition, set_condition};
pub use model::{
    CopyState, Model, ModelFile, ModelNodeStatus, ModelResolved, ModelSpec, ModelStatus, ResolveFailure,
};
pub use model_deployment::{
    Access, DeploymentResolved, Expose, ExposeType, KvCache, KvCacheDtype, ModelDeployment,
    ModelDeploymentSpec, ModelDeploymentStatus, Placement, Rollout, RolloutStrategy, Url, Weights,
};
pub use model_replica::{
    LastExit, ModelReplica, ModelReplicaSpec, ModelReplicaStatus, Performance, Progress, Refusal,
    ReplicaAccess, ReplicaGroup, ReplicaMemory, ReplicaModel, RunState,
};
pub use name::{
    AGENT_MANAGER_PREFIX, DEPLOYMENT_LABEL, ENDPOINT_SLICE_MANAGER, FINALIZER, GROUP, MADE_BY_OPERATOR_LABEL,
    MEMORY_STARVED, OPERATOR_MANAGER, REPLICA_LABEL, VERSION, agent_manager,
};
pub use quantity::{QuantityError, parse_quantity, quantity_text};
pub use spark_node::{
    CachedModel, CpuFacts, EngineFacts, GpuFacts, LinkFacts, MemoryDomain, MemoryPool, NodeMemory, OsFacts,
    OtherProcess, PoolKind, SparkNode, SparkNodeSpec, SparkNodeStatus, StoreFacts,
};

#[cfg(test)]
mod schema_tests;
