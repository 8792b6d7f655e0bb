//! Events to the agent, written by a thread of their own: an agent that does not read must not stop the engine.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio::{dup2_stdout, stderr, stdout};
use sparkherd_protocol::{Event, to_line};

/// Events that may wait: enough for a burst at start, few enough that statistics read late are seconds old, not minutes.
const QUEUE_EVENTS: usize = 4;
/// How long the last words may take before the process ends without them.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Descriptors below are the standard ones and the configuration's.
const FIRST_DESCRIPTOR: i32 = 4;

#[derive(Debug)]
pub(super) struct Events {
    /// `None` once closed.
    queue: Option<SyncSender<Event>>,
    /// Ends when the thread has.
    written: Receiver<()>,
}

impl Events {
    /// Takes the process's standard output for events and points it at standard error, which is the log: nothing that a
    /// library prints can break a line.
    pub(super) fn take_stdout() -> io::Result<Self> {
        let events = fcntl_dupfd_cloexec(stdout(), FIRST_DESCRIPTOR)?;
        dup2_stdout(stderr())?;
        Self::start(events)
    }

    fn start(output: OwnedFd) -> io::Result<Self> {
        let (queue, events) = sync_channel(QUEUE_EVENTS);
        let (done, written) = sync_channel(0);
        thread::Builder::new().name("events".to_owned()).spawn(move || {
            write_all(File::from(output), &events);
            drop(done);
        })?;
        Ok(Self { queue: Some(queue), written })
    }

    /// Sends what will be said again soon: dropped if the agent does not read.
    pub(super) fn report(&self, event: Event) {
        if let Some(queue) = &self.queue {
            let _ = queue.try_send(event);
        }
    }

    /// Sends what is said once, and waits for room.
    pub(super) fn announce(&self, event: Event) {
        if let Some(queue) = &self.queue {
            let _ = queue.send(event);
        }
    }

    /// Waits until everything is written, but not for long.
    pub(super) fn close(&mut self) {
        drop(self.queue.take());
        if self.written.recv_timeout(LAST_WORDS) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("agent does not read: last events are lost");
        }
    }
}

fn write_all(mut output: File, events: &Receiver<Event>) {
    for event in events {
        let written = to_line(&event).map_err(io::Error::other).and_then(|line| output.write_all(&line));
        if let Err(error) = written {
            tracing::warn!(%error, "event cannot be written");
        }
    }
}
