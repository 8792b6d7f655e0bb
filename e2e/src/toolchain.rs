//! The programs that a test needs and a machine may lack: Kubernetes itself and Helm, built from their Go
//! modules, and our own binary. Each is built once and kept in the target directory under a name that changes
//! with its inputs.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::Progress;

/// The version of Helm that the chart is tested with.
const HELM_VERSION: &str = "v4.3.1";
/// A Go build is silent for minutes: a line this often shows that it goes on.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Paths of the programs.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// Multi-call binary: etcd, the control plane, the node components and kubectl.
    pub localkube: PathBuf,
    pub helm: PathBuf,
    /// Our own binary, of the profile the harness itself was built with.
    pub sparkherd: PathBuf,
    /// Cargo's target directory: logs of a run are left in it.
    pub target: PathBuf,
}

impl Toolchain {
    /// Builds what is missing. The first call on a machine takes about eight minutes on two cores, later ones
    /// a second.
    pub fn prepare(progress: Progress) -> Result<Self> {
        let target = target_directory()?;
        let kubernetes = Self::kubernetes(&target, progress)?;
        let sparkherd = build_sparkherd(progress)?;
        Ok(Self { sparkherd, ..kubernetes })
    }

    /// As [`Self::prepare`], for tests of the harness itself: `sparkherd` is only named, not built.
    pub fn prepare_kubernetes(progress: Progress) -> Result<Self> {
        Self::kubernetes(&target_directory()?, progress)
    }

    fn kubernetes(target: &Path, progress: Progress) -> Result<Self> {
        let cache = target.join("localkube");
        fs::create_dir_all(&cache)?;
        let lock = File::create(cache.join("lock"))?;
        if lock.try_lock().is_err() {
            progress("waiting for another run that builds Kubernetes and Helm");
            lock.lock()?;
        }
        let localkube = build_localkube(&cache, progress)?;
        let helm = build_helm(&cache, progress)?;
        let sparkherd = profile_directory()?.join("sparkherd");
        Ok(Self { localkube, helm, sparkherd, target: target.to_owned() })
    }
}

/// The root of the checkout.
pub fn repository() -> PathBuf {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_root.parent().unwrap_or(crate_root).to_owned()
}

/// Cargo marks its target directory; walking up from our own executable finds it wherever it was moved to.
pub fn target_directory() -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let found = executable.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file());
    found
        .map(Path::to_owned)
        .with_context(|| format!("{} is not in a target directory", executable.display()))
}

/// `target/debug`, or what the profile in use is called.
fn profile_directory() -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let parent = executable.parent().context("executable has no folder")?;
    let is_test = parent.file_name().is_some_and(|name| name == "deps");
    Ok(if is_test { parent.parent().unwrap_or(parent) } else { parent }.to_owned())
}

fn build_localkube(cache: &Path, progress: Progress) -> Result<PathBuf> {
    let module = repository().join("e2e/localkube");
    let requirements = fs::read_to_string(module.join("go.mod"))?;
    let version = kubernetes_version(&requirements).context("go.mod does not require k8s.io/kubernetes")?;
    let flags = linker_flags(version);
    let mut digest = Sha256::new();
    digest.update(&flags);
    for input in ["go.mod", "go.sum", "main.go"] {
        digest.update(fs::read(module.join(input)).with_context(|| format!("failed to read {input}"))?);
    }
    let key = digest.finalize().iter().take(6).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let binary = cache.join(format!("localkube-{key}"));
    if binary.is_file() {
        return Ok(binary);
    }
    progress(&format!("building Kubernetes {version} from its Go modules: about 5 minutes the first time"));
    // Linked beside its final name: a build that was cut off leaves nothing that looks finished.
    let partial = cache.join("localkube.partial");
    let mut go = go_command();
    go.current_dir(&module)
        .args(["build", "-v", "-trimpath", "-ldflags", &flags, "-o"])
        .arg(&partial)
        .arg(".");
    run_go(go, "Kubernetes", progress)?;
    fs::rename(&partial, &binary)?;
    Ok(binary)
}

/// `v1.34.4` of `k8s.io/kubernetes v1.34.4`.
fn kubernetes_version(requirements: &str) -> Option<&str> {
    requirements.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes "))
}

/// Kubernetes' own build stamps its version at link time, and Helm refuses a server that does not say one.
fn linker_flags(version: &str) -> String {
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let mut flags = String::from("-s -w");
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (variable, value) in [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor)] {
            let _ = write!(flags, " -X {package}.{variable}={value}");
        }
    }
    flags
}

fn build_helm(cache: &Path, progress: Progress) -> Result<PathBuf> {
    let folder = cache.join(format!("helm-{HELM_VERSION}"));
    let binary = folder.join("helm");
    if binary.is_file() {
        return Ok(binary);
    }
    progress(&format!("building Helm {HELM_VERSION}: about 3 minutes the first time"));
    let partial = cache.join("helm.partial");
    let mut go = go_command();
    go.args(["install", "-v", "-trimpath"]).arg(format!("helm.sh/helm/v4/cmd/helm@{HELM_VERSION}"));
    go.env("GOBIN", &partial);
    run_go(go, "Helm", progress)?;
    fs::rename(&partial, &folder)?;
    Ok(binary)
}

