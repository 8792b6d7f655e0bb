use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// Longer than any watch of ours lives, shorter than a person's patience with a dead connection.
const READ_TIMEOUT: Duration = Duration::from_mins(1);

/// The API server is in the same cluster.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client for the API server of this kubeconfig, or of this Pod.
pub(crate) async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<kube::Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("failed to read kubeconfig {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => kube::Config::infer().await.context("no --kubeconfig, and not in a Pod")?,
    };
    config.read_timeout = Some(READ_TIMEOUT);
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // kube would repeat a POST whose outcome is unknown; the operator plans again instead.
    config.default_retry = false;
    Ok(kube::Client::try_from(config)?)
}

/// Completes when the process is told to end.
pub(crate) fn terminated() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
