//! kubectl, as a person at a terminal would use it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

/// kubectl for one identity.
#[derive(Debug, Clone)]
pub struct Kubectl {
    localkube: PathBuf,
    kubeconfig: PathBuf,
    cache: PathBuf,
}

impl Kubectl {
    /// `work` takes kubectl's discovery cache, which it would else leave in the user's home.
    pub fn new(localkube: &Path, kubeconfig: &Path, work: &Path) -> Self {
        let (localkube, kubeconfig) = (localkube.to_owned(), kubeconfig.to_owned());
        Self { localkube, kubeconfig, cache: work.join("kubectl-cache") }
    }

    /// What it prints; an error with its complaint if it fails. Arguments are divided at spaces.
    pub fn run(&self, arguments: &str) -> Result<String> {
        let output = self.output(&arguments.split_whitespace().collect::<Vec<_>>(), None)?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {arguments}: {}", complaint.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The complaint of a command that has to fail.
    pub fn refused(&self, arguments: &str) -> Result<String> {
        let output = self.output(&arguments.split_whitespace().collect::<Vec<_>>(), None)?;
        ensure!(!output.status.success(), "kubectl {arguments} was expected to be refused");
        Ok(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    /// Applies objects in YAML or JSON; the answer is kubectl's own output.
    pub fn apply(&self, manifest: &str) -> Result<Output> {
        self.output(&["apply", "--server-side", "--filename=-"], Some(manifest))
    }

    /// Runs it with these arguments, `input` on its standard input.
    pub fn output(&self, arguments: &[&str], input: Option<&str>) -> Result<Output> {
        let mut command = Command::new(&self.localkube);
        command.arg("kubectl").arg(format!("--kubeconfig={}", self.kubeconfig.display())).args(arguments);
        command.env("KUBECACHEDIR", &self.cache).env_remove("KUBECONFIG");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("failed to run kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl has no stdin")?;
        // A kubectl that refuses its arguments closes its input early; what it says about that is in its output.
        let _ = std::io::Write::write_all(&mut stdin, input.unwrap_or_default().as_bytes());
        drop(stdin);
        Ok(child.wait_with_output()?)
    }
}
