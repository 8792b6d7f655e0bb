//! The chart, by Helm itself.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::toolchain::repository;

/// Namespace of the operator, the agents and their Leases.
pub const NAMESPACE: &str = "sparkherd-system";
/// Name of the release, of which the names of service accounts are made.
pub const RELEASE: &str = "sparkherd";

/// Helm with one identity, and a home of its own.
#[derive(Debug, Clone)]
pub struct Helm {
    binary: PathBuf,
    kubeconfig: Option<PathBuf>,
    home: PathBuf,
}

impl Helm {
    /// As a cluster's administrator.
    pub fn new(cluster: &Cluster) -> Self {
        let kubeconfig = Some(cluster.kubeconfig.clone());
        Self { binary: cluster.toolchain.helm.clone(), kubeconfig, home: cluster.work.join("helm") }
    }

    /// Without a cluster: lint and template only. `home` takes its caches.
    pub fn offline(binary: &Path, home: &Path) -> Self {
        Self { binary: binary.to_owned(), kubeconfig: None, home: home.to_owned() }
    }

    /// `helm lint --strict` with these values.
    pub fn lint(&self, values: &Value) -> Result<String> {
        self.run(&["lint", "--strict", &chart(), "--values=-"], Some(values))
    }

    /// The manifests, rendered without a cluster.
    pub fn template(&self, values: &Value) -> Result<String> {
        let namespace = format!("--namespace={NAMESPACE}");
        self.run(
            &["template", RELEASE, &chart(), &namespace, "--kube-version=1.34.0", "--values=-"],
            Some(values),
        )
    }

    /// Installs or upgrades the release.
    pub fn install(&self, values: &Value) -> Result<String> {
        let namespace = format!("--namespace={NAMESPACE}");
        let arguments =
            ["upgrade", "--install", "--create-namespace", RELEASE, &chart(), &namespace, "--values=-"];
        self.run(&arguments, Some(values))
    }

    pub fn uninstall(&self) -> Result<String> {
        self.run(&["uninstall", RELEASE, &format!("--namespace={NAMESPACE}")], None)
    }

    fn run(&self, arguments: &[&str], values: Option<&Value>) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.args(arguments);
        for (variable, folder) in
            [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            command.env(variable, self.home.join(folder));
        }
        command.env_remove("KUBECONFIG");
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("failed to run helm")?;
        let mut stdin = child.stdin.take().context("helm has no stdin")?;
        let values = values.map(Value::to_string).unwrap_or_default();
        // A helm that refuses its arguments closes its input early and says why in its output.
        let _ = stdin.write_all(values.as_bytes());
        drop(stdin);
        let output = child.wait_with_output()?;
        let (said, complaint) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "helm {}: {}{}", arguments[0], complaint.trim(), said.trim());
        Ok(said.into_owned())
    }
}

fn chart() -> String {
    repository().join("charts/sparkherd").display().to_string()
}