fn go_command() -> Command {
    let mut go = Command::new("go");
    go.env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly").env("GOWORK", "off");
    go
}

/// What a line of a build's standard error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BuildLine {
    Fetched,
    Compiled,
    Other,
}

/// Runs a verbose Go build, which names each package it compiles and each module it downloads on a line.
fn run_go(go: Command, what: &str, progress: Progress) -> Result<()> {
    match run_build(go, what, go_line, progress) {
        Err(error) if is_not_found(&error) => {
            bail!("go is not on PATH: install Go 1.25 or newer (it builds the Kubernetes of the tests)")
        }
        other => other,
    }
}

fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// Runs a build, says every few seconds how far it is, and shows all else it said only if it fails.
fn run_build(
    mut build: Command,
    what: &str,
    line_of: fn(&str) -> BuildLine,
    progress: Progress,
) -> Result<()> {
    let started = Instant::now();
    let mut child = build.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let stderr = child.stderr.take().context("a build has no stderr")?;
    let (mut fetched, mut compiled, mut last) = (0_u32, 0_u32, started);
    let mut complaints = Vec::new();
    for line in BufReader::new(stderr).lines() {
        let line = line?;
        match line_of(&line) {
            BuildLine::Fetched => fetched += 1,
            BuildLine::Compiled => compiled += 1,
            BuildLine::Other => complaints.push(line),
        }
        if last.elapsed() >= PROGRESS_EVERY {
            last = Instant::now();
            let seconds = started.elapsed().as_secs();
            progress(&format!("{what}: {fetched} fetched, {compiled} packages compiled, {seconds} s"));
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "failed to build {what} ({status}):\n{}", complaints.join("\n"));
    if compiled > 0 {
        progress(&format!("built {what} in {} s", started.elapsed().as_secs()));
    }
    Ok(())
}

fn go_line(line: &str) -> BuildLine {
    match line {
        _ if line.starts_with("go: downloading") => BuildLine::Fetched,
        _ if is_package_path(line) => BuildLine::Compiled,
        _ => BuildLine::Other,
    }
}

fn cargo_line(line: &str) -> BuildLine {
    match line.trim_start().split_once(' ') {
        Some(("Downloaded", _)) => BuildLine::Fetched,
        Some(("Compiling", _)) => BuildLine::Compiled,
        _ => BuildLine::Other,
    }
}

fn is_package_path(line: &str) -> bool {
    !line.is_empty() && !line.starts_with('#') && !line.contains([' ', ':'])
}

/// Cargo in the checkout, called from a program that cargo itself may have started: the same cargo, without what it told us
/// of our own package. The build script of `ring` watches those variables, so passing them on would compile it, and all that
/// needs it, again in every call.
pub fn cargo_command() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(repository());
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            command.env_remove(name);
        }
    }
    command
}

/// Cargo decides whether there is anything to do. No package is named: the dependencies' features are then the same as in every other build of the workspace, and nothing is built twice.
fn build_sparkherd(progress: Progress) -> Result<PathBuf> {
    progress("building sparkherd");
    let profile = profile_directory()?;
    let mut build = cargo_command();
    build.args(["build", "--locked", "--bin", "sparkherd"]);
    if profile.file_name().is_some_and(|name| name == "release") {
        build.arg("--release");
    }
    run_build(build, "sparkherd", cargo_line, progress)?;
    Ok(profile.join("sparkherd"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_says_the_version_that_is_required() {
        let version =
            kubernetes_version("require (\n\tk8s.io/kubectl v0.34.4\n\tk8s.io/kubernetes v1.34.4\n)");
        assert_eq!(version, Some("v1.34.4"));
        let flags = linker_flags("v1.34.4");
        assert!(flags.contains("component-base/version.gitVersion=v1.34.4 "), "{flags}");
        assert!(flags.ends_with("client-go/pkg/version.gitMinor=34"), "{flags}");
    }

    #[test]
    fn lines_of_cargo_are_told_apart() {
        assert_eq!(cargo_line("  Downloaded regex v1.12.2"), BuildLine::Fetched);
        assert_eq!(cargo_line("   Compiling regex v1.12.2"), BuildLine::Compiled);
        assert_eq!(cargo_line("error[E0308]: mismatched types"), BuildLine::Other);
        assert_eq!(cargo_line(""), BuildLine::Other);
    }

    #[test]
    fn a_package_is_told_from_a_complaint() {
        assert!(is_package_path("k8s.io/kubernetes/pkg/apis/core"));
        assert!(is_package_path("crypto/internal/fips140deps/godebug"));
        assert!(!is_package_path("# k8s.io/kubernetes/pkg/apis/core"));
        assert!(!is_package_path("main.go:12:2: undefined: thing"));
    }
}
