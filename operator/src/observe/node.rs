use std::collections::BTreeMap;
use std::net::IpAddr;

use kube::ResourceExt;
use sparkherd_crds::{
    ConditionStatus, MEMORY_STARVED, PoolKind as CrdPoolKind, SparkNode, SparkNodeSpec, find_condition,
};
use sparkherd_footprint::Platform;
use sparkherd_planner::{Node, NodeName, Pool, PoolKind, Store};

use super::Context;
use crate::world::World;

pub(super) fn nodes(world: &World, context: &Context<'_>) -> BTreeMap<NodeName, Node> {
    let decoded = world.nodes.iter().map(|object| {
        let name = NodeName::new(object.name_any());
        let address = context.node_addresses.get(&name).copied().or_else(|| agent_address(world, &name));
        let node = node(object, &name, address, context);
        (name, node)
    });
    // One that this version cannot read is still there: what runs on it is not lost, and nothing new goes to it.
    let undecodable = world.undecodable.iter().filter(|object| object.kind == "SparkNode").map(|object| {
        let mut stand_in = SparkNode::new(&object.name, SparkNodeSpec::default());
        stand_in.metadata.uid = Some(object.uid.clone());
        let name = NodeName::new(&object.name);
        let node = node(&stand_in, &name, None, context);
        (name, node)
    });
    decoded.chain(undecodable).collect()
}

/// Address of the Pod that the agent of this node runs in.
fn agent_address(world: &World, name: &NodeName) -> Option<IpAddr> {
    world.agent_pod(name.as_str())?.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

fn node(object: &SparkNode, name: &NodeName, address: Option<IpAddr>, context: &Context<'_>) -> Node {
    let status = object.status.clone().unwrap_or_default();
    let pools = status.memory.iter().flat_map(|memory| &memory.pools).map(|pool| Pool {
        kind: match pool.pool {
            CrdPoolKind::Unified => PoolKind::Unified,
            CrdPoolKind::Device => PoolKind::Device,
            CrdPoolKind::Host => PoolKind::Host,
        },
        total_bytes: pool.total_bytes,
        allocatable_bytes: pool.allocatable_bytes,
        reserve_bytes: pool.reserve_bytes,
    });
    let is = |type_: &str| find_condition(&status.conditions, type_).map(|condition| condition.status);
    let starved = find_condition(&status.conditions, MEMORY_STARVED)
        .filter(|condition| condition.status == ConditionStatus::True);
    Node {
        uid: object.uid().unwrap_or_default(),
        labels: object.labels().clone(),
        cordoned: object.spec.cordoned.unwrap_or(false),
        drain: object.spec.drain.unwrap_or(false),
        ready: is("Ready") == Some(ConditionStatus::True),
        driver_supported: is("DriverSupported") != Some(ConditionStatus::False),
        memory_pressure: is("MemoryPressure") == Some(ConditionStatus::True),
        heartbeat_at: context.heartbeats.at(name.as_str()),
        lease_incarnation: context.heartbeats.holder(name.as_str()),
        status_incarnation: status.incarnation.clone(),
        address,
        pools: pools.collect(),
        platform: status.engine.as_ref().map(|engine| Platform {
            backend: engine.backend,
            threads: engine.threads,
            runtime_host_bytes: engine.runtime_host_bytes,
            runtime_device_bytes: engine.runtime_device_bytes,
        }),
        store: status.store.as_ref().map_or_else(Store::default, |store| Store {
            total_bytes: store.total_bytes,
            free_bytes: store.free_bytes,
            evictable_bytes: store.evictable_bytes,
        }),
        starved_since: starved.map(|condition| condition.last_transition_time.0),
    }
}
