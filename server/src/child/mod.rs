//! The engine child: one process, one model, told what to do by its agent (see `sparkherd_protocol`).
//!
//! ```text
//! config ─► bind port ─► load (progress) ─► serve ─► probe ─► ready ─► stats each second … drain ─► exit 0
//!              └────────────── any failure ─► failed {reason, message} ─► exit 1 ──────────────┘
//! stdin thread: commands; its end = the agent died = this process ends at once, whatever else it does
//! ```

mod binding;
mod commands;
mod config;
mod events;
mod failure;
mod life;
mod load;
mod probe;
mod process;

use std::path::PathBuf;

use sparkherd_engine::GpuChoice;
use sparkherd_engine::backend::cpu::Path;
use sparkherd_protocol::{EngineConfig, Event};

pub use failure::ChildError;

use crate::fake::Script;
use commands::Commands;
use events::Events;

/// Threads that serve HTTP; the cores belong to the model. A streamed token takes one of them 9 us of CPU beside 31 other
/// streams, the scripted engine's share included; with two, eight streams cost twice the context switches, since the second
/// is woken to help and finds nothing (`bench serve` on `engine --fake`, two cores, `x86_64`).
const SERVING_THREADS: usize = 1;
/// Threads for tokenising and for loading.
const BLOCKING_THREADS: usize = 4;

/// Where the child's configuration comes from, which also says who looks after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// An agent's open file descriptor. The child dies with its agent and takes commands from standard input.
    Descriptor(u32),
    /// A file, for use by hand: events are printed, no commands are read, and a signal ends it.
    File(PathBuf),
}

/// What answers.
#[derive(Clone, Debug)]
pub enum EngineKind {
    /// The checkpoint that the configuration names. On a CPU it is computed with these instructions, or else those measured as the
    /// fastest; on a GPU, on this one.
    Checkpoint {
        cpu_path: Option<Path>,
        gpu: GpuChoice,
    },
    Fake(Script),
}

impl EngineKind {
    pub(crate) const fn script(&self) -> Option<&Script> {
        match self {
            Self::Checkpoint { cpu_path: _, gpu: _ } => None,
            Self::Fake(script) => Some(script),
        }
    }
}

/// Runs the child to its end and returns the status to exit with.
///
/// To be called before any thread is started, by a process that does nothing else and exits when this returns.
pub fn run(source: &ConfigSource, kind: EngineKind) -> u8 {
    if let Some(status) = kind.script().and_then(|script| script.exit_at_start) {
        return status;
    }
    let supervised = matches!(source, ConfigSource::Descriptor(_));
    let mut events = match Events::take_stdout() {
        Ok(events) => events,
        Err(error) => {
            tracing::error!(%error, "standard output cannot be taken for events");
            return failure::EXIT_STATUS;
        }
    };
    let result = (|| {
        if supervised {
            binding::bind_to_parent()?;
            binding::prefer_as_oom_victim();
        }
        live(config::read(source)?, kind, supervised, &events)
    })();
    let status = match result {
        Ok(()) => 0,
        Err(error) => {
            let reason = error.reason();
            tracing::error!(%reason, %error, "engine gives up");
            events.announce(Event::Failed { reason, message: error.to_string() });
            failure::EXIT_STATUS
        }
    };
    events.close();
    status
}

fn live(config: EngineConfig, kind: EngineKind, supervised: bool, events: &Events) -> Result<(), ChildError> {
    let obeys = kind.script().is_none_or(|script| !script.ignore_stop);
    let commands = if supervised { Commands::read_stdin(obeys)? } else { Commands::none() };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(SERVING_THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(ChildError::Runtime)?;
    let result = runtime.block_on(life::live(config, kind, commands, events));
    // A load that goes on, or a prompt being tokenised, is not waited for: the process ends.
    runtime.shutdown_background();
    result
}

/// Ends this process at once: no exit handler runs, so none can wait for a driver.
fn kill_self() {
    if let Err(error) =
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
    {
        tracing::error!(%error, "cannot end the process");
    }
}
