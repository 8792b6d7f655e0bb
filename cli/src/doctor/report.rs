use std::fmt;

use serde::Serialize;

use super::line::{Line, Verdict};

/// All lines, and the worst of their verdicts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    verdict: Verdict,
    checks: Vec<Line>,
}

impl Report {
    pub(super) fn new(checks: Vec<Line>) -> Self {
        let verdict = checks.iter().map(|line| line.verdict).max().unwrap_or(Verdict::Unknown);
        Self { verdict, checks }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.verdict == Verdict::Fail
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.checks.iter().map(|line| line.check.len()).max().unwrap_or(0);
        writeln!(formatter, "{:width$}  {:7}  FOUND", "CHECK", "VERDICT")?;
        for Line { check, verdict, found, advice } in &self.checks {
            writeln!(formatter, "{check:width$}  {verdict:7}  {found}")?;
            if let Some(advice) = advice {
                writeln!(formatter, "{:width$}  {:7}  > {advice}", "", "")?;
            }
        }
        let counts = Verdict::ALL
            .map(|verdict| (verdict, self.checks.iter().filter(|line| line.verdict == verdict).count()));
        let counts: Vec<String> = counts
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(verdict, count)| format!("{count} {verdict}"))
            .collect();
        writeln!(formatter, "\n{}", counts.join(", "))
    }
}
