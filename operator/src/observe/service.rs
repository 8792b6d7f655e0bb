use kube::ResourceExt;
use sparkherd_planner::{DeploymentId, Expose, ServiceState};

use crate::world::World;

/// What stands under the name of a deployment's Service.
pub(super) fn state(world: &World, id: &DeploymentId, deployment_uid: &str) -> ServiceState {
    let found = world.services.iter().find(|service| {
        service.namespace().as_deref() == Some(id.namespace()) && service.name_any() == id.name()
    });
    let Some(service) = found else { return ServiceState::Absent };
    if !service.owner_references().iter().any(|owner| owner.uid == deployment_uid) {
        return ServiceState::Foreign;
    }
    let type_ = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    let expose = match type_ {
        Some("NodePort") => Expose::NodePort,
        Some("LoadBalancer") => Expose::LoadBalancer,
        _ => Expose::ClusterIp,
    };
    ServiceState::Ours { expose }
}
