use crate::pass::{Pass, is_published};
use crate::phase::{Phase, is_current, is_true, is_word_of_living_agent, phase};
use crate::snapshot::{Deployment, Replica, Run, ServiceState};
use crate::{Action, DeploymentId, ReplicaId};

/// Publishes what answers and withdraws what does not (I6), and keeps Services as the specs want them.
pub(crate) fn run(pass: &mut Pass<'_>) {
    for (id, deployment) in &pass.snapshot.deployments {
        ensure_service(pass, id, deployment);
    }
    for (id, replica) in &pass.snapshot.replicas {
        let deployment = DeploymentId::new(id.namespace(), &replica.deployment);
        if pass.may_act_for(&deployment) {
            set_endpoint(pass, id, replica, &deployment);
        }
    }
}

fn ensure_service(pass: &mut Pass<'_>, id: &DeploymentId, deployment: &Deployment) {
    let Ok(spec) = &deployment.spec else { return };
    if deployment.deleting || !pass.may_act_for(id) {
        return;
    }
    let is_missing = match deployment.service {
        ServiceState::Absent => true,
        ServiceState::Ours { expose } => expose != spec.expose,
        ServiceState::Foreign => false,
    };
    if is_missing {
        let uid = deployment.uid.clone();
        pass.decisions.other(Action::EnsureService { deployment: id.clone(), uid, expose: spec.expose });
    }
}

fn set_endpoint(pass: &mut Pass<'_>, id: &ReplicaId, replica: &Replica, deployment: &DeploymentId) {
    let action = |address, port, ready| Action::SetEndpoint {
        replica: id.clone(),
        uid: replica.uid.clone(),
        deployment: deployment.clone(),
        node: replica.node.clone(),
        address,
        port,
        ready,
    };
    let withdrawn = pass.decisions.withdrawn.contains(id);
    if !withdrawn && may_be_published(pass, replica, deployment) {
        let address = pass.snapshot.nodes.get(&replica.node).and_then(|node| node.address);
        let (Some(address), Some(port)) = (address, replica.status.endpoint_port) else { return };
        let as_it_is = replica.endpoint.as_ref().is_some_and(|endpoint| {
            endpoint.ready && endpoint.address == Some(address) && endpoint.port == port
        });
        if !as_it_is && !pass.decisions.is_decided(id) && !pass.decisions.going.contains(id) {
            pass.decisions.replica(id.clone(), action(address, port, true));
        }
    } else if (withdrawn || !is_kept(pass, replica, deployment)) && is_published(replica) {
        let Some(endpoint) = &replica.endpoint else { return };
        let Some(address) = endpoint.address else { return };
        pass.decisions.replica(id.clone(), action(address, endpoint.port, false));
    }
}

/// Whether it belongs behind its deployment's Service now.
fn may_be_published(pass: &Pass<'_>, replica: &Replica, deployment: &DeploymentId) -> bool {
    may_be_routed_to(pass, replica, deployment)
        && phase(pass.snapshot, &pass.reach, replica, None) == Phase::Ready
}

fn may_be_routed_to(pass: &Pass<'_>, replica: &Replica, deployment: &DeploymentId) -> bool {
    pass.snapshot.deployments.get(deployment).is_some_and(|owner| {
        !owner.deleting
            && owner.service != ServiceState::Foreign
            && replica.owner_uid.as_ref() == Some(&owner.uid)
    })
}

/// Whether a published endpoint stays though its node is silent: most nodes fell silent at once, so it is rather we who
/// hear nothing.
fn is_kept(pass: &Pass<'_>, replica: &Replica, deployment: &DeploymentId) -> bool {
    pass.reach.most_stale()
        && !pass.reach.is_reachable(&replica.node)
        && may_be_routed_to(pass, replica, deployment)
        && !replica.deleting
        && replica.run == Run::Serve
        && is_current(replica)
        && is_true(replica.status.ready.as_ref())
        && is_word_of_living_agent(pass.snapshot, replica)
}
