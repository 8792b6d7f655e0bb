//! `cargo xtask bench-peers`: llama.cpp and this engine on the same checkpoint, in one run.
//!
//! ```text
//! venv: llama-cpp-python from its sdist ─┐
//! make_checkpoint.py: safetensors, GGUF ─┼─► rounds: theirs, ours, theirs, ours … ─► medians ─► ratios
//! cargo build --release ─────────────────┘
//! ```
//!
//! Each run is a process of its own, and the engines take turns, so that what disturbs the machine disturbs both. At the end
//! our engine again, in process and behind HTTP.

mod report;
mod serving;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{cargo, checkout};
use report::{Format, Report};
use serving::Server;

/// The version that is measured; its sdist has llama.cpp's sources in it.
const PEER: &str = "llama-cpp-python==0.3.36";
/// GCC before 13 drops the stores of a tile configuration, and llama.cpp built so dies at its first product with AMX.
const PEER_FLAGS: &str = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16";
const THREADS: &str = "2";
const PROMPT: &str = "512";
const GENERATE: &str = "128";
const DEPTHS: &str = "0,2048";
const SEQUENCES: &str = "1,8";

/// What both engines print.
#[derive(Clone, Debug, Deserialize)]
struct Run {
    cases: Vec<Timing>,
    /// llama.cpp's.
    version: Option<String>,
    /// llama.cpp's.
    system: Option<String>,
    /// Ours.
    cpu_path: Option<String>,
    /// Ours.
    read_gb_per_second: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
struct Timing {
    #[serde(flatten)]
    case: Case,
    tokens: f64,
    seconds: f64,
    /// Ours, of decodes.
    gb_per_second: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "case", rename_all = "lowercase")]
enum Case {
    Prefill,
    Decode { depth: u32, sequences: u32 },
}

pub fn run(rounds: usize, only_serving: bool) -> Result<()> {
    ensure!(rounds > 0, "no rounds, nothing to measure");
    let work = Work::prepare()?;
    if !only_serving {
        work.compare(rounds)?;
    }
    println!("{}", work.serving(rounds)?);
    Ok(())
}

/// What the measurement needs, kept under the target directory.
struct Work {
    folder: PathBuf,
    sparkherd: PathBuf,
}

impl Work {
    fn prepare() -> Result<Self> {
        let target = env::current_exe()?
            .ancestors()
            .find(|folder| folder.join("CACHEDIR.TAG").is_file())
            .map(Path::to_owned)
            .context("this program is not in a target directory")?;
        let folder = target.join("bench-peers");
        fs::create_dir_all(&folder)?;
        cargo::run(&["build", "--release", "--bin", "sparkherd"])?;
        let work = Self { folder, sparkherd: target.join("release/sparkherd") };
        work.install_peer()?;
        work.make_checkpoint()?;
        let check = source("read_check.c");
        succeed(
            Command::new("cc")
                .args(["-O3", "-march=native", "-pthread", "-o"])
                .arg(work.folder.join("read_check"))
                .arg(check),
        )?;
        Ok(work)
    }

    fn python(&self) -> PathBuf {
        self.folder.join("venv/bin/python")
    }

    fn install_peer(&self) -> Result<()> {
        let stamp = self.folder.join("peer");
        let wanted = format!("{PEER} {PEER_FLAGS}");
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(());
        }
        println!("building {PEER}: about 10 minutes the first time");
        succeed(Command::new("python3").args(["-m", "venv"]).arg(self.folder.join("venv")))?;
        let mut pip = Command::new(self.python());
        pip.args(["-m", "pip", "install", "--quiet", "--force-reinstall", "--no-cache-dir"])
            .args(["--no-binary", "llama-cpp-python", PEER])
            .env("CMAKE_ARGS", "-DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release");
        if cfg!(target_arch = "x86_64") {
            pip.env("CFLAGS", PEER_FLAGS).env("CXXFLAGS", PEER_FLAGS);
        }
        succeed(&mut pip)?;
        Ok(fs::write(stamp, wanted)?)
    }

    fn make_checkpoint(&self) -> Result<()> {
        let script = source("make_checkpoint.py");
        let (stamp, wanted) = (self.folder.join("checkpoint"), fs::read_to_string(&script)?);
        if fs::read_to_string(&stamp).is_ok_and(|made_by| made_by == wanted) {
            return Ok(());
        }
        println!("making the checkpoint");
        succeed(Command::new(self.python()).arg(script).arg(self.folder.join("model")))?;
        Ok(fs::write(stamp, wanted)?)
    }

    fn theirs(&self, format: Format) -> Result<Run> {
        let mut command = Command::new(self.python());
        command
            .arg(source("llama_cpp_case.py"))
            .arg(self.folder.join("model").join(format.folder()).join("model.gguf"))
            .args([THREADS, PROMPT, GENERATE, DEPTHS, SEQUENCES]);
        parsed(&mut command)
    }

    fn ours(&self, format: Format) -> Result<Run> {
        let mut command = Command::new(&self.sparkherd);
        command
            .args(["bench", "engine", "--backend", "cpu", "--json", "--repeat", "1", "--threads", THREADS])
            .args(["--prompt", PROMPT, "--generate", GENERATE, "--depth", DEPTHS, "--sequences", SEQUENCES])
            .arg(self.folder.join("model").join(format.folder()));
        parsed(&mut command)
    }

    /// Both engines on all formats.
    fn compare(&self, rounds: usize) -> Result<()> {
        let check_gb_per_second: f64 =
            output(&mut Command::new(self.folder.join("read_check")))?.trim().parse()?;
        let mut reports: Vec<Report> = Format::ALL.map(Report::new).into();
        for round in 1..=rounds {
            for report in &mut reports {
                println!("round {round} of {rounds}: {}", report.format.name());
                report.theirs.push(self.theirs(report.format)?);
                report.ours.push(self.ours(report.format)?);
            }
        }
        println!("\nread bandwidth by a loop of its own: {check_gb_per_second:.1} GB/s");
        if cfg!(target_arch = "x86_64") {
            println!(
                "llama.cpp is built with {PEER_FLAGS}: where a core has AMX, its prefill could be faster"
            );
        }
        for report in reports {
            println!("{report}");
        }
        Ok(())
    }

    fn serving(&self, rounds: usize) -> Result<serving::Report> {
        let model = self.folder.join("model").join(Format::Bf16.folder());
        let server = Server::start(&self.sparkherd, &model, &self.folder)?;
        let measured = (1..=rounds).map(|round| {
            println!("serving, round {round} of {rounds}");
            server.measure()
        });
        Ok(serving::Report(measured.collect::<Result<_>>()?))
    }
}

fn source(name: &str) -> PathBuf {
    checkout::root().join("xtask/src/bench_peers").join(name)
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("failed to run {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("failed to run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

fn parsed<T: DeserializeOwned>(command: &mut Command) -> Result<T> {
    let text = output(command)?;
    serde_json::from_str(&text).with_context(|| format!("{command:?} printed {text}"))
}
