use sparkherd_crds::{
    CachedModel, Condition, ConditionStatus, CpuFacts, EngineFacts, GpuFacts, MEMORY_STARVED, MemoryDomain,
    MemoryPool, NodeMemory, OsFacts, OtherProcess, PoolKind, SparkNodeStatus, StoreFacts, find_condition,
    set_condition,
};
use sparkherd_footprint::Backend;
use sparkherd_gpu::{Fault, SLOW_CLOCK_MHZ};
use sparkherd_planner::Reason;

use super::condition::Verdict;
use crate::bytes::{quantity, readable};
use crate::clock::Moment;
use crate::gpu_watch::GpuSeen;
use crate::memory::{Pool, PoolBytes, Pools, ProcessMemory};

/// Below this share of the store's file system writing weights is a risk.
const DISK_FREE_PERCENT_MIN: u64 = 5;

/// All that a `SparkNode`'s status is made of.
#[derive(Debug)]
pub struct NodeView<'a> {
    pub now: Moment,
    pub generation: Option<i64>,
    pub pools: Pools,
    /// Promised to replicas bound here and not released.
    pub promised: PoolBytes,
    pub others: &'a [ProcessMemory],
    pub engine: &'a EngineFacts,
    pub store: Option<&'a StoreFacts>,
    pub gpu: Option<&'a GpuFacts>,
    /// The GPU as it was last seen.
    pub gpu_seen: Option<&'a GpuSeen>,
    /// What is known to be broken below the engines.
    pub faults: &'a [Fault],
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
    let kept = previous.filter(|previous| !is_news(&memory, &conditions, previous));
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

/// Live values are metrics: the status is written when allocatable has moved by more than 1 % of a pool, when what was
/// decided changed (total, reserve, promises), or when a condition did.
fn is_news(memory: &NodeMemory, conditions: &[Condition], previous: &SparkNodeStatus) -> bool {
    let Some(old) = previous.memory.as_ref().map(|memory| &memory.pools) else { return true };
    let has_moved = |(new, old): (&MemoryPool, &MemoryPool)| {
        new.allocatable_bytes.abs_diff(old.allocatable_bytes) > new.total_bytes / 100
            || (new.pool, new.total_bytes, new.reserve_bytes, new.promised_bytes)
                != (old.pool, old.total_bytes, old.reserve_bytes, old.promised_bytes)
    };
    let statuses = |conditions: &[Condition]| -> Vec<(String, ConditionStatus)> {
        conditions.iter().map(|condition| (condition.type_.clone(), condition.status)).collect()
    };
    memory.pools.len() != old.len()
        || memory.pools.iter().zip(old).any(has_moved)
        || statuses(conditions) != statuses(&previous.conditions)
}

/// One pool, or the GPU's and the host's; the first is the one that people ask about.
fn memory(view: &NodeView<'_>) -> NodeMemory {
    let Pools { host, device } = view.pools;
    let (domain, pools) = match device {
        None => (MemoryDomain::Unified, vec![pool(PoolKind::Unified, host, view.promised.host)]),
        Some(device) => {
            let device = pool(PoolKind::Device, device, view.promised.device);
            (MemoryDomain::Device, vec![device, pool(PoolKind::Host, host, view.promised.host)])
        }
    };
    let summary = pools.first().map(|pool| {
        let free_bytes = pool.allocatable_bytes.saturating_sub(pool.promised_bytes);
        format!("{} free of {}", quantity(free_bytes), quantity(pool.total_bytes))
    });
    NodeMemory { domain, pools, summary: summary.unwrap_or_default() }
}

const fn pool(kind: PoolKind, pool: Pool, promised_bytes: u64) -> MemoryPool {
    MemoryPool {
        pool: kind,
        total_bytes: pool.total_bytes,
        allocatable_bytes: pool.allocatable_bytes(),
        promised_bytes,
        held_bytes: pool.held_bytes,
        others_bytes: pool.others_bytes(),
        reserve_bytes: pool.reserve_bytes,
    }
}

fn others(processes: &[ProcessMemory]) -> Vec<OtherProcess> {
    processes
        .iter()
        .map(|process| OtherProcess { name: process.name.clone(), bytes: process.bytes })
        .collect()
}

fn conditions(view: &NodeView<'_>, before: &[Condition]) -> Vec<Condition> {
    let verdicts = [
        ("Ready", ready(view)),
        ("MemoryPressure", memory_pressure(view, before)),
        (MEMORY_STARVED, memory_starved(view)),
        ("DriverSupported", driver_supported(view)),
        ("DiskPressure", disk_pressure(view.store)),
    ];
    let clock = view.gpu_seen.map(|seen| ("ClockDegraded", clock_degraded(seen)));
    let mut conditions = Vec::new();
    for (type_, verdict) in verdicts.into_iter().chain(clock) {
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
    let Pool { available_bytes, reserve_bytes, .. } = view.pools.host;
    let was = find_condition(before, "MemoryPressure").is_some_and(|old| old.status == ConditionStatus::True);
    let bar = reserve_bytes + if was { view.pools.host.grain_bytes() } else { 0 };
    if available_bytes >= bar {
        return Verdict::no(Reason::Serving, "the reserve is free");
    }
    let largest: Vec<String> =
        view.others.iter().take(3).map(|other| format!("{} {}", other.name, readable(other.bytes))).collect();
    let blame =
        if largest.is_empty() { String::new() } else { format!("; largest others: {}", largest.join(", ")) };
    let message =
        format!("less than the reserve of {} is available: nothing starts{blame}", readable(reserve_bytes));
    Verdict::yes(Reason::InsufficientMemory, message)
}

/// Its own condition, so that its transition time says since when.
fn memory_starved(view: &NodeView<'_>) -> Verdict {
    let Pool { available_bytes, reserve_bytes, .. } = view.pools.host;
    if available_bytes >= reserve_bytes / 2 {
        return Verdict::no(Reason::Serving, "half the reserve is free");
    }
    let message = format!("less than half the reserve of {} is available", readable(reserve_bytes));
    Verdict::yes(Reason::InsufficientMemory, message)
}

/// Judged only where engines need the driver.
fn driver_supported(view: &NodeView<'_>) -> Verdict {
    if view.engine.backend == Backend::Cpu {
        return Verdict::yes(Reason::Serving, "engines run on the CPU, no driver is used");
    }
    if view.faults.is_empty() {
        let driver = view.gpu.and_then(|gpu| gpu.driver.as_deref()).unwrap_or("of unknown version");
        let message = format!("driver {driver} on kernel {}: no fault of them is known", view.os.kernel);
        return Verdict::yes(Reason::Serving, message);
    }
    let faults: Vec<String> =
        view.faults.iter().map(|fault| format!("{}: {}", fault.what, fault.advice)).collect();
    Verdict::no(Reason::DriverUnsupported, faults.join("; "))
}

fn clock_degraded(seen: &GpuSeen) -> Verdict {
    if !seen.clock_degraded {
        return Verdict::no(Reason::Serving, "the GPU's clock has not been seen stuck low");
    }
    let message = format!(
        "the GPU's clock stayed below {SLOW_CLOCK_MHZ} MHz through a minute of work: unplug the power for 60 s"
    );
    Verdict::yes(Reason::ClockDegraded, message)
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
