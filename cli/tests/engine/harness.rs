//! An engine child as an agent starts it: configuration on descriptor 3, commands and events on pipes.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use sparkherd_checkpoint::{Checkpoint, Requantize};
use sparkherd_engine::weights::ModelDirectory;
use sparkherd_footprint::{Footprint, KvDtype, Platform, Serving, plan, serving_default};
use sparkherd_protocol::{Access, Command as AgentCommand, EngineConfig, Event, parse_event, to_line};

/// Far beyond what anything here takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(2);
pub(crate) const MODEL: &str = "coder";
const THREADS: u32 = 2;

pub(crate) struct Engine {
    child: Child,
    /// `None` once closed, as an agent's death closes it.
    commands: Option<ChildStdin>,
    events: Receiver<Event>,
}

/// A configuration that fits the fake engine.
pub(crate) fn config() -> EngineConfig {
    EngineConfig {
        model_dir: "/nonexistent".into(),
        served_names: vec![MODEL.to_owned()],
        serving: Serving {
            context: 256,
            concurrency: 4,
            kv_tokens: 1024,
            kv_dtype: KvDtype::Bf16,
            requantize: Requantize::None,
        },
        platform: Platform::cpu(1),
        footprint: Footprint::default(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        access: Access { anonymous: true, key_hashes: Vec::new() },
        incarnation: "test-1".to_owned(),
        seed: 1,
    }
}

/// A configuration that fits a checkpoint.
pub(crate) fn admitted(model_dir: &Path, context: u32, concurrency: u32) -> EngineConfig {
    let facts = Checkpoint::read(&ModelDirectory(model_dir.to_owned())).unwrap().inspection.facts;
    let serving = serving_default(&facts, context, concurrency);
    let platform = Platform::cpu(THREADS);
    let footprint = plan(&facts, &serving, &platform).unwrap();
    EngineConfig { model_dir: model_dir.to_owned(), serving, platform, footprint, ..config() }
}

impl Engine {
    /// Starts the binary; `script` makes it a fake engine.
    pub(crate) fn start(config: &EngineConfig, script: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config_path = directory.path().join("config.json");
        fs::write(&config_path, serde_json::to_vec(config).unwrap()).unwrap();
        let mut command = Command::new("sh");
        // A shell opens descriptor 3 for the program it becomes.
        command.args(["-c", "exec 3<\"$1\"; shift; exec \"$@\"", "sh"]).arg(&config_path);
        command.args([env!("CARGO_BIN_EXE_sparkherd"), "engine", "--config-fd", "3"]);
        if let Some(script) = script {
            let script_path = directory.path().join("script");
            fs::write(&script_path, script).unwrap();
            command.arg("--fake").arg(script_path);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let commands = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let (sender, events) = channel();
        thread::spawn(move || {
            // The files are read once the first event is there, or never.
            let _directory = directory;
            for line in lines.lines() {
                let line = line.unwrap();
                let event = parse_event(line.as_bytes()).unwrap_or_else(|error| panic!("{error}: {line}"));
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Self { child, commands, events }
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// The next event, or `None` when the engine has closed its pipe.
    pub(crate) fn next(&self) -> Option<Event> {
        match self.events.recv_timeout(DEADLINE) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no event within {DEADLINE:?}"),
        }
    }

    /// The first event that `wanted` maps to something; those before are passed over.
    pub(crate) fn wait_for<T>(&self, what: &str, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let started = Instant::now();
        let mut seen = Vec::new();
        while started.elapsed() < DEADLINE {
            let Some(event) = self.next() else { panic!("engine ended before {what}, after {seen:?}") };
            seen.push(event.clone());
            if let Some(found) = wanted(event) {
                return found;
            }
        }
        panic!("no {what} within {DEADLINE:?}, only {seen:?}");
    }

    /// Waits for `ready` and returns the engine's base URL.
    pub(crate) fn ready(&self) -> String {
        self.wait_for("ready", |event| match event {
            Event::Ready { address, .. } => Some(format!("http://{address}")),
            _ => None,
        })
    }

    pub(crate) fn tell(&mut self, command: &AgentCommand) {
        self.commands.as_mut().unwrap().write_all(&to_line(command).unwrap()).unwrap();
    }

    /// What the agent's death looks like to its child.
    pub(crate) fn end_input(&mut self) {
        drop(self.commands.take());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < DEADLINE, "engine does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Already ended in most tests.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resident bytes of a process.
pub(crate) fn resident_bytes(process: u32) -> u64 {
    let status = fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}
