//! The GPU, its driver, its clock.

use sparkherd_agent::readable;
use sparkherd_gpu::{
    CudaSupport, Gpu, GpuReport, SLOW_CLOCK_MHZ, SoftwareStack, ThrottleReason, cuda_support, known_faults,
};

use super::line::Line;
use super::readings::Readings;

const GPU: &str = "GPU";
const DRIVER: &str = "driver";
const KNOWN_FAULTS: &str = "known faults";
const CLOCK: &str = "clock";

/// The rest is asked only where there is a GPU.
pub(super) fn lines(readings: &Readings) -> Vec<Line> {
    let report = match presence(readings) {
        Ok(report) => report,
        Err(line) => return vec![*line],
    };
    let Some(gpu) = report.first() else { return Vec::new() };
    let mut lines = vec![named(report, gpu), driver(report)];
    lines.extend(faults(readings, report));
    lines.push(clock(gpu, readings.bench.as_ref().map(|bench| bench.under_load.as_slice())));
    lines
}

/// What the driver says of at least one GPU, or the line that says why it says nothing.
fn presence(readings: &Readings) -> Result<&GpuReport, Box<Line>> {
    let line = match (&readings.gpu, &readings.host.gpu_name) {
        (Ok(report), _) if !report.gpus.is_empty() => return Ok(report),
        (Ok(_), _) => {
            let advice = "see what the driver says of it: dmesg | grep -i nvrm";
            Line::fail(GPU, "the driver is there and shows no GPU", advice)
        }
        (Err(error), Some(name)) if error.is_absence() => {
            let advice = "in a container, give it NVIDIA's runtime (gpu.mode of the chart); on the host, install the driver's \
                          libraries";
            Line::fail(GPU, format!("{name} is there, but {error}"), advice)
        }
        (Err(error), None) if error.is_absence() => {
            let advice = "engines compute on the CPU here; on a Spark, install NVIDIA's driver";
            Line::warn(GPU, format!("none: {error}"), advice)
        }
        (Err(error), _) => {
            Line::fail(GPU, error.to_string(), "see dmesg | grep -i nvrm, then restart the machine")
        }
    };
    Err(Box::new(line))
}

fn named(report: &GpuReport, gpu: &Gpu) -> Line {
    let name = gpu.name.clone().unwrap_or_else(|| "a GPU without a name".to_owned());
    let capability =
        gpu.compute_capability.map(|(major, minor)| format!("compute capability {major}.{minor}"));
    let more = (report.gpus.len() > 1).then(|| format!("{} more, which are not used", report.gpus.len() - 1));
    let found: Vec<String> = [Some(name), capability, more].into_iter().flatten().collect();
    Line::ok(GPU, found.join(", "))
}

fn driver(report: &GpuReport) -> Line {
    let version = report.driver.as_deref().unwrap_or("of unknown version");
    let support = cuda_support(report);
    let found = format!("{version}, {support}");
    match (support, support.fault()) {
        (_, Some(fault)) => Line::fail(DRIVER, found, fault.advice),
        (CudaSupport::Unknown, None) => {
            Line::unknown(DRIVER, found, "CUDA 13.0 or later is needed: driver 580")
        }
        (_, None) => Line::ok(DRIVER, found),
    }
}

fn faults(readings: &Readings, report: &GpuReport) -> Vec<Line> {
    let host = &readings.host;
    let gpu_name = report.first().and_then(|gpu| gpu.name.as_deref()).unwrap_or_default();
    let faults = known_faults(&SoftwareStack {
        gpu_name,
        kernel: &host.kernel,
        kernel_command_line: &host.kernel_command_line,
        driver: report.driver.as_deref(),
    });
    if faults.is_empty() {
        return vec![Line::ok(KNOWN_FAULTS, format!("none of kernel {} with this driver", host.kernel))];
    }
    faults.into_iter().map(|fault| Line::fail(KNOWN_FAULTS, fault.what, fault.advice)).collect()
}

/// At rest a clock says little; under load it is judged by the best that was seen. `under_load`: looks while the GPU
/// was made to work.
fn clock(at_rest: &Gpu, under_load: Option<&[Gpu]>) -> Line {
    let best = under_load.and_then(|looks| {
        looks.iter().filter(|gpu| gpu.sm_clock_mhz.is_some()).max_by_key(|gpu| gpu.sm_clock_mhz)
    });
    let gpu = best.unwrap_or(at_rest);
    let Some(clock_mhz) = gpu.sm_clock_mhz else {
        return Line::unknown(CLOCK, "the driver does not tell", "see nvidia-smi -q -d CLOCK");
    };
    let reasons = throttle_reasons(under_load.unwrap_or(std::slice::from_ref(at_rest)));
    let names: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    let facts = [
        Some(format!("{clock_mhz} MHz {}", if best.is_some() { "under load" } else { "at rest" })),
        gpu.sm_clock_max_mhz.map(|most_mhz| format!("{most_mhz} at most")),
        gpu.power_milliwatts.map(|milliwatts| format!("{} W", milliwatts / 1000)),
        gpu.temperature_celsius.map(|celsius| format!("{celsius} °C")),
        (!names.is_empty()).then(|| format!("held down: {}", names.join(", "))),
    ];
    let found = facts.into_iter().flatten().collect::<Vec<String>>().join(", ");
    if best.is_some() && gpu.is_gb10() && clock_mhz < SLOW_CLOCK_MHZ {
        let advice = "unplug the power for 60 s: a restart does not heal a clock that is stuck low";
        return Line::fail(CLOCK, found, advice);
    }
    // A power cap is reached by every GPU that works hard: told, and no trouble by itself.
    if reasons.iter().any(|reason| *reason != ThrottleReason::PowerCap) {
        return Line::warn(CLOCK, found, "see to its cooling and to its own power supply");
    }
    Line::ok(CLOCK, found)
}

/// Each reason once, in the order in which they came.
fn throttle_reasons(looks: &[Gpu]) -> Vec<ThrottleReason> {
    let mut reasons = Vec::new();
    for reason in looks.iter().filter_map(|gpu| gpu.throttle_reasons.as_ref()).flatten() {
        if !reasons.contains(reason) {
            reasons.push(*reason);
        }
    }
    reasons
}

/// What others hold of a GPU's own memory.
pub(super) fn memory(gpu: &Gpu) -> Option<Line> {
    let memory = gpu.memory?;
    let (total, used) = (readable(memory.total_bytes), readable(memory.used_bytes));
    let processes = gpu.processes.as_ref().map_or(0, Vec::len);
    let found = format!("{total} in all, {used} used, {processes} process(es) compute");
    // The driver itself keeps about 1 %.
    if memory.used_bytes > memory.total_bytes / 20 {
        let advice = "end what uses it (nvidia-smi names it): engines get the rest only";
        return Some(Line::warn("GPU memory", found, advice));
    }
    Some(Line::ok("GPU memory", found))
}
