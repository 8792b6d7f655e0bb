//! The CUDA kernels on the host, in the ways that the plain tests of the shim do not run them:
//!
//! ```text
//! kernels/cu, kernels/host ─► with ASan and UBSan ───────────► every operation; faults that have to be told
//!                         ├─► with hooks at each access ─────► every operation, a model; races that have to be told
//!                         └─► with one fault of a list, each ─► the operation's cases, of which one has to fail
//! ```
//!
//! All of them go through the test binary of `--test shim`, which takes the library of kernels from its environment.

mod library;
mod list;
mod mutations;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::{cargo, checkout};
use library::{Build, Recipe};

/// The slowest run takes a quarter of this; a fault may make a kernel that does not end.
const SECONDS_MAX: &str = "240";
/// Kernels of `faults.cu`, and what a sanitizer says of them.
const TOLD_BY_SANITIZERS: [(&str, &str); 4] = [
    ("fault_past_memory", "AddressSanitizer: heap-buffer-overflow"),
    ("fault_past_shared", "AddressSanitizer: global-buffer-overflow"),
    ("fault_past_local", "AddressSanitizer: stack-buffer-overflow"),
    ("fault_shift", "runtime error: shift exponent"),
];
/// They run six times slower than without: no model, and attention in one way.
const SANITIZED: [&str; 5] =
    ["operations::every_operation", "nvfp4::", "sampling::every_choice", "sampling::what_cannot", "faults::"];
/// The models have weights in blocks: most arithmetic on addresses.
const TESTS: [&str; 6] = [
    "operations::",
    "nvfp4::",
    "sampling::every_choice",
    "sampling::what_cannot",
    "faults::",
    "models::weights_in_blocks",
];

/// The test binary, and what every run of it needs.
#[derive(Debug)]
struct Tests {
    binary: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Tests {
    fn command(&self, library: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        // `env`, so that what is preloaded is not preloaded into `timeout`.
        command.args([SECONDS_MAX, "env"]);
        command.args(self.environment.iter().map(|(name, value)| format!("{name}={value}")));
        command.arg(&self.binary).args(["--show-output"]).args(arguments);
        command.env("SPARKHERD_KERNELS_SHIM", library).current_dir(checkout::root());
        command
    }

    /// All of these have to pass. Returns what they printed.
    fn pass(&self, library: &Path, arguments: &[&str]) -> Result<String> {
        let (passed, text) = outcome(&mut self.command(library, arguments))?;
        ensure!(passed, "{text}");
        Ok(text)
    }
}

/// Whether a run of the tests passed, and all that it printed.
fn outcome(command: &mut Command) -> Result<(bool, String)> {
    /// What `timeout` exits with.
    const TOOK_TOO_LONG: i32 = 124;
    let output = command.output().context("cannot run the shim's tests")?;
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    ensure!(output.status.code() != Some(TOOK_TOO_LONG), "not done after {SECONDS_MAX} s\n{text}");
    Ok((output.status.success(), text))
}

pub fn run() -> Result<()> {
    let binary = cargo::test_binary("shim")?;
    let folder = e2e::toolchain::target_directory()?.join("shim");
    sanitizers(&binary, &folder)?;
    let races = races(&binary, &folder)?;
    mutations::check(&binary, &folder, &races)
}

fn sanitizers(binary: &Path, folder: &Path) -> Result<()> {
    let started = Instant::now();
    let build = Build::new(Recipe::Sanitizers, &folder.join("sanitizers"))?;
    let environment = vec![
        ("LD_PRELOAD", library::of_compiler("libasan.so")?),
        // The tests' own memory is none of this; and stacks that outlive their functions are mapped anew for each thread of each
        // block, which takes minutes.
        ("ASAN_OPTIONS", "detect_leaks=0:detect_stack_use_after_return=0".to_owned()),
    ];
    let tests = Tests { binary: binary.to_owned(), environment };
    let text = tests.pass(&build.library, &SANITIZED)?;
    for (kernel, told) in TOLD_BY_SANITIZERS {
        let mut command = tests.command(&build.library, &["--ignored", "faults::a_named_fault"]);
        let (passed, text) = outcome(command.env("SPARKHERD_KERNELS_FAULT", kernel))?;
        ensure!(!passed && text.contains(told), "the sanitizers do not tell of {kernel}:\n{text}");
    }
    let cases = cases(&text)?;
    let faults = TOLD_BY_SANITIZERS.len();
    println!(
        "sanitizers: {cases} operation cases pass, {faults} faults are told; {} s",
        started.elapsed().as_secs()
    );
    Ok(())
}

fn races(binary: &Path, folder: &Path) -> Result<Build> {
    let started = Instant::now();
    let build = Build::new(Recipe::Races, &folder.join("races"))?;
    let environment = vec![("SPARKHERD_KERNELS_RACES", "1".to_owned())];
    let tests = Tests { binary: binary.to_owned(), environment };
    let text = tests.pass(&build.library, &TESTS)?;
    let cases = cases(&text)?;
    println!(
        "races: {cases} operation cases and three models have none, those made for it are told; {} s",
        started.elapsed().as_secs()
    );
    Ok(build)
}

/// As the test of the operations counts them.
fn cases(text: &str) -> Result<usize> {
    let counted = text.lines().find_map(|line| line.trim().strip_suffix(" cases agree"));
    let Some(counted) = counted else { bail!("the operations did not say how many cases agree:\n{text}") };
    Ok(counted.parse()?)
}
