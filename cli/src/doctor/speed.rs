//! What was measured, beside what others measured on the same hardware.

use super::line::Line;
use super::readings::{CpuRead, DiskReading, GpuSpeed, Readings};

const DISK: &str = "disk of the store";
const CPU_READ: &str = "memory read by CPU";
const GPU_READ: &str = "memory read by GPU";
const GPU_BF16: &str = "BF16 on GPU";

/// The slowest drive that Sparks are sold with reads 2 GB/s.
const DISK_BYTES_PER_SECOND_MIN: f64 = 2e9;

/// Weights to give an idea with: a model of 120 billion parameters at 4 bits.
const EXAMPLE_BYTES: f64 = 60e9;

/// Of 273 GB/s on paper a GB10 was seen to read 218 to 234; 161 to 192 when others used it too.
const GB10_READ_BYTES_PER_SECOND_MIN: f64 = 200e9;

/// A GB10 was seen to reach 91 TFLOPS; at a clock that is stuck low it has a third. Half tells one from the other and
/// leaves room for our kernels to be slower than those that were measured.
const GB10_BF16_FLOP_PER_SECOND_MIN: f64 = 45e12;

pub(super) fn disk(reading: &DiskReading) -> Line {
    match reading {
        DiskReading::Measured { directory, bytes, read_bytes_per_second, write_bytes_per_second } => {
            let found = format!(
                "{} read, {} written past the cache ({} MiB in {})",
                rate(*read_bytes_per_second),
                rate(*write_bytes_per_second),
                bytes >> 20,
                directory.display()
            );
            if *read_bytes_per_second >= DISK_BYTES_PER_SECOND_MIN {
                return Line::ok(DISK, found);
            }
            let seconds = EXAMPLE_BYTES / read_bytes_per_second;
            Line::warn(
                DISK,
                found,
                format!("a model of 60 GB takes {seconds:.0} s to load: keep the store on NVMe"),
            )
        }
        DiskReading::DirectRefused { directory } => {
            let found = format!("not measured: {} refuses O_DIRECT", directory.display());
            Line::unknown(DISK, found, "keep the store on ext4 or XFS, which can be read past the page cache")
        }
        DiskReading::InMemory { directory } => {
            let found = format!("{} lies in memory (tmpfs)", directory.display());
            Line::warn(DISK, found, "keep the store on a disk: weights would be in memory twice")
        }
        DiskReading::Missing { directory } => {
            let found = format!("not measured: there is no directory {}", directory.display());
            Line::unknown(DISK, found, "name the model store with --store")
        }
        DiskReading::Failed { directory, error } => {
            let found = format!("not measured: {}: {error}", directory.display());
            Line::unknown(DISK, found, "run as somebody who may write to the store, with room for 256 MiB")
        }
    }
}

pub(super) fn cpu_read(reading: &Result<CpuRead, String>) -> Line {
    match reading {
        Ok(CpuRead { threads, bytes_per_second }) => {
            Line::ok(CPU_READ, format!("{} with {threads} threads", rate(*bytes_per_second)))
        }
        Err(error) => {
            Line::unknown(CPU_READ, format!("not measured: {error}"), "ask again when memory is free")
        }
    }
}

/// Nothing where there is no GPU to measure.
pub(super) fn gpu(readings: &Readings) -> Vec<Line> {
    if readings.first_gpu().is_none() {
        return Vec::new();
    }
    match readings.bench.as_ref().map(|bench| &bench.speed) {
        None => {
            let found = "not measured: nothing in this program makes the GPU work";
            vec![Line::unknown(GPU_READ, found, "take a program that has the CUDA backend")]
        }
        Some(Err(error)) => {
            let found = format!("the GPU does not compute: {error}");
            vec![Line::fail(GPU_READ, found, "see dmesg | grep -i nvrm, then restart the machine")]
        }
        Some(Ok(speed)) => vec![gpu_read(*speed, readings.is_gb10()), gpu_bf16(*speed, readings.is_gb10())],
    }
}

fn gpu_read(speed: GpuSpeed, is_gb10: bool) -> Line {
    let found = rate(speed.read_bytes_per_second);
    if is_gb10 && speed.read_bytes_per_second < GB10_READ_BYTES_PER_SECOND_MIN {
        let advice = "a GB10 reads 218 to 234 GB/s when nothing else uses its memory: see what else runs";
        return Line::warn(GPU_READ, found, advice);
    }
    Line::ok(GPU_READ, found)
}

fn gpu_bf16(speed: GpuSpeed, is_gb10: bool) -> Line {
    let found = format!("{:.1} TFLOPS", speed.bf16_flop_per_second / 1e12);
    if is_gb10 && speed.bf16_flop_per_second < GB10_BF16_FLOP_PER_SECOND_MIN {
        let advice = "a GB10 reaches 91 TFLOPS: use its own power supply, and unplug it for 60 s";
        return Line::warn(GPU_BF16, found, advice);
    }
    Line::ok(GPU_BF16, found)
}

fn rate(bytes_per_second: f64) -> String {
    if bytes_per_second >= 1e9 {
        format!("{:.1} GB/s", bytes_per_second / 1e9)
    } else {
        format!("{:.0} MB/s", bytes_per_second / 1e6)
    }
}
