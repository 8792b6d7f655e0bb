//! `sparkherd bench engine`: a model in this process, without scheduler and server.
//!
//! ```text
//! MODEL_DIR ─ load_model ─► ForwardPass ─ prefill, decode at depths and widths ─► medians ─┐
//! as much memory as no cache holds ─ read by the same threads ─► read bandwidth ───────────┴─► report (table | JSON)
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
use sparkherd_engine::{BackendChoice, Clock, LoadConfig, LoadedModel, load_model};
use sparkherd_footprint::{Platform, Serving, kv_dtype_auto, plan, whole_blocks};

use cases::{Case, Timing};
use report::{Report, Work};

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
    /// Compute threads; default: all processors
    #[arg(long, value_name = "COUNT")]
    threads: Option<u32>,
    /// Compute with these instructions instead of those measured as the fastest
    #[arg(long, value_name = "NAME")]
    cpu_path: Option<Path>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: EngineArgs) -> anyhow::Result<()> {
    let EngineArgs { model_dir, prompt, generate, depth, sequences, repeat, threads, cpu_path, json } = args;
    ensure!(prompt > 0 && generate > 0 && repeat > 0, "--prompt, --generate and --repeat are at least 1");
    let threads = match threads {
        Some(threads) => threads,
        None => u32::try_from(available_parallelism().context("cannot count processors")?.get())?,
    };
    let path = cpu_path.map_or_else(fastest_path, Ok)?;
    let cases = cases::list(prompt, generate, &depth, &sequences);
    let mut model = load(model_dir, path, threads, &cases)?;
    let mut read = ReadSpeed::new(READ_BYTES, threads as usize).context("cannot measure the bandwidth")?;
    // Case by case and around again, so that what disturbs a moment disturbs one run of each.
    let (mut seconds, mut read_seconds) = (vec![Vec::new(); cases.len()], Vec::new());
    for _ in 0..repeat {
        let begin = Instant::now();
        std::hint::black_box(read.read()?);
        read_seconds.push(begin.elapsed().as_secs_f64());
        for (case, seconds) in cases.iter().zip(&mut seconds) {
            seconds.push(case.run(&mut model)?);
        }
    }
    let work = Work::new(model.checkpoint());
    let timings = cases.iter().zip(seconds).map(|(case, seconds)| Timing::new(*case, seconds));
    let report = Report {
        cpu_path: path.name(),
        threads,
        read_gb_per_second: report::gb_per_second(read.bytes() as f64, cases::median(read_seconds)),
        cases: timings.map(|timing| work.measured(&timing)).collect(),
    };
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(())
}

fn fastest_path() -> anyhow::Result<Path> {
    let speeds = measure_paths(&Clock::monotonic());
    speeds.first().map(|fastest| fastest.path).context("no instructions to measure")
}

fn load(model_dir: PathBuf, path: Path, threads: u32, cases: &[Case]) -> anyhow::Result<LoadedModel> {
    let facts = Checkpoint::read(&ModelDirectory(model_dir.clone()))?.inspection.facts;
    let context = cases.iter().map(|case| case.context()).max().unwrap_or(1);
    let concurrency = cases.iter().map(|case| case.sequences()).max().unwrap_or(1);
    let serving = Serving {
        context,
        concurrency,
        kv_tokens: cases
            .iter()
            .map(|case| whole_blocks(case.context().into()) * u64::from(case.sequences()))
            .max()
            .unwrap_or(0),
        kv_dtype: kv_dtype_auto(facts.dtype),
        requantize: Requantize::None,
    };
    let platform = Platform::cpu(threads);
    let footprint = plan(&facts, &serving, &platform)?;
    let backend = BackendChoice::CpuPath(path);
    let config = LoadConfig { model_dir, serving, platform, footprint, backend };
    load_model(&config, &mut |_| {}).context("cannot load the model")
}
