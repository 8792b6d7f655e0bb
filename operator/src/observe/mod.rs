//! World in, Snapshot out: Kubernetes' objects become the planner's facts, each checked once. Pure.

mod deployment;
mod model;
mod node;
mod replica;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use sparkherd_planner::{DeploymentId, NodeName, Policy, Snapshot};

pub use deployment::deployment_spec;

use crate::heartbeat::Heartbeats;
use crate::world::World;

/// What an observation needs beside the world.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    pub now: Timestamp,
    pub policy: &'a Policy,
    pub heartbeats: &'a Heartbeats,
    /// `--node-address`: where a node's engines answer, in place of its agent's Pod.
    pub node_addresses: &'a BTreeMap<NodeName, IpAddr>,
    /// Deployments whose latest writes of ours are not visible yet.
    pub held_back: &'a BTreeSet<DeploymentId>,
}

/// The planner's view of the world.
pub fn observe(world: &World, context: &Context<'_>) -> Snapshot {
    Snapshot {
        now: context.now,
        policy: context.policy.clone(),
        deployments: deployment::deployments(world, context.held_back),
        models: model::models(world),
        replicas: replica::replicas(world),
        nodes: node::nodes(world, context),
    }
}

/// Widest port range, addresses and the like never come from here: a count that does not fit is cut, not wrapped.
fn saturating_u32(value: i64) -> u32 {
    u32::try_from(value.max(0)).unwrap_or(u32::MAX)
}

/// The time of a Kubernetes object, or the epoch where a hand-made object has none.
fn timestamp(time: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>) -> Timestamp {
    time.map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}
