//! `cargo xtask gpu`: what a GPU has to prove, as one program, and run here if there is one.
//!
//! ```text
//! kernels of all chips ─► file ─ SPARKHERD_KERNELS ─► cargo build ─► target/gpu/sparkherd-proof ─ a driver? ─► table, JSON
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sparkherd_kernels::{Driver, GpuContext};

use crate::kernels;

/// It is carried to machines by hand.
const PROGRAM_BYTES_MAX: u64 = 60 << 20;

pub fn run() -> Result<()> {
    let target = e2e::toolchain::target_directory()?;
    let folder = target.join("gpu");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let bundle = folder.join("kernels.bundle");
    kernels::bundle(&bundle)?;
    let program = build(&target, &folder, &bundle)?;
    let bytes = fs::metadata(&program)?.len();
    ensure!(bytes <= PROGRAM_BYTES_MAX, "{} has {bytes} bytes, more than 60 MiB", program.display());
    println!(
        "{}: {:.1} MiB, needs a driver, and a C library as new as here",
        program.display(),
        bytes as f64 / f64::from(1 << 20)
    );
    match Driver::open(None) {
        Ok(driver) if GpuContext::count(&driver)? > 0 => prove(&program, &folder.join("proof.json")),
        Ok(_) => told("the driver here shows no GPU"),
        Err(error) => told(&error.to_string()),
    }
}

/// Not proven, but nothing has failed.
#[expect(clippy::unnecessary_wraps, reason = "one of the ways to end")]
fn told(why: &str) -> Result<()> {
    println!("not run: {why}; copy it to a machine with a GPU and start it there");
    Ok(())
}

fn build(target: &Path, folder: &Path, bundle: &Path) -> Result<PathBuf> {
    // In a directory of its own: kernels in the program are another build of everything above them.
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--release", "--workspace", "--bin", "sparkherd-proof", "--target-dir"])
        .arg(target.join("gpu-build"));
    let status = cargo.env("SPARKHERD_KERNELS", bundle).status().context("cannot run cargo")?;
    ensure!(status.success(), "the proof does not build");
    let program = folder.join("sparkherd-proof");
    let built = target.join("gpu-build/release/sparkherd-proof");
    fs::copy(&built, &program).with_context(|| format!("cannot copy {}", built.display()))?;
    Ok(program)
}

fn prove(program: &Path, json: &Path) -> Result<()> {
    let status = Command::new(program).arg("--json").arg(json).status().context("cannot run the proof")?;
    ensure!(status.success(), "not proven");
    println!("written to {}", json.display());
    Ok(())
}
