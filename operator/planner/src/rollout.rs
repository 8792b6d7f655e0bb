//! Brings one deployment's replicas closer to what is wanted: fills, shrinks, swaps, gives up, tidies.
//!
//! A swap replaces one engine at a time in its own room: the old one stops when the new one's weights are on the node and
//! the new footprint fits in its place, and stays as a record until the new one is ready. `Auto` swaps too, also where another
//! node has room for a second footprint; surging is a later feature, so `Surge`, whose floor is all replicas, waits and
//! says so.

use std::collections::BTreeMap;

use crate::capacity::Bytes;
use crate::course::{
    Course, Member, course, fallback_of, has_grown, has_tried_enough, refusal, refusal_backoff,
};
use crate::pass::{Departure, Pass, wanted_write, written};
use crate::phase::{Phase, deadline_at, phase};
use crate::placement::{Query, Verdict, best, cannot_fetch, matches, replica_id, survey};
use crate::reach::later;
use crate::snapshot::{Deployment, DeploymentSpec, Replica, Run};
use crate::target::Target;
use crate::{Action, DeploymentId, ModelId, NewReplica, NodeName, Reason, ReplicaId};

/// What a deployment waits for, and each node's say in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wait {
    /// No node takes it.
    Unplaced { verdicts: BTreeMap<NodeName, Verdict>, swap: bool },
    /// It will be placed when something that is under way is done.
    Room { verdicts: BTreeMap<NodeName, Verdict> },
    /// The next engine's weights are not yet where it is to run.
    WeightsFor { node: NodeName },
    /// One more replica taken out would leave fewer than promised.
    Floor { ready: u32, min_available: u32 },
}

/// One deployment in one pass.
pub(crate) struct Rollout<'p, 'a> {
    pub(crate) pass: &'p mut Pass<'a>,
    pub(crate) id: &'a DeploymentId,
    pub(crate) deployment: &'a Deployment,
    pub(crate) spec: &'a DeploymentSpec,
    /// What is wanted; a record's settings while the spec's own cannot be resolved.
    pub(crate) wanted: &'p Target<'a>,
    /// Whether `wanted` is what the spec asks for.
    pub(crate) is_resolved: bool,
    pub(crate) members: Vec<Member<'a>>,
    pub(crate) course: Course<'a>,
    /// Replicas that will serve after this pass, where they may.
    pub(crate) serving_count: u32,
    pub(crate) wait: Option<Wait>,
}

/// The live replicas of a deployment.
pub(crate) fn members<'a>(
    pass: &Pass<'a>,
    id: &DeploymentId,
    spec: Option<&DeploymentSpec>,
) -> Vec<Member<'a>> {
    let snapshot = pass.snapshot;
    let deadline = spec.and_then(|spec| spec.rollout.progress_deadline);
    let is_misplaced = |replica: &Replica| {
        let node = snapshot.nodes.get(&replica.node);
        node.is_some_and(|node| {
            node.drain || spec.is_some_and(|spec| !matches(&spec.placement, &replica.node, node))
        })
    };
    pass.census
        .of(id)
        .filter(|(_, replica)| !replica.deleting && !pass.reach.is_lost(snapshot, replica))
        .map(|(id, replica)| Member {
            id,
            replica,
            phase: phase(snapshot, &pass.reach, replica, deadline),
            is_misplaced: replica.run == Run::Serve && is_misplaced(replica),
        })
        .collect()
}

/// Decides for one deployment, and says what it waits for.
pub(crate) fn run<'a>(
    pass: &mut Pass<'a>,
    (id, deployment, spec): (&'a DeploymentId, &'a Deployment, &'a DeploymentSpec),
    wanted: &Target<'a>,
    is_resolved: bool,
) -> Option<Wait> {
    let members = members(pass, id, Some(spec));
    let course = course(pass.snapshot, &members, &wanted.revision);
    let serving_count = count(members.iter().filter(|member| member.serves() && !member.is_misplaced));
    let mut rollout = Rollout {
        pass,
        id,
        deployment,
        spec,
        wanted,
        is_resolved,
        members,
        course,
        serving_count,
        wait: None,
    };
    rollout.watch_deadlines();
    rollout.give_up();
    rollout.retry_refused();
    rollout.fill();
    rollout.shrink();
    rollout.tidy();
    rollout.swap();
    rollout.keep_weights();
    rollout.settle();
    rollout.wait
}

pub(crate) fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

