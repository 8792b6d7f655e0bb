use std::io;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::os::unix::process::ExitStatusExt;
use tokio::sync::oneshot;

use crate::engine::{Exit, KillReason};

#[derive(Debug)]
struct State {
    /// `None` once reaped: the number may then be somebody else's.
    leader: Option<Pid>,
    killed: Option<KillReason>,
}

/// A child and all it started. Killing never hits a stranger: the leader stays a zombie, its number taken, until this
/// object has let go of it.
#[derive(Clone, Debug)]
pub struct ProcessGroup {
    state: Arc<Mutex<State>>,
    pid: u32,
}

impl ProcessGroup {
    /// Takes over a child that leads its own group; the receiver gets its end.
    pub fn watch(mut child: Child) -> io::Result<(Self, oneshot::Receiver<Exit>)> {
        let pid = child.id();
        let leader = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other(format!("process id {pid} is out of range")))?;
        let state = Arc::new(Mutex::new(State { leader: Some(leader), killed: None }));
        let group = Self { state: Arc::clone(&state), pid };
        let (ended, end) = oneshot::channel();
        thread::Builder::new().name(format!("child {pid}")).spawn(move || {
            wait_unreaped(leader);
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            // What the child left behind goes with it.
            let leftovers = kill_process_group(leader, Signal::KILL);
            let status = child.wait();
            state.leader = None;
            let killed = state.killed.take();
            drop(state);
            tracing::debug!(pid, ?leftovers, ?status, "child reaped");
            let status = status.map_or_else(|error| error.to_string(), describe);
            // Nobody has to be interested.
            let _ = ended.send(Exit { status, killed });
        })?;
        Ok((group, end))
    }

    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills the whole group at once. The first reason given is the one that is told. False if it is gone already.
    pub fn kill(&self, reason: KillReason) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(leader) = state.leader else { return false };
        state.killed.get_or_insert(reason);
        match kill_process_group(leader, Signal::KILL) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(pid = self.pid, %error, "cannot kill the process group");
                false
            }
        }
    }
}

/// Returns when the child has ended, leaving its number taken.
fn wait_unreaped(leader: Pid) {
    loop {
        match waitid(WaitId::Pid(leader), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, "cannot wait for a child without reaping it");
                return;
            }
        }
    }
}

fn describe(status: std::process::ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}
