//! `sparkherd bench engine`: a model in this process, without scheduler and server.
//!
//! ```text
//! MODEL_DIR ─ load_model ─► ForwardPass ─ prefill, decode at depths and widths ─► medians ─┐
//! as much memory as no cache holds ─ read by the same threads, or the GPU ─► bandwidth ────┴─► report (table | JSON)
//! ```

mod cases;
mod report;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use sparkherd_checkpoint::{Checkpoint, Requantize};
use sparkherd_engine::backend::cpu::{Path, ReadSpeed, measure_paths};
use sparkherd_engine::weights::ModelDirectory;
use sparkherd_engine::{BackendChoice, Clock, GpuChoice, LoadConfig, LoadedModel, load_model};
use sparkherd_footprint::{Platform, Serving, kv_dtype_auto, plan, whole_blocks};
use sparkherd_gpu::GpuSource as _;
use sparkherd_kernels::{ChipLimits, LimitsExtent};

use crate::gpu::{BackendArg, GpuArgs};
use cases::{Case, Timing};
use report::{Computer, Measured, Report, Work};

/// Read at once to measure the bandwidth: many times the largest last-level caches, which reach 260 MiB on machines where
/// this runs.
const READ_BYTES: usize = 2 << 30;

/// Measure a model's prefill and decode speed in this process, beside the memory bandwidth of the same minute.
#[derive(Debug, clap::Args)]
pub(crate) struct EngineArgs {
    /// Directory of the checkpoint
    #[arg(value_name = "MODEL_DIR")]
    model_dir: PathBuf,
    /// Tokens of the prompt whose prefill is measured
    #[arg(long, default_value_t = 512, value_name = "TOKENS")]
    prompt: u32,
    /// Steps of each decode that is measured
    #[arg(long, default_value_t = 128, value_name = "TOKENS")]
    generate: u32,
    /// Decode one sequence after so many tokens, each
    #[arg(long, default_value = "0,2048", value_delimiter = ',', value_name = "TOKENS")]
    depth: Vec<u32>,
    /// Decode so many sequences at once, each, at the first depth
    #[arg(long, default_value = "1,8", value_delimiter = ',', value_name = "COUNT")]
    sequences: Vec<u32>,
    /// Measure each case so often; the median counts
    #[arg(long, default_value_t = 3, value_name = "COUNT")]
    repeat: usize,
    /// Compute threads, or those that read weights for a GPU; default: all processors
    #[arg(long, value_name = "COUNT")]
    threads: Option<u32>,
    /// Compute with these instructions instead of those measured as the fastest
    #[arg(long, value_name = "NAME")]
    cpu_path: Option<Path>,
    /// What to compute on
    #[arg(long, value_enum, default_value_t = BackendArg::Auto)]
    backend: BackendArg,
    #[command(flatten)]
    gpu: GpuArgs,
    /// Divide what is measured of the machine itself: the host shim takes its time
    #[arg(long, default_value_t = 1, hide = true, value_parser = clap::value_parser!(u32).range(1..))]
    divisor: u32,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: EngineArgs) -> anyhow::Result<()> {
    let EngineArgs {
        model_dir,
        prompt,
        generate,
        depth,
        sequences,
        repeat,
        threads,
        cpu_path,
        backend,
        gpu,
        divisor,
        json,
    } = args;
    ensure!(prompt > 0 && generate > 0 && repeat > 0, "--prompt, --generate and --repeat are at least 1");
    ensure!(cpu_path.is_none() || backend != BackendArg::Cuda, "--cpu-path is not for a GPU");
    let threads = match threads {
        Some(threads) => threads,
        None => u32::try_from(available_parallelism().context("cannot count processors")?.get())?,
    };
    let bench = Bench {
        model_dir,
        cases: cases::list(prompt, generate, &depth, &sequences),
        repeat,
        threads,
        divisor,
    };
    // Whoever names instructions means the processor.
    let is_on_gpu = cpu_path.is_none() && gpu.is_taken(backend, &gpu.nvml().read());
    let report = if is_on_gpu {
        bench.on_gpu(&gpu.choice())?
    } else {
        bench.on_cpu(cpu_path.map_or_else(fastest_path, Ok)?)?
    };
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(())
}

