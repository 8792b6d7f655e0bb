//! What to do next with the replicas bound here. Pure: no clock, no process, no file.

use std::collections::BTreeMap;
use std::time::Duration;

use sparkherd_protocol::Access;

use crate::admission::{Promise, Verdict, admit};
use crate::engine::{Engine, EngineId, KillReason, Stage};
use crate::memory::{Pool, PoolBytes, Pools};
use crate::record::Record;
use crate::store::Weights;
use crate::wanted::{ReplicaKey, Wanted};

/// A load that reads no byte and touches no page for this long hangs: the slowest disk we support reads 50 MB/s.
const LOAD_STALL: Duration = Duration::from_mins(1);
/// A step is made to take well under a second (chunks are cut to that), so a minute is a fault.
const STEP_STALL: Duration = Duration::from_mins(1);
/// An engine speaks each second from a thread of its own.
const SILENCE: Duration = Duration::from_secs(30);
/// On top of the drain time: 5 s in which a draining engine still accepts, and the time to free its memory.
const DRAIN_GRACE: Duration = Duration::from_secs(15);

/// Which engines may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starts {
    All,
    /// The API server is away: what served here may come back, nothing new starts.
    OnlyWhatServed,
    /// The agent is ending.
    Nothing,
}

#[derive(Debug)]
pub struct World<'a> {
    pub now: Duration,
    pub pools: Pools,
    pub starts: Starts,
    pub wanted: &'a BTreeMap<ReplicaKey, Wanted>,
    pub records: &'a BTreeMap<ReplicaKey, Record>,
    pub weights: &'a BTreeMap<ReplicaKey, Weights>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Kill the process group.
    Kill { replica: ReplicaKey, engine: EngineId, reason: KillReason },
    /// Ask to finish; killed at `kill_at`.
    Drain { replica: ReplicaKey, engine: EngineId, seconds: u32, kill_at: Duration },
    /// Tell a running engine who may ask, and by which names.
    Access { replica: ReplicaKey, engine: EngineId, access: Access, served_names: Vec<String> },
    /// Spawn an engine.
    Start { replica: ReplicaKey },
    /// Say why it does not start.
    Refuse { replica: ReplicaKey, message: String, allocatable_bytes: u64 },
}

/// The next steps. Kills and drains come first; at most one engine starts, and none while another is starting.
pub fn plan(world: &World<'_>) -> Vec<Step> {
    let mut steps: Vec<Step> = world
        .records
        .iter()
        .filter_map(|(key, record)| Some((key, record.engine.as_ref()?)))
        .filter_map(|(key, engine)| step_for_engine(world, key, engine))
        .collect();
    // Orphans hold memory that nobody accounts for any more: they go before anything else.
    steps.sort_by_key(|step| !matches!(step, Step::Kill { reason: KillReason::Orphan, .. }));
    steps.extend(starts(world));
    steps
}

fn step_for_engine(world: &World<'_>, key: &ReplicaKey, engine: &Engine) -> Option<Step> {
    let kill = |reason| Some(Step::Kill { replica: key.clone(), engine: engine.id, reason });
    if matches!(engine.stage, Stage::Killed { .. } | Stage::Returning { .. }) {
        return None;
    }
    let Some(wanted) = world.wanted.get(key) else { return kill(KillReason::Orphan) };
    if let Stage::Draining { asked_at, kill_at } = engine.stage {
        let seconds = world.now.saturating_sub(asked_at).as_secs();
        return if world.now >= kill_at { kill(KillReason::DrainOverdue { seconds }) } else { None };
    }
    if let Some(reason) = hung(engine, world.now) {
        return kill(reason);
    }
    if !wanted.serve {
        if engine.is_starting() {
            return kill(KillReason::Stopped);
        }
        let kill_at = world.now + Duration::from_secs(wanted.drain_seconds.into()) + DRAIN_GRACE;
        let seconds = wanted.drain_seconds;
        return Some(Step::Drain { replica: key.clone(), engine: engine.id, seconds, kill_at });
    }
    let told = engine.access == wanted.access && engine.served_names == wanted.served_names;
    (!told && engine.answering().is_some()).then(|| Step::Access {
        replica: key.clone(),
        engine: engine.id,
        access: wanted.access.clone(),
        served_names: wanted.served_names.clone(),
    })
}

