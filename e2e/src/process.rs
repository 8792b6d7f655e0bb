//! A process of the test: its output goes to a file, it dies by its pid, and it can run inside a fake Spark's
//! network namespace.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::teardown::Teardown;

/// As many lines as tell why a process ended, and few enough to read in a test's output.
const LOG_TAIL_LINES: usize = 20;

/// What to start.
#[derive(Debug, Clone)]
pub struct Program {
    name: String,
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
    namespace: Option<String>,
}

impl Program {
    /// `name` names the log file.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        let (arguments, environment) = (Vec::new(), Vec::new());
        Self { name: name.into(), path: path.into(), arguments, environment, namespace: None }
    }

    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Runs it in this network namespace; `None` stays in the host's.
    #[must_use]
    pub fn in_namespace(mut self, namespace: Option<&str>) -> Self {
        self.namespace = namespace.map(str::to_owned);
        self
    }

    /// Starts it, with both outputs appended to `<logs>/<name>.log`.
    pub fn start(&self, logs: &Path, teardown: &Teardown) -> Result<Process> {
        let log_path = logs.join(format!("{}.log", self.name));
        let log = File::options().create(true).append(true).open(&log_path)?;
        let mut command = match &self.namespace {
            // nsenter enters and then becomes the program, so the pid is the program's own.
            Some(namespace) => {
                let mut nsenter = Command::new("nsenter");
                nsenter.arg(format!("--net=/run/netns/{namespace}")).arg("--").arg(&self.path);
                nsenter
            }
            None => Command::new(&self.path),
        };
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| format!("failed to start {}", self.path.display()))?;
        teardown.process(child.id())?;
        Ok(Process { name: self.name.clone(), child, log_path })
    }
}

/// A running (or ended) process. Dropping it leaves it to the [`Teardown`] it was started with.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log_path: PathBuf,
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log_path(&self) -> &Path {
        &self.log_path
    }

    /// An error with the end of the log if it has ended.
    pub fn expect_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}); its log ends with:\n{}", self.name, self.log_tail()),
        }
    }

    /// Its end, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// SIGKILL, and wait until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM; the caller waits for [`Self::ended`] as long as it believes in it.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("pid out of range")?;
        Ok(kill_process(pid, signal)?)
    }

    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log_path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}

/// Children of a process that are not dead, by procfs.
pub fn children(parent: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        if state_and_parent(pid).is_some_and(|(state, of)| of == parent && state != 'Z') {
            found.push(pid);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// False also for one that is dead and only not yet waited for.
pub fn is_alive(pid: u32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state != 'Z')
}

/// SIGKILL to a process that somebody else started.
pub fn kill(pid: u32) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("pid out of range")?;
    Ok(kill_process(pid, Signal::KILL)?)
}

/// `None` if there is no such process.
fn state_and_parent(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::teardown::PREFIX;

    #[test]
    fn a_process_that_ended_is_told_with_its_last_words() {
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir().unwrap();
        let teardown = Teardown::start().unwrap();
        let program = Program::new("talker", "sh").args(["-c", "echo no such model >&2; exit 3"]);
        let mut process = program.start(folder.path(), &teardown).unwrap();
        process.child.wait().unwrap();
        let error = process.expect_running().unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("no such model"), "{error}");
    }

    #[test]
    fn kill_returns_when_it_is_dead() {
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir().unwrap();
        let teardown = Teardown::start().unwrap();
        let mut process =
            Program::new("sleeper", "sleep").arg("600").start(folder.path(), &teardown).unwrap();
        process.expect_running().unwrap();
        process.kill().unwrap();
        assert!(!Path::new(&format!("/proc/{}", process.pid())).exists());
    }
}
