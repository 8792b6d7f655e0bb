//! What was started and made is undone however its owner ends: by return, by panic, by Ctrl-C or by SIGKILL. A
//! shell holds the list and reads it from a pipe; the pipe closes with the owner. A `static` in a test binary
//! is never dropped, and this is what stops its cluster.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

const SCRIPT: &str = include_str!("teardown.sh");

/// The prefix of every name that the script agrees to remove.
pub const PREFIX: &str = "sparkherd-";

/// The list of things to undo, the latest first. Dropping it undoes them and waits for the end of it.
#[derive(Debug)]
pub struct Teardown {
    list: Mutex<Option<ChildStdin>>,
    shell: Child,
}

impl Teardown {
    pub fn start() -> Result<Self> {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", SCRIPT, "teardown"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Its own group, so that a Ctrl-C at the terminal reaches only the owner.
        let mut shell = shell.process_group(0).spawn().context("failed to run sh")?;
        let list = Mutex::new(shell.stdin.take());
        Ok(Self { list, shell })
    }

    /// Kill this process. Registered by pid and start time, so that a pid that was reused is left alone.
    pub fn process(&self, pid: u32) -> Result<()> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("process {pid} is not there"))?;
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let start_time = fields.split_whitespace().nth(19).context("unexpected form of /proc/PID/stat")?;
        self.register(&format!("process {pid} {start_time}"))
    }

    /// Kill what still runs in this network namespace and delete it.
    pub fn namespace(&self, name: &str) -> Result<()> {
        self.register(&format!("namespace {name}"))
    }

    /// Delete this network interface.
    pub fn link(&self, name: &str) -> Result<()> {
        self.register(&format!("link {name}"))
    }

    /// Remove this folder with all that is in it. Its last component starts with [`PREFIX`].
    pub fn directory(&self, path: &Path) -> Result<()> {
        let path = path.to_str().context("folder's name is not UTF-8")?;
        self.register(&format!("directory {path}"))
    }

    fn register(&self, thing: &str) -> Result<()> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let list = list.as_mut().context("teardown has begun")?;
        writeln!(list, "{thing}").context("the teardown shell is gone")
    }
}

impl Drop for Teardown {
    fn drop(&mut self) {
        drop(self.list.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        // Nothing to do about a failure here: the shell has the list and ends by itself.
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_and_folders_are_gone_after_the_drop() {
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir().unwrap().keep();
        std::fs::write(folder.join("file"), "x").unwrap();
        let mut sleeper = Command::new("sleep").arg("600").spawn().unwrap();
        let teardown = Teardown::start().unwrap();
        teardown.directory(&folder).unwrap();
        teardown.process(sleeper.id()).unwrap();
        assert!(sleeper.try_wait().unwrap().is_none());
        drop(teardown);
        assert!(!folder.exists());
        assert!(!sleeper.wait().unwrap().success());
    }

    #[test]
    fn a_folder_of_another_name_is_left_alone() {
        let folder = tempfile::Builder::new().prefix("other-").tempdir().unwrap();
        let teardown = Teardown::start().unwrap();
        teardown.directory(folder.path()).unwrap();
        drop(teardown);
        assert!(folder.path().exists());
    }

    #[test]
    fn a_pid_that_was_reused_is_left_alone() {
        let mut sleeper = Command::new("sleep").arg("600").spawn().unwrap();
        let teardown = Teardown::start().unwrap();
        teardown.register(&format!("process {} 1", sleeper.id())).unwrap();
        drop(teardown);
        assert!(sleeper.try_wait().unwrap().is_none());
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }
}
