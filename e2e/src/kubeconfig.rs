//! The files by which processes find the API server and say who they are.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

/// How to reach an API server, without an identity.
#[derive(Debug, Clone)]
pub struct Server {
    /// `https://address:port`
    pub url: String,
    /// PEM file that its certificate is checked against.
    pub certificate_authority: PathBuf,
}

/// Writes a kubeconfig for the bearer of `token`, readable by its owner only. JSON is YAML.
pub fn write(path: &Path, server: &Server, user: &str, token: &str) -> Result<()> {
    let content = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": user,
        "clusters": [{
            "name": "localkube",
            "cluster": {"server": server.url, "certificate-authority": server.certificate_authority},
        }],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": user, "context": {"cluster": "localkube", "user": user}}],
    });
    let mut file = File::create(path).with_context(|| format!("failed to create {}", path.display()))?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(serde_json::to_string_pretty(&content)?.as_bytes())?;
    Ok(())
}

/// A client for the identity in this file. It belongs to the async runtime it is made in: one per test.
pub async fn client(path: &Path) -> Result<kube::Client> {
    let kubeconfig = Kubeconfig::read_from(path)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}
