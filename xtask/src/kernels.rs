//! Kernels as machine code of every chip they are made for, and what they take there.
//!
//! ```text
//! PyPI: NVRTC, no GPU needed ─► each .cu × each architecture ─► rules ─► kernels/resources.txt, which is committed
//! ```
//!
//! The file is compared in the tests, so that a change which costs registers or spills them is seen in a review.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sparkherd_kernels::{ARCHITECTURES, Architecture, Compiler, Cubins, KernelPlaces, Provenance, Resources};

use crate::checkout;

/// What the file was made with: another version gives other numbers.
const NVRTC: &str = "nvidia-cuda-nvrtc==13.5.37";
/// Where the package has it.
const NVRTC_LIBRARY: &str = "nvidia/cu13/lib/libnvrtc.so.13";
const RESOURCES: &str = "kernels/resources.txt";

/// Kernels in whose inner loop a spilled register would be read from memory.
const HOT: [&str; 4] = ["linear_", "attention_", "sample", "logprobs"];
/// Shared memory that a block may have on consumer Blackwell, GB10 included; the others have more.
const SHARED_BYTES_MAX: u32 = 99 << 10;

type Table = Vec<(Architecture, Vec<Resources>)>;

/// Gets NVRTC, once.
pub fn prepare() -> Result<()> {
    let folder = folder()?;
    if folder.join(NVRTC_LIBRARY).exists() {
        return Ok(());
    }
    // Of its own: the system's Python may have no pip, or may not be installed into.
    let environment = folder.join("venv");
    succeed(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    let mut pip = Command::new(environment.join("bin/python"));
    succeed(pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(&folder).arg(NVRTC))
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "no NVRTC: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Writes machine code of all chips into a file.
pub fn bundle(path: &Path) -> Result<()> {
    prepare()?;
    let compiled = compile(&folder()?.join(NVRTC_LIBRARY))?;
    let chips: Vec<Cubins> = compiled.into_iter().map(|(_, cubins, _)| cubins).collect();
    let bytes = Cubins::encode(&chips);
    fs::write(path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
    let mib = bytes.len() as f64 / f64::from(1 << 20);
    println!("{}: kernels of {} chips, {mib:.1} MiB", path.display(), chips.len());
    Ok(())
}

pub fn run(check: bool) -> Result<()> {
    prepare()?;
    compiled_once(&folder()?.join(NVRTC_LIBRARY))?;
    let compiled = compile(&folder()?.join(NVRTC_LIBRARY))?;
    let table = compiled.into_iter().map(|(architecture, _, resources)| (architecture, resources)).collect();
    let broken = broken_rules(&table);
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    let text = render(&table);
    let path = checkout::root().join(RESOURCES);
    if check {
        let known = fs::read_to_string(&path).unwrap_or_default();
        let changed = differences(&known, &text);
        ensure!(
            changed.is_empty(),
            "{RESOURCES} is not what the kernels take now; run `cargo xtask kernels` and commit it:\n{changed}"
        );
        return Ok(());
    }
    print!("{text}");
    fs::write(&path, text).with_context(|| format!("cannot write {RESOURCES}"))
}

fn folder() -> Result<PathBuf> {
    let version = NVRTC.rsplit('=').next().unwrap_or_default();
    Ok(e2e::toolchain::target_directory()?.join("nvrtc").join(version))
}

fn compile(library: &Path) -> Result<Vec<(Architecture, Cubins, Vec<Resources>)>> {
    let compiler = Compiler::open(library.as_os_str())?;
    let chips = ARCHITECTURES.into_iter().map(|architecture| {
        let (cubins, mut resources) = Cubins::compile(&compiler, architecture)?;
        resources.sort_unstable();
        Ok((architecture, cubins, resources))
    });
    chips.collect()
}

/// As a developer's engine has it: what was compiled at the first start is there at the second.
fn compiled_once(library: &Path) -> Result<()> {
    let cache = tempfile::tempdir()?;
    let places = KernelPlaces {
        file: None,
        compiler: Some(library.to_owned()),
        cache: Some(cache.path().join("kernels")),
    };
    let [first, second] = [places.provide(ARCHITECTURES[0])?, places.provide(ARCHITECTURES[0])?];
    let expected = [Provenance::Compiler { not_kept: None }, Provenance::Cache];
    ensure!([&first.from, &second.from] == expected.each_ref(), "{:?}, then {:?}", first.from, second.from);
    ensure!(first.cubins == second.cubins, "the cache gives other kernels than were compiled");
    Ok(())
}

/// What no kernel may do, whatever the file says.
fn broken_rules(table: &Table) -> Vec<String> {
    let mut broken = Vec::new();
    for (architecture, kernels) in table {
        for Resources { kernel, registers: _, spill_bytes, stack_bytes, shared_bytes } in kernels {
            let is_hot = HOT.iter().any(|hot| kernel.starts_with(hot));
            if *spill_bytes > 0 && is_hot {
                broken.push(format!("{kernel} spills {spill_bytes} bytes a thread on {architecture}"));
            }
            if *stack_bytes > 0 && is_hot {
                broken
                    .push(format!("{kernel} has a stack of {stack_bytes} bytes a thread on {architecture}"));
            }
            if *shared_bytes > SHARED_BYTES_MAX && architecture.name.starts_with("sm_12") {
                broken.push(format!("{kernel} has {shared_bytes} bytes of shared memory on {architecture}"));
            }
        }
    }
    broken
}

fn render(table: &Table) -> String {
    let mut text = format!(
        "# Made by `cargo xtask kernels` with {NVRTC}.\n# chip kernel registers spilled stack shared\n"
    );
    for (architecture, kernels) in table {
        for Resources { kernel, registers, spill_bytes, stack_bytes, shared_bytes } in kernels {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{architecture} {kernel} {registers} {spill_bytes} {stack_bytes} {shared_bytes}"
            );
        }
    }
    text
}

/// Lines that only one of them has.
fn differences(known: &str, now: &str) -> String {
    let only = |text: &str, other: &str, mark: char| {
        let other: Vec<&str> = other.lines().collect();
        let lines = text.lines().filter(|line| !other.contains(line)).map(|line| format!("{mark} {line}\n"));
        lines.collect::<String>()
    };
    only(known, now, '-') + &only(now, known, '+')
}

#[cfg(test)]
mod tests {
    use sparkherd_kernels::{ARCHITECTURES, Resources};

    use super::{broken_rules, differences, render};

    fn table([spill_bytes, stack_bytes, shared_bytes]: [u32; 3]) -> super::Table {
        let kernel = "linear_bf16".to_owned();
        let kernels = vec![Resources { kernel, registers: 40, spill_bytes, stack_bytes, shared_bytes }];
        vec![(ARCHITECTURES[6], kernels)]
    }

    #[test]
    fn a_hot_kernel_that_spills_or_takes_too_much_is_named() {
        assert!(broken_rules(&table([0, 0, 99 << 10])).is_empty());
        assert_eq!(broken_rules(&table([8, 0, 0])), ["linear_bf16 spills 8 bytes a thread on sm_121a"]);
        assert_eq!(
            broken_rules(&table([0, 16, 0])),
            ["linear_bf16 has a stack of 16 bytes a thread on sm_121a"]
        );
        assert_eq!(broken_rules(&table([0, 0, 102_400])).len(), 1);
    }

    #[test]
    fn what_changed_is_told() {
        let [before, after] = [0, 16].map(|shared| render(&table([0, 0, shared])));
        assert_eq!(differences(&before, &before), "");
        assert_eq!(
            differences(&before, &after),
            "- sm_121a linear_bf16 40 0 0 0\n+ sm_121a linear_bf16 40 0 0 16\n"
        );
    }
}
