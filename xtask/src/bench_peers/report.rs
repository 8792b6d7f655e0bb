use std::fmt;

use super::{Case, Run, Timing};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Bf16,
    Q8_0,
    Q4_0,
}

impl Format {
    pub(super) const ALL: [Self; 3] = [Self::Bf16, Self::Q8_0, Self::Q4_0];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
        }
    }

    /// Of the checkpoint's folder.
    pub(super) const fn folder(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        }
    }

    /// The ratio that we want at least, where there is one.
    const fn bar(self, case: Case) -> Option<f64> {
        match (case, self) {
            (Case::Prefill, Self::Q8_0) => Some(2.5),
            (Case::Prefill, Self::Q4_0) => None,
            (Case::Decode { sequences: 1, depth: 0 }, Self::Bf16) => Some(1.15),
            (Case::Decode { sequences: 1, depth: 0 }, Self::Q8_0 | Self::Q4_0) => Some(1.4),
            (Case::Prefill, Self::Bf16) | (Case::Decode { sequences: 1, .. }, _) => Some(1.5),
            (Case::Decode { .. }, _) => Some(2.0),
        }
    }
}

/// All runs of both engines on one format.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) format: Format,
    pub(super) theirs: Vec<Run>,
    pub(super) ours: Vec<Run>,
}

impl Report {
    pub(super) const fn new(format: Format) -> Self {
        Self { format, theirs: Vec::new(), ours: Vec::new() }
    }

    fn line(&self, out: &mut fmt::Formatter<'_>, case: Case) -> fmt::Result {
        let rate = |runs: &[Run]| median(of(runs, case).map(|timing| timing.tokens / timing.seconds));
        let (theirs, ours) = (rate(&self.theirs), rate(&self.ours));
        let ratio = ours / theirs;
        let name = match case {
            Case::Prefill => "prefill".to_owned(),
            Case::Decode { depth, sequences } => format!("decode at {depth:>4}, {sequences} at once"),
        };
        write!(out, "  {name:<24} {theirs:>8.1} {ours:>8.1} tok/s  {ratio:>5.2} ×")?;
        if let Some(bar) = self.format.bar(case) {
            write!(out, "  {} {bar} ×", if ratio >= bar { "reaches" } else { "MISSES" })?;
        }
        let shares = self.ours.iter().filter_map(|run| {
            let timing = run.cases.iter().find(|timing| timing.case == case)?;
            Some(timing.gb_per_second? / run.read_gb_per_second?)
        });
        let share = median(shares);
        if share.is_nan() {
            writeln!(out)
        } else {
            writeln!(out, ", {:.0} % of the bandwidth", 100.0 * share)
        }
    }
}

fn of(runs: &[Run], case: Case) -> impl Iterator<Item = &Timing> {
    runs.iter().flat_map(|run| &run.cases).filter(move |timing| timing.case == case)
}

pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(their), Some(our)) = (self.theirs.first(), self.ours.first()) else { return Ok(()) };
        let bandwidth = median(self.ours.iter().filter_map(|run| run.read_gb_per_second));
        writeln!(
            out,
            "\n{}: theirs llama-cpp-python {}, {}",
            self.format.name(),
            their.version.as_deref().unwrap_or("of unknown version"),
            their.system.as_deref().unwrap_or("system unknown").trim()
        )?;
        let path = our.cpu_path.as_deref().unwrap_or("unknown");
        writeln!(
            out,
            "      ours on {path}, memory read at {bandwidth:.1} GB/s; theirs, ours, ratio of medians"
        )?;
        our.cases.iter().try_for_each(|timing| self.line(out, timing.case))
    }
}

#[cfg(test)]
mod tests {
    use super::{Format, Report, Run};

    fn run(seconds: f64, decode: f64) -> Run {
        let text = format!(
            r#"{{"cpu_path": "avx512", "read_gb_per_second": 20.0, "threads": 2, "cases": [
                {{"case": "prefill", "tokens": 512, "seconds": {seconds}}},
                {{"case": "decode", "depth": 0, "sequences": 1, "tokens": 128, "seconds": {decode}, "gb_per_second": 15.0}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn the_ratio_is_of_medians_and_a_missed_bar_is_said() {
        let theirs = vec![run(2.0, 4.0), run(9.0, 4.0), run(2.0, 4.0)];
        let ours = vec![run(1.0, 4.0), run(0.1, 4.0), run(1.0, 4.0)];
        let text = Report { format: Format::Bf16, theirs, ours }.to_string();
        assert!(text.contains("256.0    512.0 tok/s   2.00 ×  reaches 1.5 ×"), "{text}");
        assert!(text.contains("1.00 ×  MISSES 1.15 ×, 75 % of the bandwidth"), "{text}");
    }
}
