//! The chart, rendered by Helm without a cluster: what it must take, what it must refuse, and what it gives the agent.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use e2e::chart::Helm;
use e2e::toolchain::Toolchain;
use serde_json::{Value, json};

/// With default values, with each way to a GPU, and with values it must not take.
pub fn run() -> Result<()> {
    let toolchain = Toolchain::prepare_kubernetes(&|line| println!("{line}"))?;
    let home = toolchain.target.join("localkube/helm-home");
    let helm = Helm::offline(&toolchain.helm, &home);
    helm.lint(&json!({}))?;
    for (values, expected) in ways_to_a_gpu() {
        helm.lint(&values).with_context(|| format!("with {values}"))?;
        let manifests = helm.template(&values).with_context(|| format!("with {values}"))?;
        let found = GpuAccess::of_agent(&manifests)?;
        ensure!(found == expected, "with {values} the agent gets {found:?}, and should get {expected:?}");
    }
    for refused in [
        json!({"noSuchValue": true}),
        json!({"gpu": {"mode": "privileged"}}),
        json!({"gpu": {"resourceName": "gpu"}}),
        json!({"gpu": {"runtimeClassName": "NVIDIA runtime"}}),
    ] {
        ensure!(
            helm.template(&refused).is_err(),
            "the chart takes {refused}: values.schema.json is too loose"
        );
    }
    Ok(())
}

/// By which the agent's Pod gets at a GPU.
#[derive(Debug, Default, PartialEq)]
struct GpuAccess {
    runtime_class: Option<String>,
    /// Limits of resources other than processors and memory.
    devices: BTreeMap<String, Value>,
    /// What NVIDIA's runtime reads.
    environment: BTreeMap<String, String>,
    /// It must not have: all of the host's devices would be its own, and everything else of the host too.
    privileged: bool,
}

impl GpuAccess {
    fn of_agent(manifests: &str) -> Result<Self> {
        let manifests: Vec<Value> = serde_saphyr::from_multiple(manifests)?;
        let agents = manifests.iter().filter(|manifest| manifest["kind"] == "DaemonSet");
        let pod =
            agents.map(|agent| &agent["spec"]["template"]["spec"]).next().context("there is no DaemonSet")?;
        let containers = pod["containers"].as_array().context("its Pod has no containers")?;
        let mut access =
            Self { runtime_class: pod["runtimeClassName"].as_str().map(str::to_owned), ..Self::default() };
        for container in containers {
            access.privileged |= container["securityContext"]["privileged"] == true;
            let limits = container["resources"]["limits"].as_object().into_iter().flatten();
            let devices = limits.filter(|(name, _)| name.contains('/'));
            access.devices.extend(devices.map(|(name, count)| (name.clone(), count.clone())));
            let variables = container["env"].as_array().into_iter().flatten();
            let pairs = variables.filter_map(|variable| {
                Some((variable["name"].as_str()?.to_owned(), variable["value"].as_str()?.to_owned()))
            });
            access.environment.extend(pairs.filter(|(name, _)| name.starts_with("NVIDIA_")));
        }
        Ok(access)
    }
}

/// Values, and what the agent is to get by them.
fn ways_to_a_gpu() -> [(Value, GpuAccess); 5] {
    let environment = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let capabilities = ("NVIDIA_DRIVER_CAPABILITIES", "compute,utility");
    let runtime = |name: &str| GpuAccess {
        runtime_class: Some(name.to_owned()),
        environment: environment(&[("NVIDIA_VISIBLE_DEVICES", "all"), capabilities]),
        ..GpuAccess::default()
    };
    let plugin = |name: &str| GpuAccess {
        devices: [(name.to_owned(), json!(1))].into(),
        environment: environment(&[capabilities]),
        ..GpuAccess::default()
    };
    [
        (json!({}), GpuAccess::default()),
        (json!({"gpu": {"mode": "runtimeClass"}}), runtime("nvidia")),
        (json!({"gpu": {"mode": "runtimeClass", "runtimeClassName": "nvidia-cdi"}}), runtime("nvidia-cdi")),
        (json!({"gpu": {"mode": "devicePlugin"}}), plugin("nvidia.com/gpu")),
        (
            json!({
                "gpu": {"mode": "devicePlugin", "resourceName": "nvidia.com/gpu.shared"},
                "agent": {"resources": {"limits": {"cpu": "4"}}},
            }),
            plugin("nvidia.com/gpu.shared"),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_pod_is_given() {
        let manifests = "kind: ServiceAccount\n---\nkind: DaemonSet\nspec:\n  template:\n    spec:\n      runtimeClassName: nvidia\n      \
                         containers:\n        - env:\n            - {name: NVIDIA_VISIBLE_DEVICES, value: all}\n            - \
                         {name: NODE_NAME, value: a}\n          resources: {limits: {cpu: 1, nvidia.com/gpu: 2}}\n          \
                         securityContext: {privileged: true}\n";
        let access = GpuAccess::of_agent(manifests).unwrap();
        let expected = GpuAccess {
            runtime_class: Some("nvidia".to_owned()),
            devices: [("nvidia.com/gpu".to_owned(), json!(2))].into(),
            environment: [("NVIDIA_VISIBLE_DEVICES".to_owned(), "all".to_owned())].into(),
            privileged: true,
        };
        assert_eq!(access, expected);
        assert!(GpuAccess::of_agent("kind: Service\n").is_err());
    }
}
