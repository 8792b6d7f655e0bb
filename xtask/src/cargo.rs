//! Calls of cargo, and what it knows about packages.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use e2e::toolchain::cargo_command;
use serde::Deserialize;

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
    pub name: String,
    pub kind: Vec<String>,
    pub src_path: PathBuf,
}

/// Runs cargo with its output on the terminal.
pub fn run(arguments: &[&str]) -> Result<()> {
    let status = cargo_command().args(arguments).status().context("failed to run cargo")?;
    ensure!(status.success(), "cargo {} failed", arguments.join(" "));
    Ok(())
}

pub fn metadata() -> Result<Metadata> {
    Ok(serde_json::from_str(&output(&["metadata", "--format-version=1", "--locked"])?)?)
}

/// Names of the integration tests of a package of this workspace.
pub fn test_targets(package: &str) -> Result<Vec<String>> {
    of_workspace(|name| name == package)
}

/// Names of the integration tests of every package but `e2e`.
pub fn unit_test_targets() -> Result<Vec<String>> {
    of_workspace(|name| name != "e2e")
}

fn of_workspace(is_wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let packages = metadata()?
        .packages
        .into_iter()
        .filter(|package| package.source.is_none() && is_wanted(&package.name));
    let targets = packages.flat_map(|package| package.targets);
    let mut names: Vec<String> = targets
        .filter(|target| target.kind.iter().any(|kind| kind == "test"))
        .map(|target| target.name)
        .collect();
    names.sort();
    Ok(names)
}

/// Builds an integration test of this workspace, and says where it is.
pub fn test_binary(name: &str) -> Result<PathBuf> {
    let messages = output(&[
        "test",
        "--locked",
        "--workspace",
        "--test",
        name,
        "--no-run",
        "--message-format=json-render-diagnostics",
    ])?;
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
    let mut found = artifacts.filter(|artifact| artifact.target.name == name && artifact.profile.test);
    let executable = found.find_map(|artifact| artifact.executable);
    executable.with_context(|| format!("cargo built no test {name}"))
}

/// The part of cargo's message about what it built that says where a test is.
#[derive(Debug, Deserialize)]
struct Artifact {
    target: Target,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
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
    let output = cargo_command().args(arguments).output().context("failed to run cargo")?;
    ensure!(output.status.success(), "cargo {}: {}", arguments[0], String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
