//! `sparkherd engine`: one model as one process, started by an agent.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use sparkherd_engine::backend::cpu::Path;
use sparkherd_server::child::{self, ConfigSource, EngineKind};
use sparkherd_server::fake::Script;

use crate::gpu::GpuArgs;

/// Serve one model over HTTP (agents start this; by hand use `serve`).
#[derive(Debug, clap::Args)]
pub(crate) struct EngineArgs {
    #[command(flatten)]
    source: Source,
    /// Follow a script instead of loading a model: an engine with faults on demand, for tests.
    #[arg(long, value_name = "SCRIPT")]
    fake: Option<PathBuf>,
    /// Compute with these instructions instead of those measured as the fastest, for example avx2.
    #[arg(long, value_name = "NAME", conflicts_with = "fake")]
    cpu_path: Option<Path>,
    #[command(flatten)]
    gpu: GpuArgs,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// Open file descriptor with the configuration. Commands come on standard input; its end ends the engine.
    #[arg(long, value_name = "FD")]
    config_fd: Option<u32>,
    /// File with the configuration, for use by hand: no commands are read, Ctrl-C ends the engine.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Does not return: whatever still runs when the child is done ends with the process.
pub(crate) fn run(args: EngineArgs) -> anyhow::Result<()> {
    let EngineArgs { source: Source { config_fd, config }, fake, cpu_path, gpu } = args;
    let source = match (config_fd, config) {
        (Some(descriptor), _) => ConfigSource::Descriptor(descriptor),
        (None, Some(file)) => ConfigSource::File(file),
        (None, None) => anyhow::bail!("neither --config-fd nor --config is given"),
    };
    let kind = match fake {
        Some(script) => EngineKind::Fake(read_script(&script)?),
        None => EngineKind::Checkpoint { cpu_path, gpu: gpu.choice() },
    };
    std::process::exit(i32::from(child::run(&source, kind)))
}

fn read_script(path: &PathBuf) -> anyhow::Result<Script> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read the script {}", path.display()))?;
    text.parse().with_context(|| format!("{} is no script", path.display()))
}
