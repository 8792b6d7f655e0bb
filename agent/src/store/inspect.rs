use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use sparkherd_checkpoint::InspectionOutcome;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;

use crate::engine::KillReason;
use crate::supervise::{ProcessGroup, SpawnError, Spawner};

/// Reading headers takes milliseconds from a disk and seconds from a slow network mount.
const TIME_LIMIT: Duration = Duration::from_mins(1);

/// Private writable memory of the child: the largest header and tokenizer it accepts, parsed, several times over.
const DATA_BYTES_MAX: u64 = 2 << 30;

/// The answer is one line: facts and at most some thousand file names.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Why the child gave no answer; a refusal by the child is an answer.
#[derive(Debug, Error)]
pub enum InspectError {
    #[error("cannot start the reader of headers: {0}")]
    Spawn(#[from] SpawnError),
    #[error("reading the headers took longer than {} s", TIME_LIMIT.as_secs())]
    TooSlow,
    #[error("the reader of headers broke off: {0}")]
    Pipe(#[from] std::io::Error),
    #[error("the reader of headers ended without an answer")]
    NoAnswer(#[source] serde_json::Error),
}

/// Reads checkpoint headers in a child: they are a stranger's bytes.
#[derive(Clone, Debug)]
pub struct Inspector {
    spawner: Spawner,
    program: PathBuf,
}

impl Inspector {
    pub const fn new(spawner: Spawner, program: PathBuf) -> Self {
        Self { spawner, program }
    }

    /// Runs `inspect DIRECTORY --root ROOT` and reads its line.
    pub async fn inspect(&self, directory: &Path, root: &Path) -> Result<InspectionOutcome, InspectError> {
        let mut command = Command::new(&self.program);
        command.arg("inspect").arg(directory).arg("--root").arg(root);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = self.spawner.spawn(command, None).await?;
        limit(child.id());
        let stdout = child.stdout.take();
        let (group, _exited) = ProcessGroup::watch(child)?;
        let answer = match stdout {
            Some(stdout) => timeout(TIME_LIMIT, read(stdout.into())).await,
            None => Ok(Ok(Vec::new())),
        };
        // Whether it answered or not, nothing of it stays.
        group.kill(KillReason::Stopped);
        let line = answer.map_err(|_| InspectError::TooSlow)??;
        serde_json::from_slice(&line).map_err(InspectError::NoAnswer)
    }
}

async fn read(stdout: std::os::fd::OwnedFd) -> Result<Vec<u8>, std::io::Error> {
    let mut line = Vec::new();
    Receiver::from_owned_fd(stdout)?.take(ANSWER_BYTES_MAX).read_to_end(&mut line).await?;
    Ok(line)
}

/// Set from outside, right after the start: the child reads no file before its own sandbox stands.
fn limit(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let data = Rlimit { current: Some(DATA_BYTES_MAX), maximum: Some(DATA_BYTES_MAX) };
    if let Err(error) = prlimit(Some(pid), Resource::Data, data) {
        tracing::warn!(%error, "the reader of headers runs without a memory limit");
    }
}
