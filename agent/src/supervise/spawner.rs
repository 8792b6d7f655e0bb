use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread;

use rustix::io::{FdFlags, fcntl_setfd};
use thiserror::Error;
use tokio::sync::oneshot;

#[derive(Debug, Error)]
pub enum SpawnError {
    #[error("cannot start {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("cannot write the engine's configuration: {0}")]
    Config(#[source] io::Error),
    #[error("no free port in the range for engines")]
    NoPort,
    #[error("the thread that starts children has ended")]
    Ended,
    #[error("child has no {0}")]
    NoPipe(&'static str),
    #[error("cannot watch the child: {0}")]
    Watch(#[from] io::Error),
}

struct Request {
    command: Command,
    inherited: Option<OwnedFd>,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// Starts every child of the agent from one thread.
///
/// The kernel sends a child its death signal when the *thread* that forked it ends, so that thread must live as long as the
/// agent; threads of an async runtime's pools need not. And because nobody else forks, a descriptor made inheritable for
/// one child cannot leak into another.
#[derive(Clone, Debug)]
pub struct Spawner {
    requests: mpsc::Sender<Request>,
}

impl Spawner {
    /// Starts the thread. Every child has this environment and no other. The thread ends, and with it the children that asked for a death signal, when the last clone is dropped.
    pub fn start(environment: Vec<(OsString, OsString)>) -> io::Result<Self> {
        let (requests, received) = mpsc::channel::<Request>();
        thread::Builder::new().name("spawner".to_owned()).spawn(move || {
            for Request { mut command, inherited, reply } in received {
                command.env_clear().envs(environment.iter().cloned());
                let child = spawn(&mut command, inherited.as_ref());
                // Closed before the next child is started.
                drop(inherited);
                // Nobody waits for it any more: it must not stay.
                if let Err(Ok(mut child)) = reply.send(child) {
                    let killed = child.kill().and_then(|()| child.wait());
                    tracing::warn!(?killed, "child whose starter went away");
                }
            }
        })?;
        Ok(Self { requests })
    }

    /// Starts a child in its own process group; `inherited` keeps its number there.
    pub async fn spawn(&self, mut command: Command, inherited: Option<OwnedFd>) -> Result<Child, SpawnError> {
        use std::os::unix::process::CommandExt;

        command.process_group(0);
        let program = command.get_program().to_string_lossy().into_owned();
        let (reply, child) = oneshot::channel();
        self.requests.send(Request { command, inherited, reply }).map_err(|_| SpawnError::Ended)?;
        child.await.map_err(|_| SpawnError::Ended)?.map_err(|source| SpawnError::Start { program, source })
    }
}

fn spawn(command: &mut Command, inherited: Option<&OwnedFd>) -> io::Result<Child> {
    if let Some(descriptor) = inherited {
        fcntl_setfd(descriptor, FdFlags::empty())?;
    }
    command.spawn()
}
