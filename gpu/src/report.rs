use std::fmt;

/// What the driver says at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuReport {
    /// For example `580.95.05`.
    pub driver: Option<String>,
    /// Newest CUDA the driver runs.
    pub cuda: Option<CudaVersion>,
    pub gpus: Vec<Gpu>,
}

impl GpuReport {
    /// The one engines compute on, which [`crate::GpuPlace`] has put there.
    pub fn first(&self) -> Option<&Gpu> {
        self.gpus.first()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CudaVersion {
    pub major: u32,
    pub minor: u32,
}

impl CudaVersion {
    /// As the driver counts it: `13010` is 13.1.
    pub fn from_number(number: i32) -> Option<Self> {
        let number = u32::try_from(number).ok().filter(|number| *number > 0)?;
        Some(Self { major: number / 1000, minor: number % 1000 / 10 })
    }
}

impl fmt::Display for CudaVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// One GPU. What the driver does not tell of it is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gpu {
    pub name: Option<String>,
    /// Its place on the PCI bus, `00000000:01:00.0`.
    pub bus_id: Option<String>,
    /// `GPU-` and hexadecimal digits.
    pub uuid: Option<String>,
    /// Major and minor: a GB10 has 12.1.
    pub compute_capability: Option<(u32, u32)>,
    pub sm_clock_mhz: Option<u32>,
    pub sm_clock_max_mhz: Option<u32>,
    /// Share of the last moments in which a kernel ran.
    pub utilization_percent: Option<u32>,
    pub power_milliwatts: Option<u32>,
    pub temperature_celsius: Option<u32>,
    /// Energy since the driver was loaded.
    pub energy_millijoules: Option<u64>,
    /// What holds the clock down now; empty: nothing.
    pub throttle_reasons: Option<Vec<ThrottleReason>>,
    /// Memory of its own. A GB10 has none to tell.
    pub memory: Option<GpuMemory>,
    /// Processes that compute on it, by process ids of the host.
    pub processes: Option<Vec<GpuProcess>>,
}

impl Gpu {
    /// The GPU of a DGX Spark.
    pub fn is_gb10(&self) -> bool {
        self.name.as_deref().is_some_and(|name| name.contains("GB10"))
    }

    /// `sm_121` on a GB10.
    pub fn architecture(&self) -> Option<String> {
        self.compute_capability.map(|(major, minor)| format!("sm_{major}{minor}"))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuMemory {
    pub total_bytes: u64,
    pub used_bytes: u64,
    pub free_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuProcess {
    pub pid: u32,
    /// Bytes it holds of the GPU's memory, where the driver tells.
    pub bytes: Option<u64>,
}

/// Why a clock is lower than it could be. Idleness and a clock somebody set are not among them: they are no trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThrottleReason {
    PowerCap,
    Slowdown,
    SoftwareThermal,
    HardwareThermal,
    PowerBrake,
}

impl fmt::Display for ThrottleReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::PowerCap => "power cap",
            Self::Slowdown => "hardware slowdown",
            Self::SoftwareThermal => "too hot, by software",
            Self::HardwareThermal => "too hot, by hardware",
            Self::PowerBrake => "power brake of the supply",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::CudaVersion;

    #[test]
    fn reads_versions_as_the_driver_counts_them() {
        let cases = [(13_010, Some("13.1")), (12_080, Some("12.8")), (0, None), (-1, None)];
        for (number, text) in cases {
            assert_eq!(CudaVersion::from_number(number).map(|version| version.to_string()).as_deref(), text);
        }
    }
}
