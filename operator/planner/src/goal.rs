use crate::course::{Course, Member, course};
use crate::pass::Pass;
use crate::resolve::Catalog;
use crate::rollout::members;
use crate::snapshot::{Deployment, DeploymentSpec, Replica};
use crate::target::{Blocked, Target};
use crate::{DeploymentId, Reason};

/// What a deployment is to be brought to.
#[derive(Debug)]
pub(crate) enum Goal<'a> {
    /// It is being deleted.
    Nothing,
    /// Its spec cannot be read as a wish: what runs goes on.
    Unreadable {
        message: &'a str,
    },
    /// Nothing is known of what to run, and nothing has run.
    Unknown {
        blocked: Blocked,
    },
    Run(Box<Run<'a>>),
}

/// An engine to run, so and so many times.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) spec: &'a DeploymentSpec,
    /// What the spec asks for, or while that cannot be said (`blocked`) what the youngest record runs.
    pub(crate) target: Target<'a>,
    pub(crate) blocked: Option<Blocked>,
}

pub(crate) fn goal<'a>(
    pass: &Pass<'a>,
    catalog: &Catalog<'a>,
    id: &'a DeploymentId,
    deployment: &'a Deployment,
) -> Goal<'a> {
    if deployment.deleting {
        return Goal::Nothing;
    }
    let spec = match &deployment.spec {
        Ok(spec) => spec,
        Err(message) => return Goal::Unreadable { message },
    };
    let records: Vec<&Replica> =
        pass.census.of(id).map(|(_, replica)| replica).filter(|replica| !replica.deleting).collect();
    let wanted = match catalog.of(id.namespace(), &spec.model) {
        Some(model) => Target::of_spec(pass.snapshot, id, spec, model, &records),
        None => Err(Blocked {
            reason: Reason::Resolving,
            message: format!("{} is about to be resolved", spec.model),
        }),
    };
    match wanted {
        Ok(target) => Goal::Run(Box::new(Run { spec, target, blocked: None })),
        Err(blocked) => match records.iter().max_by_key(|record| (record.created_at, &record.uid)) {
            Some(youngest) => {
                let target = Target::of_record(pass.snapshot, id.namespace(), youngest);
                Goal::Run(Box::new(Run { spec, target, blocked: Some(blocked) }))
            }
            None => Goal::Unknown { blocked },
        },
    }
}

impl<'a> Run<'a> {
    /// The live replicas, and where they are heading.
    pub(crate) fn course(&self, pass: &Pass<'a>, id: &DeploymentId) -> (Vec<Member<'a>>, Course<'a>) {
        let members = members(pass, id, Some(self.spec));
        let course = course(pass.snapshot, &members, &self.target.revision);
        (members, course)
    }
}
