use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// What one run found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub device: String,
    pub compute_capability: String,
    pub driver_cuda: u32,
    pub checks: Vec<Check>,
    /// Not measured where only checks were wanted.
    pub limits: Option<Limits>,
    pub speeds: Vec<Speed>,
}

/// A proof.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub passed: usize,
    pub wrong: Vec<String>,
}

/// What a chip reads and multiplies at most, measured in the same run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Limits {
    /// Of a read by our own kernel over more than any cache holds.
    pub read_gb_per_second: f64,
    /// Of BF16 products in registers.
    pub multiply_tflop_per_second: f64,
}

/// How fast something is.
#[derive(Clone, Debug, Serialize)]
pub struct Speed {
    pub name: &'static str,
    pub shape: String,
    pub microseconds: f64,
    pub rate: Rate,
    /// Of what the same run measured.
    pub fraction: f64,
}

/// What bounds it.
#[derive(Clone, Copy, Debug, Serialize)]
pub enum Rate {
    GbPerSecond(f64),
    TflopPerSecond(f64),
}

impl Rate {
    pub fn of_bytes(bytes: f64, time: Duration) -> Self {
        Self::GbPerSecond(bytes / time.as_secs_f64() / 1e9)
    }

    pub fn of_operations(operations: f64, time: Duration) -> Self {
        Self::TflopPerSecond(operations / time.as_secs_f64() / 1e12)
    }

    pub const fn value(self) -> f64 {
        match self {
            Self::GbPerSecond(value) | Self::TflopPerSecond(value) => value,
        }
    }

    const fn unit(self) -> &'static str {
        match self {
            Self::GbPerSecond(_) => "GB/s",
            Self::TflopPerSecond(_) => "TFLOP/s",
        }
    }
}

impl Report {
    pub fn is_proven(&self) -> bool {
        self.checks.iter().all(|check| check.wrong.is_empty())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, compute_capability, driver_cuda, checks, limits, speeds } = self;
        writeln!(
            formatter,
            "{device}, compute capability {compute_capability}, driver for CUDA {driver_cuda}"
        )?;
        for Check { name, passed, wrong } in checks {
            writeln!(formatter, "{name}: {passed} pass, {} do not", wrong.len())?;
            wrong.iter().try_for_each(|wrong| writeln!(formatter, "    {wrong}"))?;
        }
        if let Some(Limits { read_gb_per_second, multiply_tflop_per_second }) = limits {
            writeln!(formatter, "memory is read at {read_gb_per_second:.0} GB/s")?;
            writeln!(formatter, "BF16 products by mma.sync: {multiply_tflop_per_second:.0} TFLOP/s")?;
        }
        for Speed { name, shape, microseconds, rate, fraction } in speeds {
            let (value, unit, percent) = (rate.value(), rate.unit(), 100.0 * fraction);
            writeln!(
                formatter,
                "{name:<28} {shape:<28} {microseconds:>11.1} us {value:>9.1} {unit:<7} {percent:>4.0} %"
            )?;
        }
        Ok(())
    }
}