fn hung(engine: &Engine, now: Duration) -> Option<KillReason> {
    match &engine.stage {
        Stage::Loading { advanced_at, .. } => {
            let still = now.saturating_sub(*advanced_at);
            (still >= LOAD_STALL).then_some(KillReason::NoProgress { seconds: still.as_secs() })
        }
        Stage::Serving(answering) => {
            let silent = now.saturating_sub(answering.heard_at);
            if answering.running > 0 && answering.last_step_age >= STEP_STALL {
                return Some(KillReason::Stalled { seconds: answering.last_step_age.as_secs() });
            }
            (silent >= SILENCE).then_some(KillReason::Silent { seconds: silent.as_secs() })
        }
        _ => None,
    }
}

/// The one engine to start, and the refusals on the way to it.
fn starts(world: &World<'_>) -> Vec<Step> {
    let engines = || world.records.values().filter_map(|record| record.engine.as_ref());
    if engines().any(Engine::is_starting) {
        return Vec::new();
    }
    let returning = engines().any(|engine| !engine.is_alive());
    let mut steps = Vec::new();
    for (key, wanted) in candidates(world) {
        match admit_in_each_pool(world, key, wanted) {
            Verdict::Admitted { .. } => {
                steps.push(Step::Start { replica: key.clone() });
                break;
            }
            // Memory is on its way back: not a refusal yet.
            Verdict::Refused { .. } if returning => {}
            Verdict::Refused { message } => steps.extend(refusal(world, key, message)),
        }
    }
    steps
}

/// Replicas without an engine that may have one now, oldest first.
fn candidates<'a>(world: &World<'a>) -> Vec<(&'a ReplicaKey, &'a Wanted)> {
    let mut candidates: Vec<_> = world
        .wanted
        .iter()
        .filter(|(key, wanted)| {
            let Some(record) = world.records.get(key) else { return false };
            let allowed = match world.starts {
                Starts::All => true,
                Starts::OnlyWhatServed => record.was_ready,
                Starts::Nothing => false,
            };
            allowed
                && wanted.serve
                && record.engine.is_none()
                && record.retry_at.is_none_or(|at| at <= world.now)
                && matches!(world.weights.get(key), Some(Weights::Ready { .. }))
        })
        .collect();
    candidates.sort_by_key(|(key, wanted)| (wanted.created_at, *key));
    candidates
}

/// The host's pool decides first: an engine that starves the host is worse than one that finds no room on the GPU.
fn admit_in_each_pool(world: &World<'_>, key: &ReplicaKey, wanted: &Wanted) -> Verdict {
    let admit = |pool: &Pool, of: fn(PoolBytes) -> u64| {
        admit(pool, &promises(world, key, of), of(world.pools.shares(&wanted.footprint)))
    };
    let Some(device) = &world.pools.device else { return admit(&world.pools.host, |bytes| bytes.host) };
    match admit(&world.pools.host, |bytes| bytes.host) {
        Verdict::Refused { message } => Verdict::Refused { message: format!("host memory: {message}") },
        Verdict::Admitted { .. } => match admit(device, |bytes| bytes.device) {
            Verdict::Refused { message } => Verdict::Refused { message: format!("GPU memory: {message}") },
            admitted @ Verdict::Admitted { .. } => admitted,
        },
    }
}

/// What all engines but this replica's were promised of one pool: until their memory is measured back they count (I1).
fn promises(world: &World<'_>, but: &ReplicaKey, of: fn(PoolBytes) -> u64) -> Vec<Promise> {
    world
        .records
        .iter()
        .filter(|(key, _)| *key != but)
        .filter_map(|(_, record)| {
            let engine = record.engine.as_ref()?;
            Some(Promise { footprint_bytes: of(engine.footprint), held_bytes: of(engine.held) })
        })
        .collect()
}

/// A refusal is told once, and again when the pool has moved by more than its grain: noise is no news.
fn refusal(world: &World<'_>, key: &ReplicaKey, message: String) -> Option<Step> {
    let pool = world.pools.chief();
    let allocatable_bytes = pool.allocatable_bytes();
    let told =
        world.records.get(key).and_then(|record| record.refused.as_ref()).is_some_and(|refused| {
            refused.allocatable_bytes.abs_diff(allocatable_bytes) <= pool.grain_bytes()
        });
    (!told).then(|| Step::Refuse { replica: key.clone(), message, allocatable_bytes })
}

#[cfg(test)]
mod tests;
