//! Everything that needs a GPU to be proven, in one program that needs nothing but a driver.
#![expect(clippy::print_stdout, clippy::print_stderr, clippy::panic, reason = "it is there to tell")]

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use sparkherd_engine::{GpuChoice, GpuError, OpenGpu};
use sparkherd_gpu::{GpuPlace, Nvml, VISIBLE_DEVICES};
use sparkherd_kernels::{Driver, DriverError, Gpu, GpuContext, KernelPlaces};
use sparkherd_proof::bench::{self, Bench, Extent};
use sparkherd_proof::goal::Chip;
use sparkherd_proof::memory::{MemoryLine, Subject, Usage, Witness};
use sparkherd_proof::random_model::RandomModel;
use sparkherd_proof::report::{Check, Report};
use sparkherd_proof::{checkpoints, choices, models, nvfp4, operations, recordings, sanitizer};

/// Launches of each kernel that is measured.
const LAUNCHES: usize = 30;
/// Whose memory is looked at, beside the random model's of real size.
const TINY: &str = "tiny-llama3-bf16";

/// Prove the CUDA kernels on a GPU, and measure them.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    gpu: GpuChoice,
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
    #[arg(long, default_value = "/proc", hide = true)]
    proc_root: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Memory, comparisons, speeds if all are right, then the sanitizer
    All,
    /// Comparisons of operations with the oracle, and of tokens with the host's choice: each of an engine's kernels
    Operations,
    /// All comparisons
    Checks,
    /// Memory beside what was planned
    Memory,
    /// Only what is measured
    Speeds,
    /// What `operations` compares, under NVIDIA's compute-sanitizer, if it is installed
    Sanitizer,
}

impl Part {
    fn has(self, part: Self) -> bool {
        self == Self::All || self == part
    }
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
    let Args { gpu, json, part, divisor, launches, proc_root } = args;
    let nvml = Nvml::open(GpuPlace::new(gpu.ordinal, env::var_os(VISIBLE_DEVICES)));
    let witness = Witness { nvml: &nvml, pid: std::process::id(), proc_root };
    // Nobody has a context yet.
    let start = witness.look(None);
    // Held until another handle of it is: it is not unloaded between.
    let found = find(gpu)?;
    let needs_model = part.has(Part::Memory) || part.has(Part::Speeds);
    let unwritten = witness.look(None);
    let random = needs_model.then(|| RandomModel::write(*divisor)).transpose();
    let random = random.context("cannot write a random model")?;
    let before = start.lost_before(&unwritten, &witness.look(None));
    let open = gpu.open()?;
    drop(found);
    let properties = open.properties().clone();
    let capability = properties.compute_capability;
    let device = || open.device();
    let mut report = Report {
        device: properties.name,
        compute_capability: format!("{}.{}", capability.major, capability.minor),
        driver_cuda: properties.driver_cuda,
        memory: Vec::new(),
        checks: Vec::new(),
        limits: None,
        speeds: Vec::new(),
    };
    if let Some(random) = random.as_ref().filter(|_| part.has(Part::Memory)) {
        report.memory = memory(&open, before, &witness, random)?;
    }
    if part.has(Part::Checks) {
        report.checks = checks(certain(&device)?);
    } else if *part == Part::Operations {
        report.checks = each_kernel(certain(&device)?);
    }
    if let Some(random) = random.as_ref().filter(|_| part.has(Part::Speeds) && report.computes_right()) {
        let extent = Extent { launches: *launches, divisor: *divisor };
        let limits = bench::limits(&device, extent).context("limits of the chip")?;
        let bench = Bench { gpu: &device, chip: Chip::of(capability), extent, limits };
        report.speeds = bench.all(random).context("speeds")?;
        report.limits = Some(limits);
    }
    print!("{report}");
    let keep = |report: &Report| match json {
        Some(path) => fs::write(path, serde_json::to_string_pretty(report)?)
            .with_context(|| format!("cannot write {}", path.display())),
        None => Ok(()),
    };
    keep(&report)?;
    if part.has(Part::Sanitizer) {
        // It takes far longer than all before, which is told whatever becomes of it.
        let checks = sanitized(gpu)?;
        for check in &checks {
            print!("{check}");
        }
        report.checks.extend(checks);
        keep(&report)?;
    }
    Ok(report.is_proven())
}

/// The driver, if there is such a GPU, without a context on it. One that is made after a large file was written has its pages counted as
/// taken before, where memory is the host's too; and without a GPU nothing is written.
fn find(gpu: &GpuChoice) -> Result<Driver, GpuError> {
    let GpuChoice { ordinal, driver, kernels: _ } = gpu;
    let driver = Driver::open(driver.as_ref().map(|path| path.as_os_str()))?;
    let count = GpuContext::count(&driver)?;
    if *ordinal < count { Ok(driver) } else { Err(GpuError::NoGpu { ordinal: *ordinal, count }) }
}

/// Of a tiny model, and of one of real size.
fn memory(
    open: &OpenGpu,
    before: Usage,
    witness: &Witness<'_>,
    random: &RandomModel,
) -> Result<Vec<MemoryLine>> {
    let tiny = tempfile::tempdir().context("cannot unpack a model")?;
    checkpoints::named(TINY).unpack(tiny.path()).context("cannot unpack a model")?;
    let subjects = [
        Subject { name: TINY, directory: tiny.path() },
        Subject { name: "random", directory: random.directory() },
    ];
    let mut lines = Vec::new();
    for subject in subjects {
        lines.extend(subject.measure(open, before, witness, || {})?);
    }
    Ok(lines)
}

/// Memory and streams are to be had: the first is given back at once. A GPU that breaks later ends the proof.
fn certain(device: &impl Fn() -> Result<Gpu, DriverError>) -> Result<impl Fn() -> Gpu + Copy> {
    drop(device()?);
    Ok(|| device().unwrap_or_else(|error| panic!("no stream on the GPU any more: {error}")))
}

/// What launches each kernel of an engine once at least, and is quick enough for a sanitizer.
fn each_kernel(device: impl Fn() -> Gpu + Copy) -> Vec<Check> {
    vec![
        operations::check("", None, device),
        // Partial sums of blocks that share positions, and their combination.
        operations::check_attention("", 16, device),
        nvfp4::check(device),
        choices::check(device),
    ]
}

fn checks(device: impl Fn() -> Gpu + Copy) -> Vec<Check> {
    let mut checks = each_kernel(device);
    checks.extend([
        operations::check_attention("", 37, device),
        operations::check_fused(device),
        operations::check_beside_a_prompt(device),
        models::check(device),
        recordings::check(device),
    ]);
    checks
}

/// Each kernel of an engine once more, under NVIDIA's checkers, if they are there.
fn sanitized(gpu: &GpuChoice) -> Result<Vec<Check>> {
    let program = env::current_exe().context("cannot find this program")?;
    let GpuChoice { ordinal, driver, kernels: KernelPlaces { file, compiler, cache } } = gpu;
    let mut arguments: Vec<OsString> =
        ["--part", "operations", "--gpu"].map(OsString::from).into_iter().collect();
    arguments.push(ordinal.to_string().into());
    let files =
        [("--cuda-driver", driver), ("--kernels", file), ("--nvrtc", compiler), ("--kernel-cache", cache)];
    for (flag, file) in files {
        arguments.extend(file.iter().flat_map(|file| [flag.into(), file.into()]));
    }
    Ok(sanitizer::check(sanitizer::PROGRAM.as_ref(), &program, &arguments).unwrap_or_else(|error| {
        println!("accesses were not checked: {}: {error}", sanitizer::PROGRAM);
        Vec::new()
    }))
}
