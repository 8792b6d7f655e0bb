use sparkherd_crds::{
    LastExit, ModelReplicaStatus, Performance, Progress, Refusal, ReplicaMemory, find_condition,
    set_condition,
};
use sparkherd_planner::Reason;
use sparkherd_protocol::FailureReason;

use super::condition::{Verdict, bounded, time};
use crate::bytes::{quantity, readable};
use crate::clock::Moment;
use crate::engine::{Engine, Stage};
use crate::record::{EndCause, Record};
use crate::store::Weights;
use crate::wanted::{ReplicaKey, Wanted};

/// A load is told in this many steps: enough to see it move, few enough writes.
const PROGRESS_STEPS: u64 = 20;

/// Conditions of an agent on a replica, in the order of a life.
const CONDITIONS: [&str; 5] = ["Admitted", "WeightsReady", "Loaded", "Ready", "Released"];

/// All that a replica's status is made of.
#[derive(Debug)]
pub struct ReplicaView<'a> {
    pub now: Moment,
    pub agent_incarnation: &'a str,
    pub wanted: &'a Wanted,
    pub record: &'a Record,
    pub weights: &'a Weights,
    /// The replica whose engine is starting on this node, if another's.
    pub starting: Option<&'a ReplicaKey>,
    /// The agent is ending, and its engines with it.
    pub ending: bool,
}

/// The whole status this agent applies; transition times are kept from `previous` while a condition's status stays.
pub fn replica_status(view: &ReplicaView<'_>, previous: Option<&ModelReplicaStatus>) -> ModelReplicaStatus {
    let ReplicaView { now, wanted, record, .. } = *view;
    let engine = record.engine.as_ref();
    let answering = engine.and_then(Engine::answering);
    let progress = engine.and_then(|engine| match engine.stage {
        Stage::Loading { bytes_done, bytes_total, .. } if bytes_total > 0 => {
            Some(Progress { bytes_done: stepped(bytes_done, bytes_total), bytes_total })
        }
        _ => None,
    });
    ModelReplicaStatus {
        observed_generation: wanted.generation,
        attempt: record.attempt,
        conditions: conditions(view, previous),
        endpoint_port: answering.map(|answering| answering.address.port()),
        incarnation: answering.map(|answering| answering.incarnation.clone()),
        agent_incarnation: Some(view.agent_incarnation.to_owned()),
        progress,
        memory: Some(memory(wanted, engine)),
        performance: answering
            .map(|answering| Performance { tokens_per_second: answering.tokens_per_second }),
        restarts: record.starts.saturating_sub(1),
        failures: u32::try_from(record.failures(now.since_start)).unwrap_or(u32::MAX),
        failed_since: record.failed_since.map(time),
        refusal: record.refused.as_ref().map(|refused| Refusal {
            message: bounded(&refused.message),
            at: time(refused.at),
            allocatable_bytes: refused.allocatable_bytes,
        }),
        last_exit: record.ended.as_ref().map(|ended| LastExit {
            status: ended.status.clone(),
            reason: bounded(&ended.reason),
            at: time(ended.at),
        }),
    }
}

fn conditions(
    view: &ReplicaView<'_>,
    previous: Option<&ModelReplicaStatus>,
) -> Vec<sparkherd_crds::Condition> {
    let mut conditions = Vec::new();
    for type_ in CONDITIONS {
        let old = previous.and_then(|status| find_condition(&status.conditions, type_));
        conditions.extend(old.cloned());
        let verdict = match type_ {
            "Admitted" => admitted(view),
            "WeightsReady" => weights_ready(view.weights),
            "Loaded" => loaded(view),
            "Ready" => ready(view),
            _ => released(view),
        };
        set_condition(&mut conditions, verdict.condition(type_, view.wanted.generation, view.now.wall));
    }
    conditions
}

fn admitted(view: &ReplicaView<'_>) -> Verdict {
    let ReplicaView { wanted, record, weights, .. } = view;
    let needs = readable(wanted.footprint.total_bytes());
    if record.engine.as_ref().is_some_and(Engine::is_alive) {
        return Verdict::yes(Reason::Serving, format!("{needs} are set aside for it"));
    }
    if !wanted.serve {
        return Verdict::no(Reason::Draining, "told to stop");
    }
    if record.engine.is_some() {
        return Verdict::no(Reason::Draining, "the memory of its last engine is being measured back");
    }
    if let Weights::NotReady { reason, message } = weights {
        return Verdict::no(*reason, format!("waits for the weights: {message}"));
    }
    if let Some(refused) = &record.refused {
        return Verdict::no(Reason::Refused, refused.message.clone());
    }
    if record.retry_at.is_some() {
        return pausing(view);
    }
    let waits = view.starting.map_or_else(
        || format!("needs {needs}, waits for its turn"),
        |other| format!("needs {needs}, waits until {other} has started"),
    );
    Verdict::no(Reason::Loading, waits)
}

fn weights_ready(weights: &Weights) -> Verdict {
    match weights {
        Weights::Ready { .. } => Verdict::yes(Reason::Serving, "the weights lie on this node as resolved"),
        Weights::NotReady { reason, message } => Verdict::no(*reason, message.clone()),
    }
}

fn loaded(view: &ReplicaView<'_>) -> Verdict {
    match view.record.engine.as_ref().map(|engine| &engine.stage) {
        Some(Stage::Serving(_) | Stage::Draining { .. }) => {
            Verdict::yes(Reason::Serving, "the weights are in memory")
        }
        Some(Stage::Loading { bytes_done, bytes_total, .. }) => loading(*bytes_done, *bytes_total),
        _ => not_running(view),
    }
}

