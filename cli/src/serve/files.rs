//! ModelDeployments out of YAML files.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use kube::core::TypeMeta;
use kube::{Resource as _, ResourceExt as _};
use sparkherd_crds::ModelDeployment;

/// Namespace of an object that names none, as kubectl has it.
const DEFAULT_NAMESPACE: &str = "default";

/// Largest YAML file that is read; a deployment has a few hundred bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The files given, and the files of the directories given.
#[derive(Debug)]
pub(super) struct Files {
    paths: Vec<PathBuf>,
}

impl Files {
    pub(super) const fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths }
    }

    /// Everything the files say now.
    pub(super) fn read(&mut self) -> anyhow::Result<Vec<ModelDeployment>> {
        let mut deployments: Vec<ModelDeployment> = Vec::new();
        for path in self.files()? {
            for object in read_file(&path)? {
                let twin = deployments.iter().any(|other| {
                    other.namespace() == object.namespace() && other.name_any() == object.name_any()
                });
                ensure!(!twin, "{}: {} is defined twice", path.display(), object.name_any());
                for name in names(&object) {
                    let taken = deployments.iter().find(|other| names(other).contains(&name));
                    ensure!(
                        taken.is_none(),
                        "{}: clients could not tell two models by the served name {name:?}",
                        path.display()
                    );
                }
                deployments.push(object);
            }
        }
        Ok(deployments)
    }

    fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for path in &self.paths {
            if !path.is_dir() {
                files.push(path.clone());
                continue;
            }
            let entries = std::fs::read_dir(path)
                .with_context(|| format!("cannot read directory {}", path.display()))?;
            let mut inside: Vec<_> = entries
                .filter_map(Result::ok)
                .map(|entry| entry.path())
                .filter(|path| is_yaml(path))
                .collect();
            inside.sort();
            files.extend(inside);
        }
        Ok(files)
    }
}

/// What clients may send as `model`.
fn names(object: &ModelDeployment) -> Vec<String> {
    let names = &object.spec.served_names;
    if names.is_empty() { vec![object.name_any()] } else { names.clone() }
}

fn is_yaml(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn read_file(path: &Path) -> anyhow::Result<Vec<ModelDeployment>> {
    let name = path.display();
    let bytes = std::fs::metadata(path).with_context(|| format!("cannot read {name}"))?.len();
    ensure!(bytes <= FILE_BYTES_MAX, "{name} has {bytes} bytes, more than {FILE_BYTES_MAX}");
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let types: Vec<TypeMeta> =
        serde_saphyr::from_multiple(&text).with_context(|| format!("{name} has no apiVersion and kind"))?;
    for type_ in &types {
        check_kind(type_).with_context(|| format!("in {name}"))?;
    }
    let mut objects: Vec<ModelDeployment> =
        serde_saphyr::from_multiple(&text).with_context(|| format!("{name} is not a ModelDeployment"))?;
    for object in &mut objects {
        ensure!(
            object.metadata.name.as_ref().is_some_and(|name| !name.is_empty()),
            "{name}: metadata.name is missing"
        );
        object.metadata.namespace.get_or_insert_with(|| DEFAULT_NAMESPACE.to_owned());
    }
    Ok(objects)
}

/// Other kinds of the file would be ignored by nobody's wish, so they are refused.
fn check_kind(type_: &TypeMeta) -> anyhow::Result<()> {
    let (kind, version) = (ModelDeployment::kind(&()), ModelDeployment::api_version(&()));
    ensure!(
        type_.kind == kind && type_.api_version == version,
        "apiVersion and kind must be {version} and {kind}, not {} and {}",
        type_.api_version,
        type_.kind
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Vec<ModelDeployment>> {
        let directory = tempfile::tempdir()?;
        std::fs::write(directory.path().join("a.yaml"), text)?;
        std::fs::write(directory.path().join("notes.txt"), "not YAML: [")?;
        Files::new(vec![directory.path().to_owned()]).read()
    }

    const FIVE_LINES: &str = "apiVersion: sparkherd.dev/v1alpha1\nkind: ModelDeployment\nmetadata: {name: ask}\nspec: {model: \"file:///m\"}\n";

    #[test]
    fn five_lines_are_a_deployment_in_the_default_namespace() {
        let objects = read(FIVE_LINES).unwrap();
        assert_eq!(
            (objects.len(), objects[0].namespace().as_deref(), objects[0].spec.replicas),
            (1, Some("default"), 1)
        );
    }

    #[test]
    fn several_documents_are_several_deployments_but_none_twice() {
        let other = FIVE_LINES.replace("ask", "coder");
        assert_eq!(read(&format!("{FIVE_LINES}---\n{other}")).unwrap().len(), 2);
        let error = read(&format!("{FIVE_LINES}---\n{FIVE_LINES}")).unwrap_err();
        assert!(error.to_string().contains("ask is defined twice"), "{error:#}");
    }

    #[test]
    fn one_served_name_for_two_models_is_refused() {
        let other =
            FIVE_LINES.replace("name: ask", "name: coder").replace("{model:", "{servedNames: [ask], model:");
        let error = read(&format!("{FIVE_LINES}---\n{other}")).unwrap_err();
        assert!(error.to_string().contains("served name \"ask\""), "{error:#}");
    }

    #[test]
    fn what_is_no_deployment_is_named() {
        let error = read("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {model: \"file:///m\"}\n")
            .unwrap_err();
        let message = format!("{error:#}");
        assert!(message.contains("a.yaml") && message.contains("not v1 and Pod"), "{message}");
    }
}
