use std::collections::BTreeMap;

use crate::action::Plan;
use crate::goal::{Goal, goal};
use crate::pass::{Departure, Pass};
use crate::resolve::Catalog;
use crate::rollout::{self, Wait};
use crate::snapshot::Snapshot;
use crate::swap::hold_open_swap;
use crate::{DeploymentId, Reason, endpoints, heal, resolve, summary};

/// What to do next, for all deployments at once.
///
/// Total: any snapshot gives a plan. Planning again what a plan has led to changes nothing. Deployments are served in the
/// order of their names, after what open swaps need has been set aside.
pub fn plan(snapshot: &Snapshot) -> Plan {
    let mut pass = Pass::new(snapshot);
    let catalog = Catalog::new(snapshot);
    let goals: BTreeMap<&DeploymentId, Goal<'_>> = snapshot
        .deployments
        .iter()
        .map(|(id, deployment)| (id, goal(&pass, &catalog, id, deployment)))
        .collect();
    for (id, goal) in &goals {
        if let Goal::Run(run) = goal {
            let (members, course) = run.course(&pass, id);
            hold_open_swap(&mut pass, id, &members, course, &run.target, run.spec.replicas);
        }
    }
    heal::run(&mut pass);
    let waits = roll_out(&mut pass, &goals);
    resolve::run(&mut pass, &catalog);
    endpoints::run(&mut pass);
    let report = snapshot
        .deployments
        .iter()
        .filter_map(|(id, deployment)| {
            let report = summary::report(&pass, (id, deployment), goals.get(id)?, waits.get(id));
            Some((id.clone(), report))
        })
        .collect();
    Plan {
        reachable: pass.reach.reachable(),
        recheck_at: pass.recheck_at,
        report,
        actions: pass.decisions.into_actions(),
    }
}

fn roll_out<'a>(
    pass: &mut Pass<'a>,
    goals: &BTreeMap<&'a DeploymentId, Goal<'a>>,
) -> BTreeMap<&'a DeploymentId, Wait> {
    let mut waits = BTreeMap::new();
    for (id, goal) in goals {
        match goal {
            Goal::Run(run) => {
                let Some(deployment) = pass.snapshot.deployments.get(*id) else { continue };
                let wait = rollout::run(pass, (id, deployment, run.spec), &run.target, run.blocked.is_none());
                if let Some(wait) = wait {
                    waits.insert(*id, wait);
                }
            }
            Goal::Nothing => empty(pass, id),
            Goal::Unreadable { .. } | Goal::Unknown { .. } => {}
        }
    }
    waits
}

/// Takes down the replicas of a deployment that is being deleted.
fn empty(pass: &mut Pass<'_>, id: &DeploymentId) {
    let owned: Vec<_> = pass.census.of(id).filter(|(_, replica)| !replica.deleting).collect();
    for (id, replica) in owned {
        pass.take_down(id, replica, Departure::Delete(Reason::Draining));
    }
}
