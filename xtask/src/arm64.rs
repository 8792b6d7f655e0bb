//! `cargo xtask arm64`: the engine's tests with the instructions of a Spark's processor, on this one; and what is built for a Spark.
//!
//! ```text
//! debootstrap ─► a Debian with rustc, arm64's standard library and qemu      once, in the target directory
//!                    │
//! checkout, crates ─►│ mount namespace: cargo test | build | run --target aarch64… ─► qemu-aarch64
//! ```
//!
//! Results are the processor's; times are qemu's and say nothing. The checkout and the crates are read-only in there.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::toolchain::target_directory;

use crate::{cargo, checkout};

const TARGET: &str = "aarch64-unknown-linux-gnu";
/// The engine's numbers, which differ with the instructions, and the crates below it. Left out is what is the same code on all
/// processors and takes minutes in an emulator, or fails there because it bounds its own time.
const TESTS: [&str; 10] = [
    "--package=sparkherd-engine",
    "--package=sparkherd-checkpoint",
    "--package=sparkherd-footprint",
    "--lib",
    "--test=forward",
    "--no-fail-fast",
    "--",
    "--skip=grammar::",
    "--skip=demo_model",
    "--skip=every_weight_counts",
];

/// What the tests run in.
struct Debian {
    root: PathBuf,
    /// Cargo's target directory in there.
    target: PathBuf,
}

/// Everything that can be missing on a machine without anything being wrong with sparkherd.
pub fn prepare() -> Result<()> {
    Debian::prepare().map(drop)
}

/// Builds and runs the tests.
pub fn test() -> Result<()> {
    let debian = Debian::prepare()?;
    succeed(debian.cargo("test")?.args(TESTS))
}

/// A program as it is built for arm64, and what it says on standard error when it is started there.
#[derive(Debug)]
pub struct Program {
    pub path: PathBuf,
    pub said: String,
    pub has_succeeded: bool,
}

/// Builds the program of this package and name with these kernels in it, and starts it without arguments.
pub fn program(package: &str, kernels: &Path) -> Result<Program> {
    let debian = Debian::prepare()?;
    let inside = Path::new("/target");
    let bundle = "kernels.bundle";
    fs::copy(kernels, debian.target.join(bundle)).context("cannot copy the kernels")?;
    // In a directory of its own: kernels in the program are another build of everything above them.
    let folder = "programs";
    let cargo = |what| {
        let mut cargo = debian.cargo(what)?;
        cargo.args(["--release", "--package", package, "--bin", package, "--target-dir"]);
        cargo.arg(inside.join(folder)).env("SPARKHERD_KERNELS", inside.join(bundle));
        Ok::<_, anyhow::Error>(cargo)
    };
    succeed(&mut cargo("build")?)?;
    let output = cargo("run")?.arg("--quiet").output().context("failed to run unshare")?;
    Ok(Program {
        path: debian.target.join(folder).join(TARGET).join("release").join(package),
        said: String::from_utf8_lossy(&output.stderr).into_owned(),
        has_succeeded: output.status.success(),
    })
}

impl Debian {
    fn prepare() -> Result<Self> {
        check_machine()?;
        let folder = target_directory()?.join("arm64");
        let debian = Self { root: folder.join("debian"), target: folder.join("target") };
        fs::create_dir_all(&debian.target)?;
        let lock = File::create(folder.join("lock"))?;
        lock.lock()?;
        let (script, stamp) = (source("prepare.sh"), folder.join("prepared-by"));
        let wanted = fs::read_to_string(&script)?;
        if fs::read_to_string(&stamp).is_ok_and(|prepared_by| prepared_by == wanted) {
            return Ok(debian);
        }
        println!("preparing a Debian with rustc and qemu: about 2 minutes and 2 GB the first time");
        // Whatever an interrupted preparation left has no stamp.
        for left in [&stamp, &debian.root] {
            remove(left)?;
        }
        let mut prepare = in_namespaces(&script);
        succeed(prepare.arg(&debian.root).arg(mirror()?).stdout(Stdio::null()))?;
        fs::write(stamp, wanted)?;
        Ok(debian)
    }

    /// Cargo in there, for arm64; more arguments may follow.
    fn cargo(&self, what: &str) -> Result<Command> {
        cargo::run(&["fetch", "--locked"])?;
        let mut command = in_namespaces(&source("cargo.sh"));
        command.args([&self.root, &checkout::root(), &cargo_home()?, &self.target]);
        command.args([what, "--locked", "--target", TARGET]);
        Ok(command)
    }
}

/// In one line, what this machine lacks.
fn check_machine() -> Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), "made for x86-64; on arm64 the other heights run the same paths");
    let path = env::var_os("PATH").unwrap_or_default();
    let has = |name: &str| env::split_paths(&path).any(|folder| folder.join(name).is_file());
    for program in ["debootstrap", "unshare", "apt-get"] {
        ensure!(has(program), "{program} is not installed");
    }
    let unshared = Command::new("unshare").args(["--mount", "--pid", "--fork", "true"]).output()?;
    ensure!(unshared.status.success(), "needs root: {}", String::from_utf8_lossy(&unshared.stderr).trim());
    Ok(())
}

/// Mounts and processes of the script end with it.
fn in_namespaces(script: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh"]).arg(script);
    command
}

/// Where this machine's own apt has its release from.
fn mirror() -> Result<String> {
    let os_release = fs::read_to_string("/etc/os-release")?;
    let release = codename(&os_release).context("/etc/os-release names no release")?;
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"]);
    let sources = apt.output().context("failed to run apt-get")?;
    let sources = String::from_utf8(sources.stdout)?;
    let mirror = mirror_of(release, &sources);
    mirror.map(str::to_owned).with_context(|| format!("apt has no source for {release}"))
}

fn codename(os_release: &str) -> Option<&str> {
    os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))
}

/// The first source of exactly this release: its updates may come from elsewhere.
fn mirror_of<'a>(release: &str, sources: &'a str) -> Option<&'a str> {
    sources.lines().filter_map(|line| line.split_once(' ')).find(|(of, _)| *of == release).map(|(_, uri)| uri)
}

fn cargo_home() -> Result<PathBuf> {
    let from_home = || env::home_dir().map(|home| home.join(".cargo"));
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(from_home).context("cargo has no home")
}

fn source(name: &str) -> PathBuf {
    checkout::root().join("xtask/src/arm64").join(name)
}

fn remove(path: &Path) -> Result<()> {
    if path.is_dir() {
        fs::remove_dir_all(path)?;
    } else if path.exists() {
        fs::remove_file(path)?;
    }
    Ok(())
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().context("failed to run unshare")?;
    let script =
        command.get_args().find(|argument| Path::new(argument).extension() == Some(OsStr::new("sh")));
    ensure!(status.success(), "{}: {status}", script.unwrap_or_default().display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{codename, mirror_of};

    #[test]
    fn the_mirror_is_that_of_the_release_itself() {
        let release = codename("ID=debian\nVERSION_CODENAME=bookworm\nVERSION_ID=\"12\"\n").unwrap();
        let sources = "bookworm-security http://a/\nstable https://b/\nbookworm http://c/debian/\n";
        assert_eq!(mirror_of(release, sources), Some("http://c/debian/"));
        assert_eq!(mirror_of("trixie", sources), None);
    }
}
