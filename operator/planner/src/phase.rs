use jiff::{SignedDuration, Timestamp};

use crate::reach::{Reach, later};
use crate::snapshot::{CopyState, Model, Replica, Reported, Run, Snapshot};
use crate::{ModelId, NodeName, ReplicaId};

/// Crashes within 30 minutes after which an engine is given up where there is something else to do.
pub(crate) const CRASH_LOOP_FAILURES: u32 = 5;

/// Time to load, beside reading the weights: process start, tokenizer, kernels, the first token.
const PROGRESS_DEADLINE_BASE: SignedDuration = SignedDuration::from_secs(120);

/// Slowest disk that we wait for: a SATA disk with a cold cache and another reader.
const SLOWEST_LOAD_BYTES_PER_SECOND: u64 = 200_000_000;

/// Where a replica stands, from its spec and what its agent says of the current attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Told to stop or deleted, memory not yet measured back.
    Leaving,
    /// Told to stop or deleted, memory back: a record, or an object to let go.
    Released,
    /// Answers, by the word of the agent's present life on a node that we hear.
    Ready,
    /// Its node is silent or its agent has a new life: what it last said is old.
    Unheard,
    Refused,
    CrashLooping,
    /// Not ready by its progress deadline.
    Late,
    /// Waits for weights.
    Fetching,
    /// Loads, or waits for its turn to.
    Loading,
}

/// The phase of one replica; `deadline` is the deployment's own, if it set one.
pub(crate) fn phase(
    snapshot: &Snapshot,
    reach: &Reach<'_>,
    replica: &Replica,
    deadline: Option<SignedDuration>,
) -> Phase {
    if replica.deleting || replica.run == Run::Stop {
        return if is_released(replica) { Phase::Released } else { Phase::Leaving };
    }
    let status = &replica.status;
    let ready = is_current(replica) && is_true(status.ready.as_ref());
    if !reach.is_reachable(&replica.node) || (ready && !is_word_of_living_agent(snapshot, replica)) {
        Phase::Unheard
    } else if ready {
        Phase::Ready
    } else if !is_current(replica) {
        Phase::Loading
    } else if status.failures >= CRASH_LOOP_FAILURES {
        Phase::CrashLooping
    } else if status.refusal.is_some() {
        Phase::Refused
    } else if deadline_at(replica, deadline).is_some_and(|at| snapshot.now >= at) {
        Phase::Late
    } else if is_true(status.weights_ready.as_ref()) {
        Phase::Loading
    } else {
        Phase::Fetching
    }
}

/// Whether its memory is back. Only a replica that was told to leave can be: of another attempt too, because an agent that
/// stops an engine need not have seen the attempt before.
pub(crate) fn is_released(replica: &Replica) -> bool {
    (replica.run == Run::Stop || replica.deleting) && is_true(replica.status.released.as_ref())
}

/// Whether the status speaks of the attempt that the spec asks for.
pub(crate) const fn is_current(replica: &Replica) -> bool {
    replica.status.attempt == replica.attempt
}

pub(crate) fn is_true(condition: Option<&Reported>) -> bool {
    condition.is_some_and(|condition| condition.value)
}

/// Whether the agent that reported it still lives (I6).
pub(crate) fn is_word_of_living_agent(snapshot: &Snapshot, replica: &Replica) -> bool {
    let living = snapshot.nodes.get(&replica.node).and_then(|node| node.lease_incarnation.as_ref());
    living.is_some() && living == replica.status.agent_incarnation.as_ref()
}

/// Whether what it last said proves that the engine does not work: crashes or a refusal in the current attempt.
pub(crate) fn has_failed(replica: &Replica) -> bool {
    is_current(replica)
        && !is_true(replica.status.ready.as_ref())
        && (replica.status.failures >= CRASH_LOOP_FAILURES || replica.status.refusal.is_some())
}

/// When a replica that is not ready is late: counted from the weights on the node, or from when it stopped being ready.
pub(crate) fn deadline_at(replica: &Replica, deadline: Option<SignedDuration>) -> Option<Timestamp> {
    if !is_current(replica) || is_true(replica.status.ready.as_ref()) {
        return None;
    }
    let weights = replica.status.weights_ready.as_ref().filter(|condition| condition.value)?;
    let counted_from =
        replica.status.ready.as_ref().map_or(weights.since, |ready| ready.since.max(weights.since));
    Some(later(counted_from, deadline_of(replica, deadline)))
}

/// Time from weights on the node to ready: the user's, or 120 s and what reading the weights takes.
pub(crate) fn deadline_of(replica: &Replica, deadline: Option<SignedDuration>) -> SignedDuration {
    if let Some(deadline) = deadline {
        return deadline;
    }
    let seconds = replica.footprint.parts.weights_bytes / SLOWEST_LOAD_BYTES_PER_SECOND;
    PROGRESS_DEADLINE_BASE
        .saturating_add(SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)))
}

