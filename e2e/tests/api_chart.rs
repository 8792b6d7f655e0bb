//! The chart on a real API server: its definitions and policies compile there, and what people made survives it.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::chart::Helm;
use e2e::cluster::Cluster;
use e2e::toolchain::Toolchain;
use e2e::wait;
use serde_json::json;

const DEADLINE: Duration = Duration::from_mins(2);
const KINDS: [&str; 4] = ["modeldeployments", "modelreplicas", "models", "sparknodes"];

const DEPLOYMENT: &str = "
apiVersion: sparkherd.dev/v1alpha1
kind: ModelDeployment
metadata: {name: coder, namespace: default}
spec: {model: \"hf://openai/gpt-oss-20b\"}
";

#[tokio::test]
async fn objects_outlive_the_release_and_are_there_after_the_next() -> Result<()> {
    let say = |line: &str| println!("{line}");
    let cluster = Cluster::start(Toolchain::prepare_kubernetes(&say)?, &say).await?;
    let (helm, kubectl) = (Helm::new(&cluster), cluster.kubectl());
    helm.install(&json!({}))?;
    for kind in KINDS {
        wait::until_true(kind, DEADLINE, async || {
            let condition = "{.status.conditions[?(@.type=='Established')].status}";
            let crd = format!("get crd {kind}.sparkherd.dev --output=jsonpath={condition}");
            let established = kubectl.run(&crd)?;
            Ok((established == "True", format!("established: {established:?}")))
        })
        .await?;
    }
    let applied = kubectl.apply(DEPLOYMENT)?;
    ensure!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let key =
        kubectl.run("get secret sparkherd-key --namespace=sparkherd-system --output=jsonpath={.data.key}")?;

    helm.uninstall()?;
    assert_eq!(
        kubectl.run("get smd --namespace=default --output=name")?.trim(),
        "modeldeployment.sparkherd.dev/coder"
    );
    assert!(
        kubectl
            .refused("get deployment sparkherd-operator --namespace=sparkherd-system")?
            .contains("not found")
    );

    helm.install(&json!({}))?;
    assert_eq!(
        kubectl.run("get smd --namespace=default --output=name")?.trim(),
        "modeldeployment.sparkherd.dev/coder"
    );
    let key_after =
        kubectl.run("get secret sparkherd-key --namespace=sparkherd-system --output=jsonpath={.data.key}")?;
    assert_eq!(key, key_after, "people's key changed with a reinstallation");
    policies_compile(&cluster).await
}

/// The API server checks the expressions of a policy against the schemas and writes down what it dislikes.
async fn policies_compile(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    wait::until_true("the policies to be checked", DEADLINE, async || {
        let listed = kubectl.run("get validatingadmissionpolicy --output=json")?;
        let listed: serde_json::Value = serde_json::from_str(&listed)?;
        let policies = listed["items"].as_array().map_or(&[][..], Vec::as_slice);
        let is_checked = |policy: &serde_json::Value| policy["status"]["observedGeneration"].is_number();
        let warnings: Vec<String> =
            policies.iter().map(|policy| policy["status"]["typeChecking"].to_string()).collect();
        let all = !policies.is_empty() && policies.iter().all(is_checked);
        Ok((all && warnings.iter().all(|text| text == "{}" || text == "null"), warnings.join("\n")))
    })
    .await
}
