//! Reads procfs, the driver, the disk and the memory's speed. Judges nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Instant;

use sparkherd_agent::{Meminfo, MemoryProbe, ProbeError, free_block_bytes};
use sparkherd_engine::backend::cpu::ReadSpeed;
use sparkherd_gpu::{Gpu, GpuMemoryDomain, GpuReport, GpuSource, memory_domain};

use super::bench::{self, GpuBench};
use super::disk;
use super::readings::{CpuRead, HostMemory, HostReadings, Readings};

/// What the driver takes memory in.
const BLOCK_BYTES: u64 = 2 << 20;

/// Processes named when memory is short.
const OTHERS_MAX: usize = 3;

/// Read at once to measure the bandwidth: many times the largest last-level caches, which reach 260 MiB.
const READ_BYTES_MAX: u64 = 2 << 30;

/// Less than this may lie in a cache, and says nothing about memory.
const READ_BYTES_MIN: u64 = 512 << 20;

/// Reads of it all; the fastest counts, since nothing makes memory faster than it is.
const READS: usize = 3;

/// Where to look.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) store: PathBuf,
    pub(super) proc_root: PathBuf,
}

pub(super) fn read(
    places: &Places,
    source: &dyn GpuSource,
    gpu_bench: Option<&mut dyn GpuBench>,
) -> Readings {
    let gpu = source.read();
    let host = host(&places.proc_root, gpu.as_ref().ok().and_then(GpuReport::first));
    tracing::info!(directory = %places.store.display(), "measuring the disk");
    let disk = disk::measure(&places.store, disk::FILE_BYTES_MAX);
    tracing::info!("measuring memory");
    let available_bytes = host.memory.as_ref().map_or(0, |memory| memory.available_bytes);
    let cpu_read = cpu_read(available_bytes);
    let bench = gpu_bench.map(|gpu_bench| {
        tracing::info!("measuring the GPU");
        bench::measure(gpu_bench, source)
    });
    Readings { gpu, host, disk, cpu_read, bench }
}

/// `gpu`: where its memory is the host's, processes hold some that procfs does not show.
pub(super) fn host(proc_root: &Path, gpu: Option<&Gpu>) -> HostReadings {
    let page_bytes = rustix::param::page_size() as u64;
    let probe = MemoryProbe::new(proc_root, proc_root, page_bytes, None);
    let memory = memory(proc_root);
    let total_bytes = memory.as_ref().map_or(0, |memory| memory.total_bytes);
    let unified = gpu.filter(|gpu| memory_domain(gpu, total_bytes) == GpuMemoryDomain::Unified);
    let processes = unified.and_then(|gpu| gpu.processes.as_ref()).into_iter().flatten();
    let device_bytes = processes.filter_map(|process| Some((process.pid, process.bytes?))).collect();
    let text = |path: &str| fs::read_to_string(proc_root.join(path)).unwrap_or_default().trim().to_owned();
    let number = |path: &str| text(path).parse::<u64>().ok();
    HostReadings {
        gpu_name: probe.gpu_name(),
        machine: probe.machine(),
        kernel: text("sys/kernel/osrelease"),
        kernel_command_line: text("cmdline"),
        page_bytes,
        memory: memory.map_err(|error| error.to_string()),
        others: probe.others(OTHERS_MAX, &device_bytes),
        free_block_bytes: free_block_bytes(&text("buddyinfo"), page_bytes, BLOCK_BYTES),
        overcommit: number("sys/vm/overcommit_memory"),
        min_free_bytes: number("sys/vm/min_free_kbytes").map(|kib| kib.saturating_mul(1024)),
    }
}

fn memory(proc_root: &Path) -> Result<HostMemory, ProbeError> {
    let meminfo = Meminfo::read(proc_root)?;
    Ok(HostMemory {
        total_bytes: meminfo.bytes("MemTotal")?,
        available_bytes: meminfo.bytes("MemAvailable")?,
        free_bytes: meminfo.bytes("MemFree")?,
        swap_total_bytes: meminfo.bytes("SwapTotal")?,
        swap_free_bytes: meminfo.bytes("SwapFree")?,
        // Absent from kernels without huge pages.
        huge_page_bytes: meminfo.bytes("Hugetlb").unwrap_or(0),
    })
}

/// Takes an eighth of what is available at most: whoever asks a doctor may be short of memory.
fn cpu_read(available_bytes: u64) -> Result<CpuRead, String> {
    let bytes = READ_BYTES_MAX.min(available_bytes / 8);
    if bytes < READ_BYTES_MIN {
        return Err("too little memory is available to measure its speed".to_owned());
    }
    let threads = available_parallelism().map_err(|error| error.to_string())?.get();
    let bytes = usize::try_from(bytes).map_err(|error| error.to_string())?;
    let mut memory = ReadSpeed::new(bytes, threads).map_err(|error| error.to_string())?;
    let mut fastest = f64::INFINITY;
    for _ in 0..READS {
        let begin = Instant::now();
        std::hint::black_box(memory.read().map_err(|error| error.to_string())?);
        fastest = fastest.min(begin.elapsed().as_secs_f64());
    }
    Ok(CpuRead { threads, bytes_per_second: memory.bytes() as f64 / fastest })
}
