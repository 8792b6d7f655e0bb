use crate::Reason;
use crate::course::{Course, Member, refusal, refusal_backoff};
use crate::goal::Goal;
use crate::message::{attempt_failure, bytes, settings, unplaced, weights_progress};
use crate::phase::{Phase, is_current};
use crate::placement::{Query, Verdict};
use crate::reach::{age, later};
use crate::report::{Condition, ConditionStatus};
use crate::rollout::{Wait, count};
use crate::snapshot::{Run, ServiceState};
use crate::summary::View;
use crate::target::{Blocked, Target};

/// The most important thing to say of a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As wanted.
    Done,
    /// Under way: waiting is enough.
    Working,
    /// Nothing more can be done with what the lab has or the user allows.
    Stuck,
    /// Something does not work.
    Broken,
}

impl Finding {
    pub(crate) fn condition(&self, holds: bool) -> Condition {
        let status = if holds { ConditionStatus::True } else { ConditionStatus::False };
        Condition { status, reason: self.reason, message: self.message.clone() }
    }
}

fn finding(kind: Kind, reason: Reason, message: String) -> Finding {
    Finding { kind, reason, message }
}

/// The first that applies: what forbids everything, what is silent, what failed, what lacks room, what is under way.
pub(crate) fn find(view: &View<'_, '_>) -> Finding {
    of_spec(view)
        .or_else(|| silence(view))
        .or_else(|| failure(view))
        .or_else(|| of_wait(view))
        .or_else(|| under_way(view))
        .unwrap_or_else(|| done(view))
}

fn of_spec(view: &View<'_, '_>) -> Option<Finding> {
    match view.goal {
        Goal::Nothing => {
            let left = count(view.pass.census.of(view.id));
            return Some(finding(
                Kind::Working,
                Reason::Draining,
                format!("{left} replicas still to release"),
            ));
        }
        Goal::Unreadable { message } => {
            return Some(finding(Kind::Broken, Reason::Invalid, (*message).to_owned()));
        }
        Goal::Unknown { .. } | Goal::Run(_) => {}
    }
    if view.deployment.service == ServiceState::Foreign {
        let message =
            format!("a Service {} exists that is not ours: rename this or remove that", view.id.name());
        return Some(finding(Kind::Broken, Reason::NameTaken, message));
    }
    match view.goal {
        Goal::Unknown { blocked } => Some(of_blocked(blocked)),
        Goal::Run(run) => run.blocked.as_ref().map(of_blocked),
        Goal::Nothing | Goal::Unreadable { .. } => None,
    }
}

fn of_blocked(blocked: &Blocked) -> Finding {
    let kind = match blocked.reason {
        Reason::Resolving => Kind::Working,
        Reason::NoMatchingNode => Kind::Stuck,
        _ => Kind::Broken,
    };
    finding(kind, blocked.reason, blocked.message.clone())
}

/// Replicas of which nothing is heard.
fn silence(view: &View<'_, '_>) -> Option<Finding> {
    let member = view.serving().find(|member| member.phase == Phase::Unheard)?;
    let (pass, name) = (view.pass, &member.replica.node);
    if pass.reach.is_reachable(name) {
        let message =
            format!("the agent of {name} has restarted; waits for its word on {}", member.id.name());
        return Some(finding(Kind::Working, Reason::Loading, message));
    }
    let message = if pass.reach.most_stale() {
        let (stale, all) = (pass.reach.stale_count(), pass.snapshot.nodes.len());
        format!(
            "{stale} of {all} nodes fell silent at once, which points at the operator's own connection: endpoints stay"
        )
    } else {
        let heartbeat_at = pass.snapshot.nodes.get(name).and_then(|node| node.heartbeat_at);
        let silent = heartbeat_at.map_or_else(
            || "has sent no heartbeat".to_owned(),
            |at| format!("has been silent for {} s", age(pass.snapshot.now, at).as_secs()),
        );
        let lost =
            pass.snapshot.policy.heartbeat_stale_after.saturating_add(pass.snapshot.policy.node_lost_after);
        format!("{name} {silent}; its replicas are placed elsewhere after {} s", lost.as_secs())
    };
    Some(finding(Kind::Broken, Reason::NodeUnreachable, message))
}

fn failure(view: &View<'_, '_>) -> Option<Finding> {
    if view.replicas() == 0 {
        return None;
    }
    if let Some(Course::Back { to, failed }) = view.course {
        let spec_deadline = view.run().and_then(|run| run.spec.rollout.progress_deadline);
        let cause = attempt_failure(view.pass, failed.replica, spec_deadline);
        let is_refusal = refusal(failed.replica).is_some();
        let reason = if is_refusal { Reason::Refused } else { Reason::RolledBack };
        let again = if is_refusal {
            "it is tried again when the node can take more"
        } else {
            "edit the spec to try another"
        };
        let message = format!(
            "returned to revision {} ({}): revision {} on {} {cause}; {again}",
            to.replica.revision,
            settings(&to.replica.serving),
            failed.replica.revision,
            failed.replica.node
        );
        return Some(finding(Kind::Broken, reason, message));
    }
    view.serving().find_map(|member| failure_of(view, member))
}

