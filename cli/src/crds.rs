use std::io::Write as _;

use anyhow::Context as _;
use kube::CustomResourceExt as _;
use sparkherd_crds::{Model, ModelDeployment, ModelReplica, SparkNode};

/// Prints the custom resource definitions as YAML documents.
#[derive(Debug, clap::Args)]
pub(crate) struct CrdsArgs {}

pub(crate) fn run(CrdsArgs {}: &CrdsArgs) -> anyhow::Result<()> {
    for definition in [ModelDeployment::crd(), Model::crd(), ModelReplica::crd(), SparkNode::crd()] {
        let yaml = serde_saphyr::to_string(&definition).context("failed to write a definition as YAML")?;
        writeln!(std::io::stdout(), "---\n{yaml}").context("failed to print")?;
    }
    Ok(())
}