impl<'a> Rollout<'_, 'a> {
    fn watch_deadlines(&mut self) {
        for member in self.members.iter().filter(|member| member.serves()) {
            if let Some(at) = deadline_at(member.replica, self.spec.rollout.progress_deadline) {
                self.pass.recheck(at);
            }
        }
    }

    /// Stops what has failed, where there is something better to do with its place: an older revision to return to, or
    /// another node to try.
    fn give_up(&mut self) {
        for member in self.members.clone().iter().filter(|member| member.serves()) {
            let moves = || {
                (matches!(member.phase, Phase::CrashLooping | Phase::Refused) || self.cannot_fetch(member))
                    && !self.has_fallback()
                    && member.is_of(&self.active().revision)
                    && self.can_start_elsewhere()
            };
            if (self.yields(member) || moves())
                && self.pass.take_down(member.id, member.replica, Departure::Stop)
            {
                return;
            }
        }
    }

    fn cannot_fetch(&self, member: &Member<'a>) -> bool {
        let model = ModelId::new(self.id.namespace(), &member.replica.model.name);
        member.phase == Phase::Fetching
            && self
                .pass
                .snapshot
                .models
                .get(&model)
                .is_some_and(|model| cannot_fetch(model, &member.replica.node).is_some())
    }

    /// Whether a replica of the wanted revision has failed and an older revision is there to return to.
    fn yields(&self, member: &Member<'a>) -> bool {
        let hopeless = match member.phase {
            Phase::CrashLooping | Phase::Late => true,
            Phase::Refused => has_tried_enough(member.replica),
            _ => false,
        };
        hopeless && member.is_of(&self.wanted.revision) && fallback_of(&self.members, member).is_some()
    }

    fn has_fallback(&self) -> bool {
        matches!(self.course, Course::Forward { fallback: Some(_) })
    }

    /// Whether a further replica of the active revision could start on some node now.
    fn can_start_elsewhere(&self) -> bool {
        let active = self.active();
        let query = self.query(&active, false, None);
        survey(self.pass, &query).values().any(|verdict| matches!(verdict, Verdict::Fits { .. }))
    }

    /// What new replicas run: the wanted revision, or after a failure the good record's.
    fn active(&self) -> Target<'a> {
        match self.course {
            Course::Forward { .. } => self.wanted.clone(),
            Course::Back { to, .. } => Target::of_record(self.pass.snapshot, self.id.namespace(), to.replica),
        }
    }

    pub(crate) fn query<'q>(
        &'q self,
        target: &'q Target<'a>,
        try_failed: bool,
        instead_of: Option<(&'q NodeName, Bytes)>,
    ) -> Query<'q, 'a> {
        let uid = &self.deployment.uid;
        Query { id: self.id, uid, placement: &self.spec.placement, target, try_failed, instead_of }
    }

    /// Tries refused replicas again, after a while or when their node can take more.
    fn retry_refused(&mut self) {
        let refused: Vec<Member<'a>> =
            self.members.iter().filter(|member| member.phase == Phase::Refused).copied().collect();
        for member in refused.into_iter().filter(|member| !self.yields(member)).collect::<Vec<_>>() {
            let Some(refusal) = refusal(member.replica) else { continue };
            let due = later(refusal.at, refusal_backoff(member.replica.attempt));
            self.pass.recheck(due);
            let grown = has_grown(self.pass.snapshot.nodes.get(&member.replica.node), refusal);
            if self.pass.snapshot.now >= due || grown {
                self.serve_again(member.id, member.replica);
            }
        }
    }

    /// A new attempt of an existing replica.
    fn serve_again(&mut self, id: &ReplicaId, replica: &Replica) {
        if !self.pass.may_act_for(self.id) || self.pass.decisions.is_decided(id) {
            return;
        }
        let attempt = replica.attempt.saturating_add(1);
        let write = wanted_write(self.pass.snapshot, self.spec, Run::Serve, attempt);
        let action = Action::UpdateReplica {
            id: id.clone(),
            uid: replica.uid.clone(),
            deployment: self.id.clone(),
            write,
        };
        self.pass.decisions.replica(id.clone(), action);
    }

    /// Starts replicas until as many serve as are wanted or no node takes another.
    fn fill(&mut self) {
        while self.serving_count < self.spec.replicas && self.fill_one() {
            self.serving_count += 1;
        }
    }

    fn fill_one(&mut self) -> bool {
        let active = self.active();
        let verdicts = survey(self.pass, &self.query(&active, false, None));
        if self.start(&active, &verdicts, false) {
            return true;
        }
        if verdicts.values().any(Verdict::is_passing) {
            self.wait = Some(Wait::Room { verdicts });
            return false;
        }
        let retried = survey(self.pass, &self.query(&active, true, None));
        if !self.has_fallback() && self.start(&active, &retried, true) {
            return true;
        }
        self.wait = Some(Wait::Unplaced { verdicts, swap: false });
        let Course::Forward { fallback: Some(old) } = self.course else { return false };
        let old = Target::of_record(self.pass.snapshot, self.id.namespace(), old.replica);
        let verdicts = survey(self.pass, &self.query(&old, false, None));
        self.start(&old, &verdicts, false)
    }

    /// Starts one replica of `target` on the best node: its record there again, or a new one.
    fn start(
        &mut self,
        target: &Target<'a>,
        verdicts: &BTreeMap<NodeName, Verdict>,
        try_failed: bool,
    ) -> bool {
        let query = self.query(target, try_failed, None);
        let Some((node, footprint)) = best(self.pass, &query, verdicts) else { return false };
        let id = replica_id(&query, &node);
        let record = self.pass.snapshot.replicas.get(&id);
        self.pass.ledger.promise(&node, self.id, &id, Bytes::of(&footprint));
        self.pass.decisions.book(id.clone());
        if !self.pass.may_act_for(self.id) {
            return true;
        }
        if let Some(record) = record {
            self.serve_again(&id, record);
            return true;
        }
        let replica = NewReplica {
            id: id.clone(),
            deployment: self.id.clone(),
            deployment_uid: self.deployment.uid.clone(),
            node,
            revision: target.revision.clone(),
            model: target.model.clone(),
            serving: target.serving.clone(),
            footprint,
            write: wanted_write(self.pass.snapshot, self.spec, Run::Serve, 1),
        };
        self.pass.decisions.replica(id, Action::CreateReplica(Box::new(replica)));
        true
    }

    /// Takes one replica too many out: one that does not work before one that does, an old revision before a new one,
    /// the youngest first. Scaling a deployment to 0 that is on its way back keeps its good record. One that serves where
    /// it no longer may goes when enough others are ready.
    fn shrink(&mut self) {
        let (misplaced, serving): (Vec<Member<'a>>, Vec<Member<'a>>) =
            self.members.iter().filter(|member| member.serves()).partition(|member| member.is_misplaced);
        if count(serving.iter()) <= self.spec.replicas {
            let ready = count(serving.iter().filter(|member| member.phase == Phase::Ready));
            if let Some(left) = misplaced.first().filter(|_| ready >= self.spec.replicas) {
                self.pass.take_down(left.id, left.replica, Departure::Delete(Reason::Draining));
            }
            return;
        }
        let active = self.active().revision;
        let worth = |member: &Member<'a>| {
            (
                member.phase == Phase::Ready,
                member.is_of(&active),
                std::cmp::Reverse(member.replica.created_at),
            )
        };
        let Some(victim) = serving.into_iter().min_by(|left, right| {
            worth(left).cmp(&worth(right)).then_with(|| right.replica.node.cmp(&left.replica.node))
        }) else {
            return;
        };
        let is_last_good = matches!(self.course, Course::Back { .. })
            && victim.is_of(&active)
            && self.members.iter().filter(|member| member.is_of(&active)).count() == 1;
        let departure = if is_last_good { Departure::Stop } else { Departure::Delete(Reason::Draining) };
        self.pass.take_down(victim.id, victim.replica, departure);
    }

    /// Brings what may change without a new engine up to the spec: keys, names, drain time.
    fn settle(&mut self) {
        if !self.pass.may_act_for(self.id) {
            return;
        }
        let serving: Vec<Member<'a>> =
            self.members.iter().filter(|member| member.serves()).copied().collect();
        for Member { id, replica, .. } in serving {
            let write = wanted_write(self.pass.snapshot, self.spec, Run::Serve, replica.attempt);
            if write != written(replica) && !self.pass.decisions.is_decided(id) {
                let action = Action::UpdateReplica {
                    id: id.clone(),
                    uid: replica.uid.clone(),
                    deployment: self.id.clone(),
                    write,
                };
                self.pass.decisions.replica(id.clone(), action);
            }
        }
    }
}