fn failure_of(view: &View<'_, '_>, member: &Member<'_>) -> Option<Finding> {
    let replica = member.replica;
    let deadline = view.run().and_then(|run| run.spec.rollout.progress_deadline);
    let reason = match member.phase {
        Phase::CrashLooping => Reason::CrashLooping,
        Phase::Late => Reason::ProgressDeadlineExceeded,
        Phase::Refused => Reason::Refused,
        _ => return None,
    };
    let mut message =
        format!("{} on {} {}", member.id.name(), replica.node, attempt_failure(view.pass, replica, deadline));
    if let Some(refusal) = refusal(replica).filter(|_| reason == Reason::Refused) {
        let due = later(refusal.at, refusal_backoff(replica.attempt));
        let wait = age(due, view.pass.snapshot.now).as_secs();
        message = format!("{message}; tried again in {wait} s, or when the node can take more");
    }
    Some(finding(Kind::Broken, reason, message))
}

fn of_wait(view: &View<'_, '_>) -> Option<Finding> {
    let run = view.run()?;
    match view.wait? {
        Wait::Unplaced { verdicts, swap } => {
            let replaced = view
                .serving()
                .find(|member| *swap && !member.is_of(&run.target.revision))
                .map(|member| (&member.replica.node, crate::capacity::Bytes::of(&member.replica.footprint)));
            let returned = match view.course {
                Some(Course::Back { to, .. }) => {
                    Some(Target::of_record(view.pass.snapshot, view.id.namespace(), to.replica))
                }
                _ => None,
            };
            let query = Query {
                id: view.id,
                uid: &view.deployment.uid,
                placement: &run.spec.placement,
                target: returned.as_ref().unwrap_or(&run.target),
                try_failed: false,
                instead_of: replaced,
            };
            let (reason, message) = unplaced(view.pass, &query, verdicts);
            Some(finding(Kind::Stuck, reason, message))
        }
        Wait::Room { verdicts } => {
            let draining = verdicts.iter().find(|(_, verdict)| **verdict == Verdict::Draining);
            let starting = verdicts.iter().find_map(|(name, verdict)| match verdict {
                Verdict::Starting { by } => Some((name, by)),
                _ => None,
            });
            Some(match (draining, starting) {
                (Some((name, _)), _) => {
                    let message = format!("waits for the memory of the engine that leaves {name}");
                    finding(Kind::Working, Reason::Draining, message)
                }
                (None, Some((name, by))) => finding(
                    Kind::Working,
                    Reason::Placing,
                    format!("waits until {} has started on {name}", by.name()),
                ),
                (None, None) => finding(Kind::Working, Reason::Placing, "waits for a node".to_owned()),
            })
        }
        Wait::WeightsFor { node } => {
            let (reason, message) = weights_progress(&run.target, node);
            let kind = if reason == Reason::Downloading { Kind::Working } else { Kind::Broken };
            Some(finding(kind, reason, format!("before the swap: {message}")))
        }
        Wait::Floor { ready, min_available } => {
            let message = format!(
                "the rollout waits: {ready} replicas are ready and {min_available} must stay so; \
                 strategy Swap with a smaller minAvailable replaces one at a time"
            );
            Some(finding(Kind::Stuck, Reason::Surging, message))
        }
    }
}

fn under_way(view: &View<'_, '_>) -> Option<Finding> {
    let run = view.run()?;
    let (wanted, placed) = (run.spec.replicas, count(view.serving()));
    if let Some(member) = view.serving().find(|member| member.phase == Phase::Fetching) {
        let (reason, message) = weights_progress(&run.target, &member.replica.node);
        let kind = if reason == Reason::Downloading { Kind::Working } else { Kind::Broken };
        return Some(finding(kind, reason, message));
    }
    let is_swap = view.members.iter().any(|member| !member.serves() && !member.is_of(&run.target.revision));
    if let Some(member) = view.serving().find(|member| member.phase == Phase::Loading) {
        let replica = member.replica;
        let footprint = bytes(replica.footprint.total_bytes());
        let mut message = format!("{} loads on {}, {footprint}", member.id.name(), replica.node);
        if is_current(replica) && replica.status.failures > 0 {
            message = format!(
                "{message}; it {}",
                attempt_failure(view.pass, replica, run.spec.rollout.progress_deadline)
            );
        }
        let reason = if is_swap { Reason::Swapping } else { Reason::Loading };
        return Some(finding(Kind::Working, reason, message));
    }
    if placed > wanted || (wanted == 0 && leaving(view) > 0) {
        let message = format!("{} replicas leave", leaving(view).max(placed.saturating_sub(wanted)));
        return Some(finding(Kind::Working, Reason::Draining, message));
    }
    if placed < wanted {
        let reason = if is_swap { Reason::Swapping } else { Reason::Placing };
        return Some(finding(Kind::Working, reason, format!("{placed} of {wanted} replicas placed")));
    }
    let updated = count(view.serving().filter(|member| view.is_updated(member)));
    (updated < wanted).then(|| {
        finding(
            Kind::Working,
            Reason::Swapping,
            format!("{updated} of {wanted} replicas run the wanted revision"),
        )
    })
}

fn leaving(view: &View<'_, '_>) -> u32 {
    count(view.pass.census.of(view.id).filter(|(_, replica)| {
        (replica.deleting || replica.run == Run::Stop) && !crate::phase::is_released(replica)
    }))
}

fn done(view: &View<'_, '_>) -> Finding {
    match view.replicas() {
        0 => finding(Kind::Done, Reason::ScaledToZero, "scaled to 0: nothing runs".to_owned()),
        wanted => {
            finding(Kind::Done, Reason::Serving, format!("{} of {wanted} replicas ready", view.ready_count()))
        }
    }
}
