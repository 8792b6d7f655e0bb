//! What is said of a deployment: one finding, the most important thing it waits for, and the conditions that follow from
//! it.

use std::collections::{BTreeMap, BTreeSet};

use crate::course::{Course, Member};
use crate::finding::{Finding, Kind, find};
use crate::goal::{Goal, Run};
use crate::message::weights_progress;
use crate::pass::Pass;
use crate::phase::Phase;
use crate::report::{Condition, ConditionStatus, ConditionType, Report, Resolved};
use crate::rollout::{Wait, count, members};
use crate::snapshot::{Deployment, ServiceState};
use crate::swap::min_available;
use crate::target::Target;
use crate::{DeploymentId, NodeName, Reason};

/// Nodes listed in a status.
const NODES_MAX: usize = 64;

/// What the parts of a report are made from.
pub(crate) struct View<'v, 'a> {
    pub(crate) pass: &'v Pass<'a>,
    pub(crate) id: &'v DeploymentId,
    pub(crate) deployment: &'v Deployment,
    pub(crate) goal: &'v Goal<'a>,
    pub(crate) wait: Option<&'v Wait>,
    pub(crate) members: Vec<Member<'a>>,
    pub(crate) course: Option<Course<'a>>,
}

pub(crate) fn report<'a>(
    pass: &Pass<'a>,
    (id, deployment): (&'a DeploymentId, &'a Deployment),
    goal: &Goal<'a>,
    wait: Option<&Wait>,
) -> Report {
    let (members, course) = match goal {
        Goal::Run(run) => {
            let (members, course) = run.course(pass, id);
            (members, Some(course))
        }
        _ => (members(pass, id, None), None),
    };
    let view = View { pass, id, deployment, goal, wait, members, course };
    let finding = find(&view);
    let serving = || view.serving();
    let nodes: BTreeSet<&NodeName> = serving().map(|member| &member.replica.node).collect();
    Report {
        observed_generation: deployment.generation,
        conditions: view.conditions(&finding),
        replicas: count(serving()),
        ready_replicas: view.ready_count(),
        updated_replicas: count(serving().filter(|member| view.is_updated(member))),
        nodes: nodes.into_iter().take(NODES_MAX).cloned().collect(),
        resolved: view.resolved(),
    }
}

impl<'v, 'a> View<'v, 'a> {
    pub(crate) fn run(&self) -> Option<&'v Run<'a>> {
        match self.goal {
            Goal::Run(run) => Some(run),
            Goal::Nothing | Goal::Unreadable { .. } | Goal::Unknown { .. } => None,
        }
    }

