use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process_group};

/// Engines on disk, so that the next life of the agent can kill those that outlived this one (a child stuck in a driver
/// dies only when the driver lets go).
///
/// One file a process: its name is the process id, its content the process' start time in ticks since boot. Both together
/// name a process once and for all, so a number that was given to somebody else is left alone.
#[derive(Clone, Debug)]
pub struct Ledger {
    directory: PathBuf,
    proc_root: PathBuf,
}

impl Ledger {
    /// `proc_root`: the procfs in which our children have the ids we know them by.
    pub fn open(store: &Path, proc_root: &Path) -> io::Result<Self> {
        let directory = store.join("engines");
        fs::create_dir_all(&directory)?;
        Ok(Self { directory, proc_root: proc_root.to_owned() })
    }

    pub fn add(&self, pid: u32) {
        let Some(started) = self.start_ticks(pid) else { return };
        if let Err(error) = fs::write(self.directory.join(pid.to_string()), started) {
            tracing::warn!(pid, %error, "cannot note the engine on disk");
        }
    }

    pub fn remove(&self, pid: u32) {
        if let Err(error) = fs::remove_file(self.directory.join(pid.to_string()))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(pid, %error, "cannot strike the engine from the disk");
        }
    }

    /// Kills the engines of an earlier life. Returns how many there were.
    pub fn kill_survivors(&self) -> io::Result<usize> {
        let mut killed = 0;
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else {
                continue;
            };
            // An entry that cannot be read names nobody; it must not keep the agent from starting.
            let noted = fs::read_to_string(&path).unwrap_or_default();
            if self.start_ticks(pid).is_some_and(|started| started == noted)
                && let Some(leader) = i32::try_from(pid).ok().and_then(Pid::from_raw)
            {
                let result = kill_process_group(leader, Signal::KILL);
                tracing::warn!(pid, ?result, "killed an engine that outlived its agent");
                killed += usize::from(result.is_ok());
            }
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "entry of an ended engine stays");
            }
        }
        Ok(killed)
    }

    /// Field 22 of `stat`, counted after the command's name, which may hold anything.
    fn start_ticks(&self, pid: u32) -> Option<String> {
        let text = fs::read_to_string(self.proc_root.join(pid.to_string()).join("stat")).ok()?;
        let (_, after_name) = text.rsplit_once(')')?;
        let after_name = after_name.trim_start();
        // A zombie has ended; whoever inherited it has not looked yet.
        if after_name.starts_with('Z') {
            return None;
        }
        after_name.split_ascii_whitespace().nth(19).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::path::Path;
    use std::process::Command;

    use super::Ledger;

    #[test]
    fn kills_survivors_and_leaves_strangers_alone() {
        let store = tempfile::tempdir().unwrap();
        let sleeper = || Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let (mut survivor, mut stranger) = (sleeper(), sleeper());
        let ledger = Ledger::open(store.path(), Path::new("/proc")).unwrap();
        ledger.add(survivor.id());
        // The number was noted for a process that started at another time.
        std::fs::write(store.path().join("engines").join(stranger.id().to_string()), "1").unwrap();
        assert_eq!(ledger.kill_survivors().unwrap(), 1);
        assert_eq!(survivor.wait().unwrap().code(), None, "killed by a signal");
        assert!(stranger.try_wait().unwrap().is_none(), "still runs");
        assert_eq!(std::fs::read_dir(store.path().join("engines")).unwrap().count(), 0);
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
