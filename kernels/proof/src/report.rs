use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::goal::Goal;
use crate::memory::MemoryLine;

/// What one run found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub device: String,
    pub compute_capability: String,
    pub driver_cuda: u32,
    pub memory: Vec<MemoryLine>,
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
    /// Of what reads or multiplies.
    pub rate: Option<Rate>,
    /// Of what the same run measured; of what is lost in a step: of the step.
    pub fraction: f64,
    /// What the fraction is held to.
    pub goal: Option<Goal>,
    pub is_missed: bool,
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

    /// Of what the chip does at most.
    pub fn fraction(self, limits: &Limits) -> f64 {
        match self {
            Self::GbPerSecond(value) => value / limits.read_gb_per_second,
            Self::TflopPerSecond(value) => value / limits.multiply_tflop_per_second,
        }
    }

    const fn unit(self) -> &'static str {
        match self {
            Self::GbPerSecond(_) => "GB/s",
            Self::TflopPerSecond(_) => "TFLOP/s",
        }
    }
}

impl Speed {
    pub fn new(
        name: &'static str,
        shape: String,
        time: Duration,
        rate: Option<Rate>,
        fraction: f64,
        goal: Option<Goal>,
    ) -> Self {
        let is_missed = goal.is_some_and(|goal| !goal.is_met(fraction));
        Self { name, shape, microseconds: time.as_secs_f64() * 1e6, rate, fraction, goal, is_missed }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, shape, microseconds, rate, fraction, goal, is_missed } = self;
        let percent = 100.0 * fraction;
        write!(formatter, "{name:<32} {shape:<24} {microseconds:>11.1} us ")?;
        match rate {
            Some(rate) => write!(formatter, "{:>9.1} {:<7} ", rate.value(), rate.unit())?,
            None => write!(formatter, "{:>9} {:<7} ", "", "")?,
        }
        write!(formatter, "{percent:>4.0} %")?;
        match goal {
            Some(Goal::AtLeast(least)) => write!(formatter, ", goal {:.0} %", 100.0 * least)?,
            Some(Goal::AtMost(most)) => write!(formatter, ", goal below {:.0} %", 100.0 * most)?,
            None => {}
        }
        formatter.write_str(if *is_missed { ": MISSED" } else { "" })
    }
}

impl Report {
    /// Whether kernels compute what they should: otherwise nobody wants to know how fast.
    pub fn computes_right(&self) -> bool {
        self.checks.iter().all(|check| check.wrong.is_empty())
    }

    /// Speeds are told and not proven.
    pub fn is_proven(&self) -> bool {
        self.computes_right() && !self.memory.iter().any(MemoryLine::is_beyond)
    }
}

impl fmt::Display for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, passed, wrong } = self;
        writeln!(formatter, "{name}: {passed} pass, {} do not", wrong.len())?;
        wrong.iter().try_for_each(|wrong| writeln!(formatter, "    {wrong}"))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, compute_capability, driver_cuda, memory, checks, limits, speeds } = self;
        writeln!(
            formatter,
            "{device}, compute capability {compute_capability}, driver for CUDA {driver_cuda}"
        )?;
        memory.iter().try_for_each(|line| writeln!(formatter, "{line}"))?;
        checks.iter().try_for_each(|check| write!(formatter, "{check}"))?;
        if let Some(Limits { read_gb_per_second, multiply_tflop_per_second }) = limits {
            writeln!(formatter, "memory is read at {read_gb_per_second:.0} GB/s")?;
            writeln!(formatter, "BF16 products by mma.sync: {multiply_tflop_per_second:.0} TFLOP/s")?;
        }
        speeds.iter().try_for_each(|speed| writeln!(formatter, "{speed}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Check, Limits, Rate, Report, Speed};
    use crate::goal::Goal;
    use crate::memory::{Counter, MemoryLine};

    const LIMITS: Limits = Limits { read_gb_per_second: 200.0, multiply_tflop_per_second: 80.0 };

    fn product(gigabytes: f64, goal: Option<Goal>) -> Speed {
        let rate = Rate::of_bytes(gigabytes * 1e9, Duration::from_secs(1));
        Speed::new(
            "product",
            "1 x 2".to_owned(),
            Duration::from_secs(1),
            Some(rate),
            rate.fraction(&LIMITS),
            goal,
        )
    }

    #[test]
    fn a_line_says_its_goal_and_whether_it_is_missed() {
        let goal = Some(Goal::AtLeast(0.92));
        let ends = |speed: Speed, end: &str| assert!(speed.to_string().ends_with(end), "{speed}");
        ends(product(184.0, goal), "184.0 GB/s      92 %, goal 92 %");
        ends(product(150.0, goal), "150.0 GB/s      75 %, goal 92 %: MISSED");
        ends(product(150.0, None), "150.0 GB/s      75 %");
        let time = Duration::from_micros(7);
        let gaps = Speed::new("gaps", String::new(), time, None, 0.06, Some(Goal::AtMost(0.05)));
        ends(gaps, " 6 %, goal below 5 %: MISSED");
    }

    #[test]
    fn speeds_prove_nothing_and_a_wrong_case_fails() {
        let mut report = Report {
            device: "a".to_owned(),
            compute_capability: "12.1".to_owned(),
            driver_cuda: 13_000,
            memory: Vec::new(),
            checks: vec![Check { name: "all", passed: 1, wrong: Vec::new() }],
            limits: Some(LIMITS),
            speeds: vec![product(1.0, Some(Goal::AtLeast(0.92)))],
        };
        assert!(report.is_proven());
        report.checks[0].wrong.push("a case".to_owned());
        assert!(!report.is_proven() && !report.computes_right());
        report.checks.clear();
        let line = MemoryLine {
            model: "a".to_owned(),
            part: "GPU: in all",
            counted_by: Counter::Nvml,
            moved_bytes: 3 << 20,
            planned_bytes: 2 << 20,
            is_held: true,
        };
        report.memory.push(line);
        // Its speed is of interest still.
        assert!(!report.is_proven() && report.computes_right());
        assert!(
            report
                .to_string()
                .contains("3.0 MiB of       2.0 planned, by NVML's bytes of this process: BEYOND\n")
        );
    }
}
