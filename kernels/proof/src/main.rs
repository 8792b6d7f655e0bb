//! Everything that needs a GPU to be proven, in one program that needs nothing but a driver.
#![expect(clippy::print_stdout, clippy::print_stderr, clippy::panic, reason = "it is there to tell")]

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use clap::Parser;
use sparkherd_engine::GpuChoice;
use sparkherd_kernels::{DriverError, Gpu, KernelPlaces};
use sparkherd_proof::bench::{self, Extent};
use sparkherd_proof::report::{Check, Report};
use sparkherd_proof::{choices, models, nvfp4, operations, recordings};

/// Launches of each kernel that is measured.
const LAUNCHES: usize = 30;
/// NVIDIA's checker of memory accesses on a GPU, where it is installed.
const SANITIZER: &str = "compute-sanitizer";

/// Prove the CUDA kernels on a GPU, and measure them.
#[derive(Debug, Parser)]
struct Args {
    /// GPU, as the driver counts
    #[arg(long, default_value_t = 0)]
    gpu: u32,
    /// Library of the CUDA driver, if the system does not find it
    #[arg(long, value_name = "FILE")]
    cuda_driver: Option<PathBuf>,
    /// Compiled kernels to use instead of those in this program
    #[arg(long, value_name = "FILE")]
    kernels: Option<PathBuf>,
    /// Write what was found as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What of it
    #[arg(long, value_enum, default_value_t = Part::All)]
    part: Part,
    /// Divide sizes of what is measured: the host shim takes its time
    #[arg(long, default_value_t = 1, hide = true, value_parser = clap::value_parser!(u32).range(1..))]
    divisor: u32,
    #[arg(long, default_value_t = LAUNCHES, hide = true)]
    launches: usize,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Part {
    /// Comparisons, then speeds if all hold
    All,
    /// Comparisons of operations with the oracle
    Operations,
    /// All comparisons
    Checks,
    /// Only what is measured
    Speeds,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    let Args { gpu, cuda_driver, kernels, json, part, divisor, launches } = args;
    let kernels = KernelPlaces { file: kernels.clone(), ..KernelPlaces::default() };
    let choice = GpuChoice { ordinal: *gpu, driver: cuda_driver.clone(), kernels };
    let open = choice.open()?;
    let properties = open.properties().clone();
    let capability = properties.compute_capability;
    let device = || open.device();
    let checks = match part {
        Part::Operations => vec![operations(device)?],
        Part::Checks | Part::All => {
            let mut checks = checks(device)?;
            checks.extend(sanitized(args)?);
            checks
        }
        Part::Speeds => Vec::new(),
    };
    let mut report = Report {
        device: properties.name,
        compute_capability: format!("{}.{}", capability.major, capability.minor),
        driver_cuda: properties.driver_cuda,
        checks,
        limits: None,
        speeds: Vec::new(),
    };
    if matches!(part, Part::Speeds | Part::All) && report.is_proven() {
        let extent = Extent { launches: *launches, divisor: *divisor };
        let gpu = || open.device();
        let limits = bench::limits(&gpu, extent).context("limits of the chip")?;
        report.speeds = bench::all(&gpu, extent, &limits)?;
        report.limits = Some(limits);
    }
    print!("{report}");
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report)?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(report.is_proven())
}

fn operations(device: impl Fn() -> Result<Gpu, DriverError>) -> Result<Check> {
    Ok(operations::check("", None, certain(&device)?))
}

/// Memory and streams are to be had: the first is given back at once. A GPU that breaks later ends the proof.
fn certain(device: &impl Fn() -> Result<Gpu, DriverError>) -> Result<impl Fn() -> Gpu + Copy> {
    drop(device()?);
    Ok(|| device().unwrap_or_else(|error| panic!("no stream on the GPU any more: {error}")))
}

fn checks(device: impl Fn() -> Result<Gpu, DriverError>) -> Result<Vec<Check>> {
    let device = certain(&device)?;
    let mut checks = vec![operations::check("", None, device)];
    checks.extend([16, 37].map(|run_min| operations::check_attention("", run_min, device)));
    checks.push(operations::check_fused(device));
    checks.push(operations::check_beside_a_prompt(device));
    checks.push(nvfp4::check(device));
    checks.push(models::check(device));
    checks.push(choices::check(device));
    checks.push(recordings::check(device));
    Ok(checks)
}

/// The operations once more, under NVIDIA's checker, if there is one.
fn sanitized(args: &Args) -> Result<Option<Check>> {
    let program = env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(SANITIZER);
    command.args(["--error-exitcode", "9"]).arg(program).args(["--part", "operations", "--gpu"]);
    command.arg(args.gpu.to_string());
    for (flag, file) in [("--cuda-driver", &args.cuda_driver), ("--kernels", &args.kernels)] {
        if let Some(file) = file {
            command.arg(flag).arg(file);
        }
    }
    let Ok(output) = command.output() else {
        println!("{SANITIZER} is not installed: accesses were not checked");
        return Ok(None);
    };
    let mut check = Check { name: "memory accesses, by compute-sanitizer", passed: 1, wrong: Vec::new() };
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout);
        let end = text.lines().rev().take(20).collect::<Vec<_>>().into_iter().rev();
        check = Check { passed: 0, wrong: end.map(str::to_owned).collect(), ..check };
    }
    Ok(Some(check))
}
