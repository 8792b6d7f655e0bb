//! Which revision a deployment is on its way to: the wanted one, or back to an older one because the wanted one failed.
//!
//! Nothing but the records remembers. The planner stops the wanted revision's newest record only when it has given up on it,
//! so a stopped record of the wanted revision that is *younger* than a good record of another revision says "this was
//! tried, and failed"; one that is *older* says "this ran before, and is wanted again".
//!
//! ```text
//! V serves ──edit──► V stopped ──► W starts ──ready──► V deleted
//!                                    └─failed──► W stopped ──► V serves: RolledBack while W stays wanted
//! ```

use jiff::SignedDuration;

use crate::ReplicaId;
use crate::phase::{CRASH_LOOP_FAILURES, Phase, has_failed, is_current};
use crate::reach::age;
use crate::snapshot::{Node, PoolKind, Refusal, Replica, Run, Snapshot};

/// First wait after a refusal; memory that others give back is seen within a heartbeat or two.
const REFUSAL_BACKOFF_MIN: SignedDuration = SignedDuration::from_secs(30);
/// Longest wait after a refusal.
pub(crate) const REFUSAL_BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(300);
/// Doublings after which the longest wait is reached.
const REFUSAL_BACKOFF_DOUBLINGS: u32 = 4;
/// `allocatable` has grown when it is up by more than the share that agents leave unreported.
const ALLOCATABLE_GROWTH_DIVISOR: u64 = 100;
/// A refused engine is tried this often while an older one stands stopped for it; then the older one serves again.
const SWAP_ATTEMPTS_MAX: u32 = 2;

/// A live replica of one deployment: not deleted, not on a lost node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) id: &'a ReplicaId,
    pub(crate) replica: &'a Replica,
    pub(crate) phase: Phase,
    /// Serves where it no longer may, or where an admin drains: its place is to be taken elsewhere first.
    pub(crate) is_misplaced: bool,
}

impl Member<'_> {
    pub(crate) fn serves(&self) -> bool {
        self.replica.run == Run::Serve
    }

    pub(crate) fn is_of(&self, revision: &str) -> bool {
        self.replica.revision == revision
    }
}

/// Where a deployment is heading.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Course<'a> {
    /// To the wanted revision; `fallback` is what to return to if it fails.
    Forward { fallback: Option<Member<'a>> },
    /// Back to the revision of `to`, because `failed` did not work.
    Back { to: Member<'a>, failed: Member<'a> },
}

/// Reads the course from the records.
pub(crate) fn course<'a>(snapshot: &Snapshot, members: &[Member<'a>], wanted: &str) -> Course<'a> {
    let given_up = members
        .iter()
        .filter(|member| member.is_of(wanted) && !member.serves())
        .filter(|member| !is_worth_another_try(snapshot, member.replica))
        .find_map(|failed| fallback_of(members, failed).map(|to| (to, *failed)));
    match given_up {
        Some((to, failed)) => Course::Back { to, failed },
        None => Course::Forward { fallback: fallback(members, wanted, |_| true) },
    }
}

/// The good older record that a failing replica of the wanted revision leaves the field to.
pub(crate) fn fallback_of<'a>(members: &[Member<'a>], failing: &Member<'a>) -> Option<Member<'a>> {
    fallback(members, &failing.replica.revision, |member| {
        let (older, younger) = (member.replica.created_at, failing.replica.created_at);
        // Creation is stamped in whole seconds: of two of one second the one whose engine broke is the later try.
        older < younger || (older == younger && has_broken(failing.replica))
    })
}

/// Whether an engine of its current attempt crashed or was refused.
fn has_broken(replica: &Replica) -> bool {
    is_current(replica) && (replica.status.failures > 0 || replica.status.refusal.is_some())
}

/// The record to return to: one stopped for the swap before one that serves; of the stopped the oldest, which worked
/// before the later ones were tried, of the serving the youngest.
fn fallback<'a>(
    members: &[Member<'a>],
    wanted: &str,
    is_older: impl Fn(&Member<'a>) -> bool,
) -> Option<Member<'a>> {
    let good =
        || members.iter().filter(|m| !m.is_of(wanted) && !has_failed(m.replica) && is_older(m)).copied();
    let stopped = good().filter(|member| !member.serves()).min_by_key(|m| (m.replica.created_at, m.id));
    stopped.or_else(|| good().filter(Member::serves).max_by_key(|m| (m.replica.created_at, m.id)))
}

/// Records of revisions that were tried and left before the wanted one came: younger than another good one that is not
/// wanted either. Wanting something else forgets them, so that coming back tries afresh.
pub(crate) fn left_behind<'a>(members: &[Member<'a>], wanted: &str) -> Option<Member<'a>> {
    let is_left = |member: &&Member<'a>| {
        !member.serves()
            && !member.is_of(wanted)
            && members.iter().any(|other| {
                !other.is_of(wanted)
                    && !other.is_of(&member.replica.revision)
                    && !has_failed(other.replica)
                    && other.replica.created_at < member.replica.created_at
            })
    };
    members.iter().find(is_left).copied()
}

/// Whether a refusal that ended a swap is worth a second swap: refusal is not failure, but each try costs an
/// interruption, so memory must have come free and some time have passed.
pub(crate) fn is_worth_another_try(snapshot: &Snapshot, record: &Replica) -> bool {
    refusal(record).is_some_and(|refusal| {
        age(snapshot.now, refusal.at) >= REFUSAL_BACKOFF_MAX
            && has_grown(snapshot.nodes.get(&record.node), refusal)
    })
}