fn ready(view: &ReplicaView<'_>) -> Verdict {
    match view.record.engine.as_ref().map(|engine| &engine.stage) {
        Some(Stage::Serving(_)) if view.ending => Verdict::no(Reason::Draining, "the agent is ending"),
        Some(Stage::Serving(_)) if !view.wanted.serve => Verdict::no(Reason::Draining, "told to stop"),
        Some(Stage::Serving(answering)) => Verdict::yes(
            Reason::Serving,
            format!(
                "answers on port {} with {:.1} tokens/s for one sequence",
                answering.address.port(),
                answering.tokens_per_second
            ),
        ),
        Some(Stage::Draining { .. }) => Verdict::no(
            Reason::Draining,
            format!("finishes what runs, {} s at most", view.wanted.drain_seconds),
        ),
        Some(Stage::Loading { bytes_done, bytes_total, .. }) => loading(*bytes_done, *bytes_total),
        _ => not_running(view),
    }
}

fn released(view: &ReplicaView<'_>) -> Verdict {
    if view.wanted.serve {
        return Verdict::no(Reason::Serving, "is to serve");
    }
    match (&view.record.engine, &view.record.release) {
        (Some(engine), _) if engine.is_alive() => Verdict::no(Reason::Draining, "the engine is stopping"),
        (Some(_), _) => Verdict::no(Reason::Draining, "the memory of its engine is being measured back"),
        (None, Some(release)) if !release.returned => {
            Verdict::yes(Reason::NotReturned, release.message.clone())
        }
        (None, Some(release)) => Verdict::yes(Reason::Draining, release.message.clone()),
        (None, None) => Verdict::yes(Reason::Draining, "holds nothing"),
    }
}

fn loading(bytes_done: u64, bytes_total: u64) -> Verdict {
    if bytes_total == 0 {
        return Verdict::no(Reason::Loading, "the engine is starting");
    }
    let done = readable(stepped(bytes_done, bytes_total));
    Verdict::no(Reason::Loading, format!("{done} of {} weights read", readable(bytes_total)))
}

/// Why there is no engine that loads or serves.
fn not_running(view: &ReplicaView<'_>) -> Verdict {
    if view.record.engine.is_some() || view.record.ended.is_some() && view.wanted.serve {
        return pausing(view);
    }
    Verdict { holds: false, ..admitted(view) }
}

/// The last engine ended, the next one has not begun.
fn pausing(view: &ReplicaView<'_>) -> Verdict {
    let ReplicaView { now, wanted, record, .. } = view;
    if !wanted.serve {
        return Verdict::no(Reason::Draining, "told to stop");
    }
    let (ended, reason) = record.ended.as_ref().map_or_else(
        || ("the engine is ending".to_owned(), Reason::Loading),
        |ended| {
            (
                format!("the last engine ended with {}: {}", ended.status, ended.reason),
                end_reason(ended.cause),
            )
        },
    );
    let failures = record.failures(now.since_start);
    let message = format!("{ended}; {failures} failure(s) in 30 min; starts again after a pause");
    if record.is_crash_looping(now.since_start) {
        return Verdict::no(Reason::CrashLooping, message);
    }
    Verdict::no(reason, message)
}

/// The API's word for how an engine ended; what has none is a start that is tried again.
const fn end_reason(cause: EndCause) -> Reason {
    match cause {
        EndCause::Stall => Reason::EngineStalled,
        EndCause::Said(FailureReason::GpuFault) => Reason::GpuFault,
        EndCause::Said(FailureReason::OutOfMemory) => Reason::InsufficientMemory,
        EndCause::Said(FailureReason::DriverUnsupported) => Reason::DriverUnsupported,
        EndCause::Said(FailureReason::UnsupportedModel) => Reason::UnsupportedModel,
        EndCause::Said(
            FailureReason::ConfigInvalid
            | FailureReason::SystemError
            | FailureReason::AddressUnavailable
            | FailureReason::FootprintMismatch
            | FailureReason::LoadFailed
            | FailureReason::ProbeFailed
            | FailureReason::EngineFailed
            | FailureReason::Unknown,
        )
        | EndCause::Other => Reason::Loading,
    }
}

fn memory(wanted: &Wanted, engine: Option<&Engine>) -> ReplicaMemory {
    let footprint_bytes = wanted.footprint.total_bytes();
    let held_bytes = match engine.map(|engine| (&engine.stage, engine.held.total())) {
        Some((Stage::Serving(answering), _)) => answering.held_bytes,
        Some((Stage::Loading { held_bytes, .. }, _)) => stepped(*held_bytes, footprint_bytes),
        Some((_, measured)) => stepped(measured, footprint_bytes),
        None => 0,
    };
    let summary = format!("{} of {}", quantity(held_bytes), quantity(footprint_bytes));
    ReplicaMemory { footprint_bytes, held_bytes, summary }
}

/// Cut to a multiple of 5 % of the whole; the whole itself is told exactly.
fn stepped(bytes: u64, whole_bytes: u64) -> u64 {
    if bytes >= whole_bytes {
        return bytes;
    }
    let step = (whole_bytes / PROGRESS_STEPS).max(1);
    bytes / step * step
}

#[cfg(test)]
#[path = "replica_tests.rs"]
mod tests;
