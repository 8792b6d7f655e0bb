//! Files that are made from the code: the chart's CRDs. They are committed, so that a review sees how the API
//! changes, and compared in the tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use kube::CustomResourceExt;
use sparkherd_crds::{Model, ModelDeployment, ModelReplica, SparkNode};

use crate::checkout;

const FOLDER: &str = "charts/sparkherd/templates/crds";

pub fn run(check: bool) -> Result<()> {
    let root = checkout::root();
    let wanted = crds()?;
    let stale = differences(&root, &wanted)?;
    if check {
        if stale.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = stale.iter().map(|path| path.display().to_string()).collect();
        bail!(
            "not what the code says: {}; run `cargo xtask generate` and commit the result",
            list.join(", ")
        );
    }
    fs::create_dir_all(root.join(FOLDER))?;
    for path in stale {
        match wanted.get(&path) {
            Some(content) => fs::write(root.join(&path), content)?,
            None => fs::remove_file(root.join(&path))?,
        }
        println!("{}", path.display());
    }
    Ok(())
}

/// Path and content of each CRD as a template of the chart.
fn crds() -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    for mut crd in [ModelDeployment::crd(), Model::crd(), ModelReplica::crd(), SparkNode::crd()] {
        // Helm deletes a CRD with its release, and every object of the kind with it, unless told not to.
        let keep = ("helm.sh/resource-policy".to_owned(), "keep".to_owned());
        crd.metadata.annotations = Some([keep].into());
        let yaml = serde_saphyr::to_string(&crd)?;
        let plural = &crd.spec.names.plural;
        ensure!(!yaml.contains("{{"), "the CRD of {plural} holds {{{{, which Helm would read as a template");
        let yaml = yaml.trim_end();
        let content = format!(
            "{{{{- /* Made by `cargo xtask generate` from crds/src: do not edit. */}}}}\n\
             {{{{- if .Values.crds.enabled }}}}\n{yaml}\n{{{{- end }}}}\n"
        );
        files.insert(Path::new(FOLDER).join(format!("{plural}.yaml")), content);
    }
    Ok(files)
}

/// Files that are missing, differ, or lie there without being wanted.
fn differences(root: &Path, wanted: &BTreeMap<PathBuf, String>) -> Result<Vec<PathBuf>> {
    let mut stale = Vec::new();
    for (path, content) in wanted {
        if fs::read_to_string(root.join(path)).ok().as_ref() != Some(content) {
            stale.push(path.clone());
        }
    }
    if let Ok(entries) = fs::read_dir(root.join(FOLDER)) {
        for entry in entries {
            let path = Path::new(FOLDER).join(entry?.file_name());
            if !wanted.contains_key(&path) {
                stale.push(path);
            }
        }
    }
    Ok(stale)
}
