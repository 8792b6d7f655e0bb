use crate::Gpu;

/// GPUs that share the host's memory, by what their names contain: the Sparks', and NVIDIA's boards of the same kind.
/// A name is needed because some drivers answer with the host's memory where others say "not supported".
const INTEGRATED: [&str; 3] = ["GB10", "Thor", "Orin"];

/// A driver that gives the host's memory as the GPU's gives `MemTotal`, to the rounding of its kibibytes.
const SAME_BYTES: u64 = 1 << 20;

/// Where a GPU's memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuMemoryDomain {
    /// The host's: one pool for both.
    Unified,
    /// Its own.
    Device,
}

/// `host_total_bytes`: `MemTotal`. Whoever does not tell of memory of his own has none.
pub fn memory_domain(gpu: &Gpu, host_total_bytes: u64) -> GpuMemoryDomain {
    let name = gpu.name.as_deref().unwrap_or_default();
    let of_its_own = gpu.memory.is_some_and(|memory| {
        memory.total_bytes > 0 && memory.total_bytes.abs_diff(host_total_bytes) > SAME_BYTES
    });
    if of_its_own && !INTEGRATED.iter().any(|part| name.contains(part)) {
        GpuMemoryDomain::Device
    } else {
        GpuMemoryDomain::Unified
    }
}

#[cfg(test)]
mod tests {
    use super::{GpuMemoryDomain, memory_domain};
    use crate::{Gpu, GpuMemory};

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_gpu_without_memory_of_its_own_shares_the_hosts() {
        let cases = [
            ("NVIDIA GB10", None, GpuMemoryDomain::Unified),
            // Some drivers give MemTotal there, some nothing, some what they please.
            ("NVIDIA GB10", Some(120 * GIB), GpuMemoryDomain::Unified),
            ("NVIDIA GB10", Some(60 * GIB), GpuMemoryDomain::Unified),
            ("NVIDIA next", Some(120 * GIB - 4096), GpuMemoryDomain::Unified),
            ("NVIDIA next", Some(0), GpuMemoryDomain::Unified),
            ("NVIDIA H200", Some(140 * GIB), GpuMemoryDomain::Device),
            ("NVIDIA GB200", Some(186 * GIB), GpuMemoryDomain::Device),
        ];
        for (name, total_bytes, expected) in cases {
            let memory = total_bytes.map(|total_bytes| GpuMemory {
                total_bytes,
                used_bytes: 0,
                free_bytes: total_bytes,
            });
            let gpu = Gpu { name: Some(name.to_owned()), memory, ..Gpu::default() };
            assert_eq!(memory_domain(&gpu, 120 * GIB), expected, "{name} {total_bytes:?}");
        }
    }
}