/// What is to be measured.
struct Bench {
    model_dir: PathBuf,
    cases: Vec<Case>,
    repeat: usize,
    threads: u32,
    divisor: u32,
}

impl Bench {
    fn on_cpu(self, path: Path) -> anyhow::Result<Report> {
        let bytes = READ_BYTES / self.divisor as usize;
        let mut model = self.load(Platform::cpu(self.threads), BackendChoice::CpuPath(path))?;
        let mut read =
            ReadSpeed::new(bytes, self.threads as usize).context("cannot measure the bandwidth")?;
        let mut read_seconds = Vec::new();
        let measured = self.measure(&mut model, || {
            let begin = Instant::now();
            std::hint::black_box(read.read()?);
            read_seconds.push(begin.elapsed().as_secs_f64());
            Ok(())
        })?;
        Ok(Report {
            computer: Computer::Cpu { cpu_path: path.name(), threads: self.threads },
            read_gb_per_second: report::gb_per_second(read.bytes() as f64, cases::median(read_seconds)),
            cases: measured,
        })
    }

    /// The GPU is measured by itself, before the model takes its memory.
    fn on_gpu(self, choice: &GpuChoice) -> anyhow::Result<Report> {
        let open = choice.open().context("cannot use the GPU")?;
        let extent = LimitsExtent { launches: self.repeat, ..LimitsExtent::WHOLE.divided(self.divisor) };
        let ChipLimits { read_bytes_per_second, bf16_operations_per_second } =
            ChipLimits::measure(&mut open.device()?, extent).context("cannot measure the GPU")?;
        let mut model = self.load(Platform::cuda(self.threads), BackendChoice::Cuda(choice.clone()))?;
        let measured = self.measure(&mut model, || Ok(()))?;
        Ok(Report {
            computer: Computer::Gpu {
                gpu: open.properties().name.clone(),
                bf16_gflop_per_second: bf16_operations_per_second / 1e9,
            },
            read_gb_per_second: read_bytes_per_second / 1e9,
            cases: measured,
        })
    }

    /// Case by case and around again, so that what disturbs a moment disturbs one run of each. `around` comes before each round.
    fn measure(
        &self,
        model: &mut LoadedModel,
        mut around: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<Measured>> {
        let mut seconds = vec![Vec::new(); self.cases.len()];
        for _ in 0..self.repeat {
            around()?;
            for (case, seconds) in self.cases.iter().zip(&mut seconds) {
                seconds.push(case.run(model)?);
            }
        }
        let work = Work::new(model.checkpoint());
        let timings = self.cases.iter().zip(seconds).map(|(case, seconds)| Timing::new(*case, seconds));
        Ok(timings.map(|timing| work.measured(&timing)).collect())
    }

    fn load(&self, platform: Platform, backend: BackendChoice) -> anyhow::Result<LoadedModel> {
        let Self { model_dir, cases, .. } = self;
        let facts = Checkpoint::read(&ModelDirectory(model_dir.clone()))?.inspection.facts;
        let context = cases.iter().map(|case| case.context()).max().unwrap_or(1);
        let concurrency = cases.iter().map(|case| case.sequences()).max().unwrap_or(1);
        let tokens = |case: &Case| whole_blocks(case.context().into()) * u64::from(case.sequences());
        let serving = Serving {
            context,
            concurrency,
            kv_tokens: cases.iter().map(tokens).max().unwrap_or(0),
            kv_dtype: kv_dtype_auto(facts.dtype),
            requantize: Requantize::None,
        };
        let footprint = plan(&facts, &serving, &platform)?;
        let config = LoadConfig { model_dir: model_dir.clone(), serving, platform, footprint, backend };
        load_model(&config, &mut |_| {}).context("cannot load the model")
    }
}

fn fastest_path() -> anyhow::Result<Path> {
    let speeds = measure_paths(&Clock::monotonic());
    speeds.first().map(|fastest| fastest.path).context("no instructions to measure")
}
