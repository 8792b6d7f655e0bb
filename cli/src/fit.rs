//! `sparkherd fit`: the bytes a model takes here, by part, and whether it fits, before anything is loaded.

mod machine;
mod report;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use anyhow::Context as _;
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::StrDeserializer;
use sparkherd_agent::{DEVICE_RESERVE_BYTES, DeviceSample, MemoryProbe, default_reserve_bytes};
use sparkherd_checkpoint::{Checkpoint, Requantize};
use sparkherd_crds::parse_quantity;
use sparkherd_footprint::{Backend, FootprintError, Platform};
use sparkherd_gpu::{GpuError, GpuReport, GpuSource as _};

use crate::gpu::{BackendArg, GpuArgs};
use crate::inspect::Directory;
use machine::{Machine, Memory};
use report::{Report, Wish};

/// Status when the model does not fit; 1 is for what could not be judged.
const STATUS_DOES_NOT_FIT: i32 = 3;

/// The API's default of `spec.concurrency`.
const CONCURRENCY_DEFAULT: u32 = 16;

/// Say how many bytes a model takes, by part, and whether this machine has them.
#[derive(Debug, clap::Args)]
pub(crate) struct FitArgs {
    /// Directory with config.json, the safetensors files and tokenizer.json, or a GGUF file.
    model_path: PathBuf,
    /// Tokens one sequence may hold. Default: the largest of 32768, 16384, 8192 and 4096 that suits the machine.
    #[arg(long)]
    context: Option<u32>,
    /// Sequences decoded together at most.
    #[arg(long, default_value_t = CONCURRENCY_DEFAULT)]
    concurrency: u32,
    /// Cap on the whole footprint, such as 12Gi: the KV pool gets what the other parts leave.
    #[arg(long, value_parser = parse_quantity)]
    memory: Option<u64>,
    /// How weights are rounded while they are read: none or int8.
    #[arg(long, default_value = "none", value_parser = requantize)]
    requantize: Requantize,
    /// Memory kept for the host, such as 10Gi. Default: 10Gi on a GB10, else the larger of 1Gi and 10 %.
    #[arg(long, value_parser = parse_quantity)]
    reserve: Option<u64>,
    /// Judge for an otherwise empty machine of this much memory, such as 119Gi, instead of this one as it is now.
    #[arg(long, value_parser = parse_quantity)]
    total: Option<u64>,
    /// What the engine would compute on. A GPU with memory of its own is judged by that and by the host's.
    #[arg(long, value_enum, default_value_t = BackendArg::Auto)]
    backend: BackendArg,
    #[command(flatten)]
    gpu: GpuArgs,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Prints the report. Ends the process with status 3 where the model does not fit.
pub(crate) fn run(args: &FitArgs) -> anyhow::Result<()> {
    let directory = Directory::unrestricted(&args.model_path)
        .with_context(|| format!("failed to open {}", args.model_path.display()))?;
    let checkpoint = Checkpoint::read(&directory)
        .with_context(|| format!("{} cannot be served", args.model_path.display()))?;
    let memory = memory(args.total, args.reserve).context("failed to read this machine's memory")?;
    let threads = available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX));
    let wish = Wish {
        context: args.context,
        concurrency: args.concurrency,
        memory_bytes: args.memory,
        requantize: args.requantize,
    };
    let gpus = args.gpu.nvml().read();
    let platform = args.gpu.wish(args.backend, &gpus).platform(threads, &gpus)?;
    let machine = machine(memory, &platform, &gpus);
    let report = Report::new(checkpoint.inspection.facts, platform, wish, machine);
    let mut output = io::stdout().lock();
    let fits = match report {
        Ok(report) => {
            let text = if args.json { serde_json::to_string(&report)? } else { report.to_string() };
            writeln!(output, "{text}")?;
            report.fits
        }
        Err(error @ FootprintError::MemoryCap { .. }) => {
            writeln!(output, "Does not fit: {error}.")?;
            false
        }
        Err(error) => return Err(error.into()),
    };
    output.flush()?;
    if !fits {
        std::process::exit(STATUS_DOES_NOT_FIT);
    }
    Ok(())
}

/// The GPU's own memory counts where engines would use it.
fn machine(memory: Memory, platform: &Platform, gpus: &Result<GpuReport, GpuError>) -> Machine {
    let gpu = gpus.as_ref().ok().and_then(GpuReport::first).filter(|_| platform.backend == Backend::Cuda);
    let own = gpu.and_then(|gpu| DeviceSample::new(gpu, memory.total_bytes).own);
    let device_memory = own.map(|own| Memory {
        total_bytes: own.total_bytes,
        available_bytes: own.free_bytes,
        reserve_bytes: DEVICE_RESERVE_BYTES,
    });
    Machine { memory, device_memory }
}

fn requantize(text: &str) -> Result<Requantize, String> {
    let words: StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
    Requantize::deserialize(words).map_err(|error| error.to_string())
}

fn memory(total: Option<u64>, reserve: Option<u64>) -> anyhow::Result<Memory> {
    let proc_root = Path::new("/proc");
    let page_bytes = u64::try_from(rustix::param::page_size())?;
    let probe = MemoryProbe::new(proc_root, proc_root, page_bytes, total);
    let sample = probe.sample(&[])?;
    let reserve_bytes = reserve.unwrap_or_else(|| default_reserve_bytes(probe.machine(), sample.total_bytes));
    Ok(Memory { total_bytes: sample.total_bytes, available_bytes: sample.available_bytes, reserve_bytes })
}

#[cfg(test)]
mod tests {
    use sparkherd_footprint::Platform;
    use sparkherd_gpu::{Gpu, GpuError, GpuMemory, GpuReport};

    use super::{Memory, machine};

    #[test]
    fn only_a_card_that_engines_use_is_a_pool_of_its_own() {
        let report = |name: &str| {
            let memory = GpuMemory { total_bytes: 140 << 30, used_bytes: 0, free_bytes: 130 << 30 };
            let gpu = Gpu { name: Some(name.to_owned()), memory: Some(memory), ..Gpu::default() };
            Ok(GpuReport { gpus: vec![gpu], ..GpuReport::default() })
        };
        let host = Memory { total_bytes: 120 << 30, available_bytes: 120 << 30, reserve_bytes: 0 };
        let device = |platform: Platform, gpus| {
            machine(host, &platform, &gpus).device_memory.map(|memory| memory.available_bytes)
        };
        assert_eq!(device(Platform::cuda(2), report("NVIDIA H200")), Some(130 << 30));
        assert_eq!(device(Platform::cpu(2), report("NVIDIA H200")), None);
        assert_eq!(device(Platform::cuda(2), report("NVIDIA GB10")), None);
        assert_eq!(device(Platform::cuda(2), Err(GpuError::NoDriver)), None);
    }
}
