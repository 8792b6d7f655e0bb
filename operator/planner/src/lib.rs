//! Decides, from a snapshot of the cluster, what to do next. Pure: no clock, no client, no randomness; the crate's
//! dependencies prove it.
//!
//! ```text
//! Snapshot {now, deployments, models, replicas, nodes} ──► plan ──► Plan {actions, report, recheck_at}
//!                                                                     │         └► conditions, events, metrics
//!                                                                     └► idempotent, each naming uid and version
//! ```
//!
//! All deployments are planned at once, because node memory couples them. Planning again what a plan has produced
//! changes nothing (I9); ties break by name; retries, time-outs and refusals are facts of the snapshot (I11).

mod access;
mod action;
mod cache;
mod capacity;
mod check;
mod course;
mod endpoints;
mod finding;
#[cfg(test)]
mod fixture;
mod goal;
mod heal;
mod id;
mod message;
mod pass;
mod phase;
mod placement;
mod plan;
mod reach;
mod reason;
mod report;
mod resolve;
mod revision;
mod rollout;
mod serving;
mod snapshot;
mod summary;
mod swap;
mod target;

pub use capacity::promised_bytes;
pub use check::{Violation, violations};
pub use plan::plan;
pub use revision::replica_name;

pub use action::{Action, ModelWrite, NewReplica, Plan, ReplicaWrite};
pub use id::{DeploymentId, ModelId, NodeName, ObjectKey, ReplicaId};
pub use reason::Reason;
pub use report::{Condition, ConditionStatus, ConditionType, Report, Resolved};
pub use snapshot::{
    Access, CopyState, Deployment, DeploymentSpec, Endpoint, Exit, Expose, KvDtypeChoice, Model, ModelCopy,
    Node, Owner, Placement, Policy, Pool, PoolKind, Refusal, Replica, ReplicaModel, ReplicaStatus, Reported,
    ResolveVerdict, ResolvedModel, Rollout, Run, ServiceState, Snapshot, Store, Strategy,
};
