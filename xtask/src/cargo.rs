//! Calls of cargo, and what it knows about packages.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::checkout;

/// The part of `cargo metadata` that the checks read.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    pub packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub license: Option<String>,
    /// `None` for packages of this workspace.
    pub source: Option<String>,
    pub targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
pub struct Target {
    pub src_path: PathBuf,
}

fn command() -> Command {
    // Set by the cargo that runs us, so that a toolchain chosen with `+` is kept.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.current_dir(checkout::root());
    command
}

/// Runs cargo with its output on the terminal.
pub fn run(arguments: &[&str]) -> Result<()> {
    let status = command().args(arguments).status().context("failed to run cargo")?;
    ensure!(status.success(), "cargo {} failed", arguments.join(" "));
    Ok(())
}

pub fn metadata() -> Result<Metadata> {
    Ok(serde_json::from_str(&output(&["metadata", "--format-version=1", "--locked"])?)?)
}

/// Names of all packages that this one is built from, itself included.
pub fn dependencies(package: &str) -> Result<Vec<String>> {
    let arguments =
        ["tree", "--locked", "--package", package, "--edges=normal", "--prefix=none", "--format={p}"];
    let tree = output(&arguments)?;
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

fn output(arguments: &[&str]) -> Result<String> {
    let output = command().args(arguments).output().context("failed to run cargo")?;
    ensure!(output.status.success(), "cargo {}: {}", arguments[0], String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
