use sparkherd_crds::{
    CachedModel, Condition, ConditionStatus, CpuFacts, EngineFacts, GpuFacts, MEMORY_STARVED, MemoryDomain,
    MemoryPool, NodeMemory, OsFacts, OtherProcess, PoolKind, SparkNodeStatus, StoreFacts, find_condition,
    set_condition,
};
use sparkherd_planner::Reason;

use super::condition::Verdict;
use crate::bytes::{quantity, readable};
use crate::clock::Moment;
use crate::memory::{Pool, ProcessMemory};

/// Below this share of the store's file system writing weights is a risk.
const DISK_FREE_PERCENT_MIN: u64 = 5;

/// All that a `SparkNode`'s status is made of.
#[derive(Debug)]
pub struct NodeView<'a> {
    pub now: Moment,
    pub generation: Option<i64>,
    pub pool: Pool,
    /// Bytes promised to replicas bound here and not released.
    pub promised_bytes: u64,
    pub others: &'a [ProcessMemory],
    pub engine: &'a EngineFacts,
    pub store: Option<&'a StoreFacts>,
    pub gpu: Option<&'a GpuFacts>,
    pub cpu: &'a CpuFacts,
    pub os: &'a OsFacts,
    pub cached: Vec<CachedModel>,
    pub incarnation: &'a str,
    pub ending: bool,
}

/// The whole status this agent applies. `standing`: conditions as the object has them, for their transition times;
/// `previous`: what this life of the agent said last.
pub fn node_status(
    view: &NodeView<'_>,
    standing: &[Condition],
    previous: Option<&SparkNodeStatus>,
) -> SparkNodeStatus {
    let conditions = conditions(view, previous.map_or(standing, |status| &status.conditions));
    let memory = memory(view);
    let kept = previous.filter(|previous| !is_news(view.pool, &memory, &conditions, previous));
    SparkNodeStatus {
        memory: Some(kept.and_then(|previous| previous.memory.clone()).unwrap_or(memory)),
        others: kept.map_or_else(|| others(view.others), |previous| previous.others.clone()),
        store: kept.map_or_else(|| view.store.cloned(), |previous| previous.store.clone()),
        conditions,
        engine: Some(view.engine.clone()),
        gpu: view.gpu.cloned(),
        cpu: Some(view.cpu.clone()),
        os: Some(view.os.clone()),
        links: Vec::new(),
        cached: view.cached.clone(),
        agent_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        incarnation: Some(view.incarnation.to_owned()),
    }
}

/// Live values are metrics: the status is written when allocatable has moved by more than 1 % of the pool, when what was
/// decided changed (total, reserve, promises), or when a condition did.
fn is_news(pool: Pool, memory: &NodeMemory, conditions: &[Condition], previous: &SparkNodeStatus) -> bool {
    let Some(old) = previous.memory.as_ref().and_then(|memory| memory.pools.first()) else { return true };
    let Some(new) = memory.pools.first() else { return true };
    let statuses = |conditions: &[Condition]| -> Vec<(String, ConditionStatus)> {
        conditions.iter().map(|condition| (condition.type_.clone(), condition.status)).collect()
    };
    new.allocatable_bytes.abs_diff(old.allocatable_bytes) > pool.grain_bytes()
        || (new.total_bytes, new.reserve_bytes, new.promised_bytes)
            != (old.total_bytes, old.reserve_bytes, old.promised_bytes)
        || statuses(conditions) != statuses(&previous.conditions)
}

fn memory(view: &NodeView<'_>) -> NodeMemory {
    let pool = view.pool;
    NodeMemory {
        domain: MemoryDomain::Unified,
        pools: vec![MemoryPool {
            pool: PoolKind::Unified,
            total_bytes: pool.total_bytes,
            allocatable_bytes: pool.allocatable_bytes(),
            promised_bytes: view.promised_bytes,
            held_bytes: pool.held_bytes,
            others_bytes: pool.others_bytes(),
            reserve_bytes: pool.reserve_bytes,
        }],
        summary: format!(
            "{} free of {}",
            quantity(pool.allocatable_bytes().saturating_sub(view.promised_bytes)),
            quantity(pool.total_bytes)
        ),
    }
}

fn others(processes: &[ProcessMemory]) -> Vec<OtherProcess> {
    processes
        .iter()
        .map(|process| OtherProcess { name: process.name.clone(), bytes: process.resident_bytes })
        .collect()
}

fn conditions(view: &NodeView<'_>, before: &[Condition]) -> Vec<Condition> {
    let verdicts = [
        ("Ready", ready(view)),
        ("MemoryPressure", memory_pressure(view, before)),
        (MEMORY_STARVED, memory_starved(view)),
        ("DriverSupported", Verdict::yes(Reason::Serving, "engines run on the CPU, no driver is used")),
        ("DiskPressure", disk_pressure(view.store)),
    ];
    let mut conditions = Vec::new();
    for (type_, verdict) in verdicts {
        let old = find_condition(before, type_);
        conditions.extend(old.cloned());
        let mut new = verdict.condition(type_, view.generation, view.now.wall);
        // Numbers of other people's processes move all the time: those of the moment it began are told.
        if let Some(old) = old.filter(|old| (old.status, &old.reason) == (new.status, &new.reason)) {
            new.message.clone_from(&old.message);
        }
        set_condition(&mut conditions, new);
    }
    conditions
}

fn ready(view: &NodeView<'_>) -> Verdict {
    if view.ending {
        return Verdict::no(Reason::Draining, "the agent is ending");
    }
    Verdict::yes(Reason::Serving, "the agent measures and starts engines")
}

/// Begins below the reserve, ends one grain above it, so that noise does not make it flap.
fn memory_pressure(view: &NodeView<'_>, before: &[Condition]) -> Verdict {
    let Pool { available_bytes, reserve_bytes, .. } = view.pool;
    let was = find_condition(before, "MemoryPressure").is_some_and(|old| old.status == ConditionStatus::True);
    let bar = reserve_bytes + if was { view.pool.grain_bytes() } else { 0 };
    if available_bytes >= bar {
        return Verdict::no(Reason::Serving, "the reserve is free");
    }
    let largest: Vec<String> = view
        .others
        .iter()
        .take(3)
        .map(|other| format!("{} {}", other.name, readable(other.resident_bytes)))
        .collect();
    let blame =
        if largest.is_empty() { String::new() } else { format!("; largest others: {}", largest.join(", ")) };
    let message =
        format!("less than the reserve of {} is available: nothing starts{blame}", readable(reserve_bytes));
    Verdict::yes(Reason::InsufficientMemory, message)
}

/// Its own condition, so that its transition time says since when.
fn memory_starved(view: &NodeView<'_>) -> Verdict {
    let Pool { available_bytes, reserve_bytes, .. } = view.pool;
    if available_bytes >= reserve_bytes / 2 {
        return Verdict::no(Reason::Serving, "half the reserve is free");
    }
    let message = format!("less than half the reserve of {} is available", readable(reserve_bytes));
    Verdict::yes(Reason::InsufficientMemory, message)
}

fn disk_pressure(store: Option<&StoreFacts>) -> Verdict {
    match store {
        Some(store) if store.free_bytes < store.total_bytes / 100 * DISK_FREE_PERCENT_MIN => {
            let message =
                format!("less than {DISK_FREE_PERCENT_MIN} % of {} is free", readable(store.total_bytes));
            Verdict::yes(Reason::InsufficientDisk, message)
        }
        _ => Verdict::no(Reason::Serving, "the store has room"),
    }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