    pub(crate) fn serving(&self) -> impl Iterator<Item = &Member<'a>> {
        self.members.iter().filter(|member| member.serves())
    }

    pub(crate) fn ready_count(&self) -> u32 {
        count(self.members.iter().filter(|member| member.phase == Phase::Ready))
    }

    /// Replicas asked for; of a spec that cannot be read, those that run.
    pub(crate) fn replicas(&self) -> u32 {
        self.deployment.spec.as_ref().map_or_else(|_| count(self.serving()), |spec| spec.replicas)
    }

    /// Whether a replica runs what the spec asks for, as far as that is known.
    pub(crate) fn is_updated(&self, member: &Member<'a>) -> bool {
        self.run().is_some_and(|run| run.blocked.is_none() && member.is_of(&run.target.revision))
    }

    fn conditions(&self, finding: &Finding) -> BTreeMap<ConditionType, Condition> {
        BTreeMap::from([
            (ConditionType::Ready, self.ready(finding)),
            (ConditionType::Placed, self.placed(finding)),
            (ConditionType::WeightsReady, self.weights_ready()),
            (ConditionType::Progressing, finding.condition(finding.kind == Kind::Working)),
            (ConditionType::Degraded, self.degraded(finding)),
        ])
    }

    /// Answers requests: with as many replicas as a rollout must leave, and at least one.
    fn ready(&self, finding: &Finding) -> Condition {
        let (ready, replicas) = (self.ready_count(), self.replicas());
        let floor = self.deployment.spec.as_ref().map_or(1, |spec| min_available(&spec.rollout, replicas));
        let is_routed = self.deployment.service != ServiceState::Foreign && !self.deployment.deleting;
        if self.pass.reach.most_stale() && self.serving().any(|member| member.phase == Phase::Unheard) {
            return Condition { status: ConditionStatus::Unknown, ..finding.condition(false) };
        }
        if replicas == 0 || !is_routed || ready < floor.max(1) {
            return finding.condition(false);
        }
        let counted = format!("{ready} of {replicas} replicas ready");
        let (reason, message) = match finding.kind {
            Kind::Done => (Reason::Serving, counted),
            Kind::Working => (Reason::Serving, format!("{counted}; {}", finding.message)),
            Kind::Stuck | Kind::Broken => (finding.reason, format!("{counted}; {}", finding.message)),
        };
        Condition { status: ConditionStatus::True, reason, message }
    }

    fn placed(&self, finding: &Finding) -> Condition {
        let placed = count(self.serving());
        if self.replicas() == 0 || placed < self.replicas() {
            return finding.condition(false);
        }
        let nodes: BTreeSet<&str> = self.serving().map(|member| member.replica.node.as_str()).collect();
        let message = format!("on {}", nodes.into_iter().take(NODES_MAX).collect::<Vec<_>>().join(", "));
        Condition { status: ConditionStatus::True, reason: Reason::Serving, message }
    }

    fn weights_ready(&self) -> Condition {
        let condition = |status, reason, message| Condition { status, reason, message };
        let Some(run) = self.run() else {
            return match self.goal {
                Goal::Unknown { blocked } => {
                    condition(ConditionStatus::False, blocked.reason, blocked.message.clone())
                }
                _ => condition(ConditionStatus::Unknown, Reason::Draining, "nothing is wanted".to_owned()),
            };
        };
        if let Some(blocked) = &run.blocked {
            return condition(ConditionStatus::False, blocked.reason, blocked.message.clone());
        }
        let waited_for = match self.wait {
            Some(Wait::WeightsFor { node }) => Some(node),
            _ => None,
        };
        let fetching =
            self.serving().filter(|member| member.phase == Phase::Fetching).map(|m| &m.replica.node);
        let unheard = self.serving().find(|member| !self.pass.reach.is_reachable(&member.replica.node));
        match waited_for.into_iter().chain(fetching).next() {
            None if unheard.is_some() => {
                let nodes: Vec<&str> = unheard.iter().map(|member| member.replica.node.as_str()).collect();
                let message = format!("{} does not answer", nodes.join(", "));
                condition(ConditionStatus::Unknown, Reason::NodeUnreachable, message)
            }
            Some(node) => {
                let (reason, message) = weights_progress(&run.target, node);
                condition(ConditionStatus::False, reason, message)
            }
            None if count(self.serving()) == 0 => {
                let message = "no node needs them yet".to_owned();
                condition(ConditionStatus::Unknown, Reason::Placing, message)
            }
            None => {
                condition(ConditionStatus::True, Reason::Serving, "on every node that needs them".to_owned())
            }
        }
    }

    /// Something is wrong that will not mend by waiting, or fewer serve than are wanted and nothing can be done.
    fn degraded(&self, finding: &Finding) -> Condition {
        let is_degraded = match finding.kind {
            Kind::Broken => true,
            Kind::Stuck => self.ready_count() < self.replicas(),
            Kind::Working | Kind::Done => false,
        };
        if is_degraded {
            return finding.condition(true);
        }
        let message = "nothing has failed".to_owned();
        Condition { status: ConditionStatus::False, reason: finding.reason, message }
    }

    fn resolved(&self) -> Option<Resolved> {
        let run = self.run().filter(|run| run.blocked.is_none())?;
        let record = match self.course {
            Some(Course::Back { to, .. }) => Some(to.replica),
            _ => {
                self.members.iter().map(|m| m.replica).find(|replica| replica.revision == run.target.revision)
            }
        };
        let returned =
            record.map(|record| Target::of_record(self.pass.snapshot, self.id.namespace(), record));
        let target = returned.as_ref().unwrap_or(&run.target);
        let footprint = match record {
            Some(record) => record.footprint,
            None => self
                .pass
                .snapshot
                .nodes
                .values()
                .filter_map(|node| node.platform.as_ref())
                .find_map(|platform| target.footprint_on(platform).ok())?,
        };
        Some(Resolved {
            weights_revision: target.model.revision.clone(),
            digest: target.model.digest.clone(),
            facts: target.facts()?.clone(),
            serving: target.serving.clone(),
            footprint,
        })
    }
}
