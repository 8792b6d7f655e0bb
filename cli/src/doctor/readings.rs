use std::path::PathBuf;

use sparkherd_agent::{Machine, ProcessMemory};
use sparkherd_gpu::{Gpu, GpuError, GpuMemoryDomain, GpuReport, memory_domain};

/// All that was read and measured, before anybody judges it.
#[derive(Clone, Debug)]
pub(super) struct Readings {
    pub(super) gpu: Result<GpuReport, GpuError>,
    pub(super) host: HostReadings,
    pub(super) disk: DiskReading,
    /// Or why it was not measured.
    pub(super) cpu_read: Result<CpuRead, String>,
    /// `None`: nothing that measures GPUs was at hand.
    pub(super) bench: Option<BenchReadings>,
}

impl Readings {
    /// The GPU engines would compute on.
    pub(super) fn first_gpu(&self) -> Option<&Gpu> {
        self.gpu.as_ref().ok().and_then(GpuReport::first)
    }

    /// Whether a GPU takes its memory from the host's.
    pub(super) fn is_unified(&self) -> bool {
        let total_bytes = self.host.memory.as_ref().map_or(0, |memory| memory.total_bytes);
        self.host.machine == Machine::Gb10
            || self.first_gpu().is_some_and(|gpu| memory_domain(gpu, total_bytes) == GpuMemoryDomain::Unified)
    }

    pub(super) fn is_gb10(&self) -> bool {
        self.host.machine == Machine::Gb10 || self.first_gpu().is_some_and(Gpu::is_gb10)
    }
}

/// What procfs says.
#[derive(Clone, Debug)]
pub(super) struct HostReadings {
    /// As the driver shows it there: also where its library is missing.
    pub(super) gpu_name: Option<String>,
    pub(super) machine: Machine,
    pub(super) kernel: String,
    pub(super) kernel_command_line: String,
    pub(super) page_bytes: u64,
    /// Or why it cannot be read.
    pub(super) memory: Result<HostMemory, String>,
    /// The largest processes that are not ours.
    pub(super) others: Vec<ProcessMemory>,
    /// Bytes in free blocks of 2 MiB and more.
    pub(super) free_block_bytes: Option<u64>,
    /// `vm.overcommit_memory`: 2 is the strict one.
    pub(super) overcommit: Option<u64>,
    /// `vm.min_free_kbytes`.
    pub(super) min_free_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "the unit is part of each name")]
pub(super) struct HostMemory {
    pub(super) total_bytes: u64,
    pub(super) available_bytes: u64,
    pub(super) free_bytes: u64,
    pub(super) swap_total_bytes: u64,
    pub(super) swap_free_bytes: u64,
    /// Set aside as huge pages for programs that ask for those.
    pub(super) huge_page_bytes: u64,
}

/// The disk of the store.
#[derive(Clone, Debug)]
pub(super) enum DiskReading {
    Measured {
        directory: PathBuf,
        bytes: u64,
        read_bytes_per_second: f64,
        write_bytes_per_second: f64,
    },
    /// The file system cannot go past its cache.
    DirectRefused {
        directory: PathBuf,
    },
    /// It lies in memory.
    InMemory {
        directory: PathBuf,
    },
    Missing {
        directory: PathBuf,
    },
    Failed {
        directory: PathBuf,
        error: String,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct CpuRead {
    pub(super) threads: usize,
    pub(super) bytes_per_second: f64,
}

/// What the GPU said when it was made to work.
#[derive(Clone, Debug)]
pub(super) struct BenchReadings {
    /// `cudaMemGetInfo`, before the work.
    pub(super) memory: Result<CudaMemory, String>,
    pub(super) speed: Result<GpuSpeed, String>,
    /// What the driver told meanwhile.
    pub(super) under_load: Vec<Gpu>,
}

/// What `cudaMemGetInfo` tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CudaMemory {
    pub(crate) free_bytes: u64,
    pub(crate) total_bytes: u64,
}

/// What our kernels reach.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GpuSpeed {
    pub(crate) read_bytes_per_second: f64,
    pub(crate) bf16_flop_per_second: f64,
}
