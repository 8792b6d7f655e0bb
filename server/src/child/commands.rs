//! Commands from the agent, read by a thread of their own.

use std::io::{self, BufRead, BufReader, Read};
use std::thread;

use sparkherd_protocol::{Command, LINE_BYTES_MAX, parse_command};
use tokio::sync::mpsc;

use super::{ChildError, kill_self};

/// Commands that may wait; an agent sends a handful in an engine's life.
const QUEUE_COMMANDS: usize = 16;

#[derive(Debug)]
pub(super) struct Commands {
    received: mpsc::Receiver<Command>,
}

impl Commands {
    /// Reads standard input. Its end means that the agent died: the process is killed at once, because an exit could wait
    /// for a driver. With `obeys` false (a fault of the fake engine) only that end counts.
    pub(super) fn read_stdin(obeys: bool) -> Result<Self, ChildError> {
        let (sender, received) = mpsc::channel(QUEUE_COMMANDS);
        let thread = thread::Builder::new().name("commands".to_owned());
        thread
            .spawn(move || {
                let end = read(BufReader::new(io::stdin()), |command| {
                    let unread = !obeys || sender.blocking_send(command).is_err();
                    if unread {
                        tracing::warn!("command not followed");
                    }
                });
                tracing::error!(error = ?end.err(), "input ended: the agent is gone");
                kill_self();
            })
            .map_err(ChildError::Runtime)?;
        Ok(Self { received })
    }

    /// No agent, no commands.
    pub(super) fn none() -> Self {
        let (_, received) = mpsc::channel(1);
        Self { received }
    }

    /// The next command; waits for ever where none can come.
    pub(super) async fn next(&mut self) -> Command {
        match self.received.recv().await {
            Some(command) => command,
            None => std::future::pending().await,
        }
    }
}

/// Hands every command to `follow` until the input ends; skips what is no command.
fn read(mut input: impl BufRead, mut follow: impl FnMut(Command)) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        if input.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        // The rest of a line that is too long comes as further lines, which are no commands either.
        match parse_command(line.trim_ascii_end()) {
            Ok(command) => follow(command),
            Err(error) => tracing::warn!(%error, "line skipped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_past_noise() {
        let long = "x".repeat(2 * LINE_BYTES_MAX);
        let input =
            format!("\nnoise\n{long}\n{{\"command\":\"drain\",\"seconds\":3}}\r\n{{\"command\":\"stop\"}}");
        let mut commands = Vec::new();
        read(input.as_bytes(), |command| commands.push(command)).unwrap();
        assert_eq!(commands, [Command::Drain { seconds: 3 }, Command::Stop]);
    }
}