/// The refusal of the current attempt, where that is all that stands against it.
pub(crate) fn refusal(replica: &Replica) -> Option<&Refusal> {
    let status = &replica.status;
    status.refusal.as_ref().filter(|_| is_current(replica) && status.failures < CRASH_LOOP_FAILURES)
}

/// Whether a refused replica stops trying for the sake of the older one.
pub(crate) const fn has_tried_enough(replica: &Replica) -> bool {
    replica.attempt >= SWAP_ATTEMPTS_MAX
}

/// Wait after the refusal of an attempt: 30 s, doubled each time, 5 min at most.
pub(crate) fn refusal_backoff(attempt: u32) -> SignedDuration {
    let doublings = attempt.saturating_sub(1).min(REFUSAL_BACKOFF_DOUBLINGS);
    REFUSAL_BACKOFF_MIN.checked_mul(1 << doublings).unwrap_or(REFUSAL_BACKOFF_MAX).min(REFUSAL_BACKOFF_MAX)
}

/// Whether the node can take more than when its agent refused.
pub(crate) fn has_grown(node: Option<&Node>, refusal: &Refusal) -> bool {
    let pools = node.map(|node| node.pools.as_slice()).unwrap_or_default();
    pools.iter().filter(|pool| pool.kind != PoolKind::Host).any(|pool| {
        let step = (pool.total_bytes / ALLOCATABLE_GROWTH_DIVISOR).max(1);
        pool.allocatable_bytes >= refusal.allocatable_bytes.saturating_add(step)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{GIB, at, node, replica, snapshot};

    #[test]
    fn refusals_wait_from_half_a_minute_to_five() {
        let waits: Vec<i64> = [0, 1, 2, 3, 4, 5, 6, u32::MAX].map(|n| refusal_backoff(n).as_secs()).to_vec();
        assert_eq!(waits, [30, 30, 60, 120, 240, 300, 300, 300]);
    }

    #[test]
    fn memory_has_grown_when_it_is_up_by_more_than_goes_unreported() {
        let node = node(&[PoolKind::Unified]);
        for (when_refused_gib, expected) in [(89, true), (90, false), (100, false)] {
            let refusal =
                Refusal { message: "no".into(), at: at(0), allocatable_bytes: when_refused_gib * GIB };
            assert_eq!(has_grown(Some(&node), &refusal), expected, "{when_refused_gib}");
        }
        let refusal = Refusal { message: "no".into(), at: at(0), allocatable_bytes: 0 };
        assert!(!has_grown(None, &refusal));
    }

    #[test]
    fn an_edit_within_the_second_of_creation_has_something_to_return_to() {
        let member = |revision: &str, failures: u32| {
            let mut replica = replica(1, 0);
            (replica.revision, replica.status.failures) = (revision.into(), failures);
            (ReplicaId::new("lab", revision), replica)
        };
        for (failures, expected) in [(1, Some("old")), (0, None)] {
            let made = [member("old", 0), member("wanted", failures)];
            let members: Vec<Member<'_>> = made
                .iter()
                .map(|(id, replica)| Member { id, replica, phase: Phase::Late, is_misplaced: false })
                .collect();
            let fallback = fallback_of(&members, &members[1]);
            assert_eq!(fallback.map(|to| to.replica.revision.as_str()), expected, "{failures} failures");
        }
    }

    /// `(revision, created at, run)` in, the course out: `forward`, or what it returns to.
    fn course_of(records: &[(&str, i64, Run)]) -> String {
        let snapshot = snapshot(&[("spark-1", node(&[PoolKind::Unified]))]);
        let made: Vec<(ReplicaId, Replica)> = records
            .iter()
            .map(|(revision, created_at, run)| {
                let mut replica = replica(1, 0);
                (replica.revision, replica.created_at, replica.run) =
                    ((*revision).into(), at(*created_at), *run);
                (ReplicaId::new("lab", format!("{revision}-{created_at}")), replica)
            })
            .collect();
        let members: Vec<Member<'_>> = made
            .iter()
            .map(|(id, replica)| Member { id, replica, phase: Phase::Loading, is_misplaced: false })
            .collect();
        match course(&snapshot, &members, "wanted") {
            Course::Forward { .. } => "forward".into(),
            Course::Back { to, .. } => to.replica.revision.clone(),
        }
    }

    #[test]
    fn a_stopped_wanted_record_was_given_up_if_an_older_one_is_there() {
        use Run::{Serve, Stop};
        for (records, expected) in [
            (vec![], "forward"),
            (vec![("wanted", 1, Serve)], "forward"),
            (vec![("wanted", 1, Stop)], "forward"),
            (vec![("old", 1, Stop), ("wanted", 2, Serve)], "forward"),
            (vec![("old", 1, Stop), ("wanted", 2, Stop)], "old"),
            (vec![("old", 1, Serve), ("wanted", 2, Stop)], "old"),
            (vec![("wanted", 1, Stop), ("other", 2, Serve)], "forward"),
            (vec![("older", 1, Serve), ("old", 2, Stop), ("wanted", 3, Stop)], "old"),
        ] {
            assert_eq!(course_of(&records), expected, "{records:?}");
        }
    }
}
