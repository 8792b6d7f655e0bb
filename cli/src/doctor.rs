//! `sparkherd doctor`: whether this machine is fit to serve models, one line for each thing that has gone wrong on others.
//!
//! ```text
//! driver ─ procfs ─ a file in the store ─ memory read by the CPU, by the GPU ──► Readings ──► check (pure) ──► Report (table | JSON)
//! ```

mod bench;
mod disk;
mod gpu;
mod kernels;
mod line;
mod memory;
mod probe;
mod readings;
mod report;
mod settings;
mod speed;

use std::io::{self, Write as _};
use std::path::PathBuf;

use crate::gpu::GpuArgs;

use bench::GpuBench;
use kernels::KernelBench;
use line::Line;
use probe::Places;
use readings::Readings;
use report::Report;

/// Status when a check fails, so that a script can stop there.
const STATUS_FAIL: i32 = 1;

/// Check this machine: GPU, driver, memory, disk, speed. Takes up to half a minute; writes one file and removes it.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Directory of the model store, whose disk is measured
    #[arg(long, value_name = "DIR", default_value = "/var/lib/sparkherd")]
    store: PathBuf,
    /// procfs of the host
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    proc_root: PathBuf,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gpu: GpuArgs,
}

/// Prints the report. Ends the process with status 1 where a check fails.
pub(crate) fn run(args: DoctorArgs) -> anyhow::Result<()> {
    let DoctorArgs { store, proc_root, json, gpu } = args;
    let mut kernels = KernelBench::open(&gpu.choice());
    let bench = kernels.as_mut().map(|bench| bench as &mut dyn GpuBench);
    let readings = probe::read(&Places { store, proc_root }, &gpu.nvml(), bench);
    let report = Report::new(check(&readings));
    let mut output = io::stdout().lock();
    if json {
        writeln!(output, "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(output, "{report}")?;
    }
    output.flush()?;
    if report.has_failed() {
        std::process::exit(STATUS_FAIL);
    }
    Ok(())
}

/// All lines, in the order in which somebody would ask.
fn check(readings: &Readings) -> Vec<Line> {
    let mut lines = gpu::lines(readings);
    lines.extend(memory::lines(readings));
    lines.push(settings::line(&readings.host));
    lines.push(speed::disk(&readings.disk));
    lines.push(speed::cpu_read(&readings.cpu_read));
    lines.extend(speed::gpu(readings));
    lines
}

#[cfg(test)]
mod tests;
