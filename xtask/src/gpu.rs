//! `cargo xtask gpu`: what a GPU has to prove, as one program, and run here if there is one.
//!
//! ```text
//! kernels of all chips ─► file ─ SPARKHERD_KERNELS ─► cargo build ─► target/gpu/sparkherd-proof-… ─ a driver? ─► table, JSON
//!                                                └► in the Debian of `arm64` ─► for a Spark ─ starts in an emulator?
//! ```

mod glibc;

use std::env::consts::ARCH;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use sparkherd_kernels::{Driver, GpuContext};

use crate::{arm64, kernels};
use glibc::Version;

const PROGRAM: &str = "sparkherd-proof";
/// It is carried to machines by hand.
const PROGRAM_BYTES_MAX: u64 = 60_000_000;
/// What a program says where there is no driver.
const NO_DRIVER: &str = "there is no CUDA driver: ";

/// What a program runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Processor {
    #[value(name = "x86_64")]
    X86_64,
    #[value(name = "aarch64")]
    Aarch64,
}

impl Processor {
    pub fn of_this_machine() -> Self {
        if ARCH == "aarch64" { Self::Aarch64 } else { Self::X86_64 }
    }

    /// The oldest that a program has to start with, and whose it is.
    const fn oldest_glibc(self) -> (Version, &'static str) {
        match self {
            Self::X86_64 => (Version { major: 2, minor: 36 }, "Debian 12"),
            // Which is made from Ubuntu 24.04.
            Self::Aarch64 => (Version { major: 2, minor: 39 }, "DGX OS 7"),
        }
    }
}

impl fmt::Display for Processor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        })
    }
}

pub fn run(processor: Processor) -> Result<()> {
    let target = e2e::toolchain::target_directory()?;
    let folder = target.join("gpu");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let bundle = folder.join("kernels.bundle");
    kernels::bundle(&bundle)?;
    let is_here = processor == Processor::of_this_machine();
    let built = if is_here { build(&target, &bundle)? } else { build_elsewhere(processor, &bundle)? };
    let program = folder.join(format!("{PROGRAM}-{processor}"));
    fs::copy(&built, &program).with_context(|| format!("cannot copy {}", built.display()))?;
    describe(&program, processor)?;
    if !is_here {
        return told("it is for another processor");
    }
    match Driver::open(None) {
        Ok(driver) if GpuContext::count(&driver)? > 0 => prove(&program, &folder.join("proof.json")),
        Ok(_) => told("the driver here shows no GPU"),
        Err(error) => told(&error.to_string()),
    }
}

/// Says what the program needs, and holds it to what a machine has.
fn describe(program: &Path, processor: Processor) -> Result<()> {
    let elf = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let bytes = elf.len() as u64;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let (has, most) = (megabytes(bytes), megabytes(PROGRAM_BYTES_MAX));
    ensure!(bytes <= PROGRAM_BYTES_MAX, "{} has {has:.1} MB, more than {most}", program.display());
    let needs = glibc::newest(&elf).context("the program names no version of glibc")?;
    println!("{}: {has:.1} MB, needs a driver and glibc of at least {needs}", program.display());
    let (oldest, system) = processor.oldest_glibc();
    ensure!(needs <= oldest, "{system} has glibc {oldest}, which is older");
    Ok(())
}

/// Not proven, but nothing has failed.
#[expect(clippy::unnecessary_wraps, reason = "one of the ways to end")]
fn told(why: &str) -> Result<()> {
    println!("not run: {why}; copy it to a machine with a GPU and start it there");
    Ok(())
}

fn build(target: &Path, bundle: &Path) -> Result<PathBuf> {
    // In a directory of its own: kernels in the program are another build of everything above them.
    let folder = target.join("gpu-build");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--workspace", "--bin", PROGRAM, "--target-dir"]).arg(&folder);
    let status = cargo.env("SPARKHERD_KERNELS", bundle).status().context("cannot run cargo")?;
    ensure!(status.success(), "the proof does not build");
    Ok(folder.join("release").join(PROGRAM))
}

/// For a Spark, whose driver is not here: it starts, and says so.
fn build_elsewhere(processor: Processor, bundle: &Path) -> Result<PathBuf> {
    ensure!(processor == Processor::Aarch64, "programs for {processor} are built on {processor}");
    let arm64::Program { path, said, has_succeeded } = arm64::program(PROGRAM, bundle)?;
    // Cargo may have a word to say before.
    let sentence = said.lines().find(|line| line.starts_with(NO_DRIVER)).filter(|_| !has_succeeded);
    let sentence = sentence.with_context(|| format!("in the emulator it says: {said}"))?;
    println!("starts in an emulator and says: {sentence}");
    Ok(path)
}

fn prove(program: &Path, json: &Path) -> Result<()> {
    let status = Command::new(program).arg("--json").arg(json).status().context("cannot run the proof")?;
    ensure!(status.success(), "not proven");
    println!("written to {}", json.display());
    Ok(())
}