/// Whether its engine is between spawn and ready, as far as can be seen from here: nothing else is to be sent to the node
/// until it is through. One that has crashed or is late no longer keeps others waiting (I12); the agent starts one engine at a
/// time in any case.
pub(crate) fn is_starting(snapshot: &Snapshot, id: &ReplicaId, replica: &Replica) -> bool {
    if replica.run == Run::Stop || replica.deleting {
        return false;
    }
    if !is_current(replica) {
        return has_weights(snapshot, id, replica);
    }
    let status = &replica.status;
    !is_true(status.ready.as_ref())
        && status.failures == 0
        && status.refusal.is_none()
        && (is_true(status.weights_ready.as_ref()) || has_weights(snapshot, id, replica))
        && deadline_at(replica, None).is_none_or(|at| snapshot.now < at)
}

fn has_weights(snapshot: &Snapshot, id: &ReplicaId, replica: &Replica) -> bool {
    let model = snapshot.models.get(&ModelId::new(id.namespace(), &replica.model.name));
    model.is_some_and(|model| has_copy(model, &replica.node, &replica.model.digest))
}

/// Whether the weights of this digest lie on a node, verified.
pub(crate) fn has_copy(model: &Model, node: &NodeName, digest: &str) -> bool {
    model
        .copies
        .get(node)
        .is_some_and(|copy| copy.state == CopyState::Ready && copy.digest.as_deref() == Some(digest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{at, node, replica, reported, snapshot};
    use crate::snapshot::{PoolKind, Refusal};

    fn phase_of(change: impl Fn(&mut Replica)) -> Phase {
        let mut replica = replica(1, 0);
        change(&mut replica);
        let snapshot = snapshot(&[("spark-1", node(&[PoolKind::Unified]))]);
        phase(&snapshot, &Reach::new(&snapshot), &replica, None)
    }

    #[test]
    fn a_replica_is_what_its_agent_says_of_the_present_attempt() {
        let refusal = || Some(Refusal { message: "no".into(), at: at(0), allocatable_bytes: 0 });
        let ready = |replica: &mut Replica| replica.status.ready = Some(reported(true, at(-5)));
        assert_eq!(phase_of(|_| ()), Phase::Fetching);
        assert_eq!(phase_of(|r| r.status.weights_ready = Some(reported(true, at(-5)))), Phase::Loading);
        assert_eq!(phase_of(ready), Phase::Ready);
        assert_eq!(phase_of(|r| r.status.refusal = refusal()), Phase::Refused);
        assert_eq!(phase_of(|r| r.status.failures = CRASH_LOOP_FAILURES), Phase::CrashLooping);
        assert_eq!(phase_of(|r| r.run = Run::Stop), Phase::Leaving);
        assert_eq!(phase_of(|r| r.deleting = true), Phase::Leaving);

        let of_another_attempt = phase_of(|r| {
            ready(r);
            r.attempt = 2;
        });
        assert_eq!(of_another_attempt, Phase::Loading);
        let of_another_life = phase_of(|r| {
            ready(r);
            r.status.agent_incarnation = Some("life-0".into());
        });
        assert_eq!(of_another_life, Phase::Unheard);
        let released = |r: &mut Replica| r.status.released = Some(reported(true, at(0)));
        assert_eq!(phase_of(released), Phase::Fetching, "nobody told it to leave");
        let released_by_another_attempt = phase_of(|r| {
            released(r);
            (r.run, r.attempt) = (Run::Stop, 2);
        });
        assert_eq!(released_by_another_attempt, Phase::Released);
    }

    #[test]
    fn the_deadline_runs_from_the_weights_or_from_the_last_time_it_was_ready() {
        let with_weights = |since: i64| {
            move |r: &mut Replica| {
                r.status.weights_ready = Some(reported(true, at(since)));
                r.status.ready = Some(reported(false, at(since - 50)));
            }
        };
        // 120 s and 2 GB at 200 MB/s.
        assert_eq!(phase_of(with_weights(-129)), Phase::Loading);
        assert_eq!(phase_of(with_weights(-130)), Phase::Late);
        let was_ready = phase_of(|r| {
            with_weights(-5000)(r);
            r.status.ready = Some(reported(false, at(-5)));
        });
        assert_eq!(was_ready, Phase::Loading);
        let own = deadline_at(
            &{
                let mut replica = replica(1, 0);
                with_weights(-100)(&mut replica);
                replica
            },
            Some(SignedDuration::from_secs(7)),
        );
        assert_eq!(own, Some(at(-93)));
    }
}
