use std::ffi::OsString;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sparkherd_protocol::{Command, EngineConfig, Event, LineError, parse_event, to_line};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::mpsc;

use super::lines::next_line;
use super::{Ledger, ProcessGroup, SpawnError, Spawner, config_fd};
use crate::engine::{EngineId, Exit, KillReason};
use crate::wanted::ReplicaKey;

/// Commands wait here while a child does not read; more than these have no meaning (the last access counts).
const COMMANDS_MAX: usize = 16;

/// What happened to an engine.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    Heard(Event),
    /// The process is gone and reaped.
    Exited(Exit),
}

#[derive(Clone, Debug, PartialEq)]
pub struct EngineNews {
    pub replica: ReplicaKey,
    pub engine: EngineId,
    pub news: News,
}

/// A running child. Dropping it closes the child's input, which ends the child.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    pub group: ProcessGroup,
    commands: mpsc::Sender<Command>,
}

impl EngineHandle {
    /// Sends without waiting; false if the child has stopped reading.
    pub fn send(&self, command: Command) -> bool {
        self.commands.try_send(command).is_ok()
    }

    pub fn kill(&self, reason: KillReason) -> bool {
        self.group.kill(reason)
    }
}

/// What is started as an engine.
#[derive(Clone, Debug)]
pub struct EngineProgram {
    pub program: PathBuf,
    /// Given to each, beside where its configuration is.
    pub arguments: Vec<OsString>,
}

/// Starts engines.
#[derive(Clone, Debug)]
pub struct Supervisor {
    spawner: Spawner,
    engine: EngineProgram,
    ledger: Ledger,
    news: mpsc::Sender<EngineNews>,
}

impl Supervisor {
    pub const fn new(
        spawner: Spawner,
        engine: EngineProgram,
        ledger: Ledger,
        news: mpsc::Sender<EngineNews>,
    ) -> Self {
        Self { spawner, engine, ledger, news }
    }

    /// Starts `engine --config-fd N`, or with a script `engine --fake SCRIPT --config-fd N`.
    pub async fn start(
        &self,
        replica: ReplicaKey,
        engine: EngineId,
        config: &EngineConfig,
        fake_script: Option<&Path>,
    ) -> Result<EngineHandle, SpawnError> {
        let config = config_fd::sealed(config).map_err(SpawnError::Config)?;
        let EngineProgram { program, arguments } = &self.engine;
        let mut command = std::process::Command::new(program);
        command.arg("engine").arg("--config-fd").arg(config.as_raw_fd().to_string()).args(arguments);
        if let Some(script) = fake_script {
            command.arg("--fake").arg(script);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = self.spawner.spawn(command, Some(config)).await?;
        let stdin = child.stdin.take().ok_or(SpawnError::NoPipe("stdin"))?;
        let stdout = child.stdout.take().ok_or(SpawnError::NoPipe("stdout"))?;
        self.ledger.add(child.id());
        let (group, exited) = ProcessGroup::watch(child)?;
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        tokio::spawn(write_commands(Sender::from_owned_fd(OwnedFd::from(stdin))?, received));
        let events = Receiver::from_owned_fd(OwnedFd::from(stdout))?;
        let (ledger, news, pid) = (self.ledger.clone(), self.news.clone(), group.pid());
        tokio::spawn(async move {
            let tell =
                async |what| news.send(EngineNews { replica: replica.clone(), engine, news: what }).await;
            let hear = async {
                let mut events = BufReader::new(events);
                while let Ok(Some(line)) = next_line(&mut events).await {
                    if let Some(event) = parsed(&line, pid)
                        && tell(News::Heard(event)).await.is_err()
                    {
                        return;
                    }
                }
            };
            let wait = async {
                exited.await.unwrap_or_else(|_| Exit { status: "unknown".to_owned(), killed: None })
            };
            // Its last words come before its end: the pipe is drained after the process is gone, but a grandchild that
            // holds it open cannot delay the news, for it has been killed with the group.
            let ((), exit) = tokio::join!(hear, wait);
            ledger.remove(pid);
            // The loop has ended: nobody is left to tell.
            let _ = tell(News::Exited(exit)).await;
        });
        Ok(EngineHandle { group, commands })
    }
}

fn parsed(line: &[u8], pid: u32) -> Option<Event> {
    match parse_event(line) {
        Ok(event) => Some(event),
        Err(LineError::TooLong { bytes }) => {
            tracing::warn!(pid, bytes, "engine wrote a line that is too long");
            None
        }
        // The text is the child's own and might hold a prompt: only its length is told.
        Err(LineError::Unknown(_)) => {
            tracing::warn!(pid, bytes = line.len(), "engine wrote a line that is no event");
            None
        }
    }
}

async fn write_commands(mut stdin: Sender, mut commands: mpsc::Receiver<Command>) {
    while let Some(command) = commands.recv().await {
        let line = match to_line(&command) {
            Ok(line) => line,
            Err(error) => {
                tracing::error!(%error, "command is not sent");
                continue;
            }
        };
        if stdin.write_all(&line).await.is_err() {
            return;
        }
    }
}
