use crate::capacity::Bytes;
use crate::course::{Course, Member, left_behind};
use crate::pass::{Departure, Pass};
use crate::phase::{Phase, has_failed, is_released};
use crate::placement::{best, survey};
use crate::rollout::{Rollout, Wait, count};
use crate::snapshot::{Rollout as RolloutSpec, Strategy};
use crate::target::Target;
use crate::{DeploymentId, NodeName, Reason};

impl<'a> Rollout<'_, 'a> {
    /// Opens the next swap, when nothing else of this deployment is on its way.
    pub(crate) fn swap(&mut self) {
        let Course::Forward { .. } = self.course else { return };
        let wanted = &self.wanted.revision;
        let in_progress =
            |member: &Member<'a>| member.serves() && member.is_of(wanted) && member.phase != Phase::Ready;
        let all_taken = self.serving_count == self.spec.replicas && self.has_started_none();
        if !self.is_resolved || !all_taken || self.members.iter().any(in_progress) {
            return;
        }
        let mut old: Vec<Member<'a>> = self
            .members
            .iter()
            .filter(|m| m.serves() && !m.is_of(wanted) && !m.is_misplaced && m.phase != Phase::Unheard)
            .copied()
            .collect();
        // Those that do not answer cost nothing to replace.
        old.sort_by_key(|member| (member.phase == Phase::Ready, &member.replica.node));
        let mut unplaced = None;
        for member in old {
            let instead_of = Some((&member.replica.node, Bytes::of(&member.replica.footprint)));
            let query = self.query(self.wanted, false, instead_of);
            let verdicts = survey(self.pass, &query);
            match best(self.pass, &query, &verdicts) {
                Some((node, footprint)) => return self.replace(member, &node, Bytes::of(&footprint)),
                None => unplaced = unplaced.or(Some(Wait::Unplaced { verdicts, swap: true })),
            }
        }
        if unplaced.is_some() {
            self.wait = unplaced;
        }
    }

    fn has_started_none(&self) -> bool {
        count(self.members.iter().filter(|m| m.serves() && !m.is_misplaced)) == self.serving_count
    }

    /// One step of replacing `old`: weights first, then its endpoint, then its engine.
    fn replace(&mut self, old: Member<'a>, node: &NodeName, new: Bytes) {
        if !self.wanted.has_weights_on(node) {
            self.pass.fetch_to.entry(self.wanted.model_id.clone()).or_default().insert(node.clone());
            self.wait = Some(Wait::WeightsFor { node: node.clone() });
            return;
        }
        let ready = count(self.members.iter().filter(|member| member.phase == Phase::Ready));
        let min_available = min_available(&self.spec.rollout, self.spec.replicas);
        if old.phase == Phase::Ready && ready.saturating_sub(1) < min_available {
            self.wait = Some(Wait::Floor { ready, min_available });
            return;
        }
        let departure =
            if self.is_worth_keeping(&old) { Departure::Stop } else { Departure::Delete(Reason::Swapping) };
        self.pass.take_down(old.id, old.replica, departure);
        if *node == old.replica.node {
            self.pass.ledger.hold(node, self.id, new.minus(Bytes::of(&old.replica.footprint)));
        }
    }

    /// Keeps the wanted weights on the nodes of engines that are to be replaced, from before the old one stops until the
    /// new one is there.
    pub(crate) fn keep_weights(&mut self) {
        if !self.is_resolved || !matches!(self.course, Course::Forward { .. }) {
            return;
        }
        let old = self.members.iter().filter(|member| !member.is_of(&self.wanted.revision));
        let nodes =
            old.map(|member| &member.replica.node).filter(|node| self.wanted.has_weights_on(node)).cloned();
        self.pass.fetch_to.entry(self.wanted.model_id.clone()).or_default().extend(nodes);
    }

    /// Whether a replica that makes room is something to return to: it did not fail, and where it does not answer there is
    /// no other record that did.
    fn is_worth_keeping(&self, old: &Member<'a>) -> bool {
        let is_other_fallback = |member: &Member<'a>| {
            !member.serves() && !member.is_of(&self.wanted.revision) && !has_failed(member.replica)
        };
        !has_failed(old.replica) && (old.phase == Phase::Ready || !self.members.iter().any(is_other_fallback))
    }

    /// Deletes one record that nothing needs any more.
    pub(crate) fn tidy(&mut self) {
        let serving: Vec<&Member<'a>> = self.members.iter().filter(|member| member.serves()).collect();
        let settled = count(serving.iter()) == self.spec.replicas
            && serving.iter().all(|member| member.phase == Phase::Ready && !member.is_misplaced);
        let unneeded = left_behind(&self.members, &self.wanted.revision)
            .filter(|_| matches!(self.course, Course::Forward { .. }))
            .or_else(|| {
                self.members
                    .iter()
                    .find(|member| settled && !member.serves() && !self.is_kept(member))
                    .copied()
            });
        if let Some(record) = unneeded {
            self.pass.take_down(record.id, record.replica, Departure::Delete(Reason::Swapping));
        }
    }

    /// Whether a record outlives the day on which everything serves: after a failure the failed one, and, scaled to 0, the
    /// good one.
    fn is_kept(&self, record: &Member<'a>) -> bool {
        match self.course {
            Course::Forward { .. } => false,
            Course::Back { to, failed } => {
                record.id == failed.id || (self.spec.replicas == 0 && record.id == to.id)
            }
        }
    }
}

/// Ready replicas that a rollout leaves alone (I7).
pub(crate) const fn min_available(rollout: &RolloutSpec, replicas: u32) -> u32 {
    match (rollout.min_available, rollout.strategy) {
        (Some(min_available), _) => min_available,
        (None, Strategy::Surge) => replicas,
        (None, Strategy::Auto | Strategy::Swap) => replicas.saturating_sub(1),
    }
}

/// Keeps what an open swap will need on its node, `max(old, new)`, from everybody else.
pub(crate) fn hold_open_swap<'a>(
    pass: &mut Pass<'a>,
    id: &'a DeploymentId,
    members: &[Member<'a>],
    course: Course<'a>,
    wanted: &Target<'a>,
    replicas: u32,
) {
    let serving = count(members.iter().filter(|member| member.serves()));
    let starts = |member: &&Member<'a>| {
        member.serves() && member.is_of(&wanted.revision) && member.phase != Phase::Ready
    };
    let starting = members.iter().find(starts);
    if replicas == 0 || (serving >= replicas && starting.is_none()) {
        return;
    }
    let record = match course {
        Course::Forward { fallback } => fallback,
        Course::Back { to, .. } => Some(to),
    };
    let Some(old) = record.filter(|member| !member.serves()) else { return };
    let node = &old.replica.node;
    let starts_elsewhere = starting.is_some_and(|member| member.replica.node != *node);
    let is_forward = matches!(course, Course::Forward { .. });
    let platform = pass.snapshot.nodes.get(node).and_then(|node| node.platform.as_ref());
    let new = platform
        .filter(|_| is_forward && !starts_elsewhere)
        .and_then(|platform| wanted.footprint_on(platform).ok())
        .map_or_else(Bytes::default, |footprint| Bytes::of(&footprint));
    let promised = pass
        .census
        .of(id)
        .filter(|(_, replica)| replica.node == *node && !is_released(replica))
        .fold(Bytes::default(), |sum, (_, replica)| sum.plus(Bytes::of(&replica.footprint)));
    pass.ledger.hold(node, id, Bytes::of(&old.replica.footprint).max(new).minus(promised));
}
