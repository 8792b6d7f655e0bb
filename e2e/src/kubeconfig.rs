//! The files by which processes find the API server and say who they are.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig, NamedAuthInfo};
use serde_json::json;

/// How to reach an API server, without an identity.
#[derive(Debug, Clone)]
pub struct Server {
    /// `https://address:port`
    pub url: String,
    /// PEM file that its certificate is checked against.
    pub certificate_authority: PathBuf,
}

/// Writes a kubeconfig for the bearer of `token`. JSON is YAML.
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
    write_file(path, &serde_json::to_string_pretty(&content)?)
}

/// Writes a copy of `original` in which the user of its current context is the bearer of `token`.
pub fn write_for(path: &Path, original: &Path, token: &str) -> Result<()> {
    let mut config = Kubeconfig::read_from(original)?;
    let current = config.current_context.clone().context("kubeconfig has no current context")?;
    let context = config.contexts.iter_mut().find(|context| context.name == current);
    let context =
        context.and_then(|context| context.context.as_mut()).context("the current context is empty")?;
    "token".clone_into(context.user.get_or_insert_default());
    let user = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
    let named = NamedAuthInfo { name: "token".to_owned(), auth_info: Some(user), other: BTreeMap::new() };
    config.auth_infos = vec![named];
    write_file(path, &serde_json::to_string_pretty(&config)?)
}

/// A client for the identity in this file. It belongs to the async runtime it is made in: one per test.
pub async fn client(path: &Path) -> Result<kube::Client> {
    let kubeconfig = Kubeconfig::read_from(path)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

/// Readable by its owner only: it holds a token.
fn write_file(path: &Path, content: &str) -> Result<()> {
    let mut file = File::create(path).with_context(|| format!("failed to create {}", path.display()))?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file.write_all(content.as_bytes())?)
}
