//! The tests, cheapest first: each height sees a kind of fault that the one below cannot. The first that fails ends
//! the run; what was skipped is always said, with the reason.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::{arm64, cargo, chart, demo, generate, kernels, shim, tidy};

struct Height {
    name: &'static str,
    what: &'static str,
    /// Worth running every few minutes.
    is_fast: bool,
    /// Where this fails the height is skipped, with the error as the reason: it says nothing about our code.
    prepare: fn() -> Result<()>,
    run: fn() -> Result<()>,
}

impl Height {
    const fn new(name: &'static str, what: &'static str, run: fn() -> Result<()>) -> Self {
        Self { name, what, is_fast: false, prepare: || Ok(()), run }
    }

    const fn fast(self) -> Self {
        Self { is_fast: true, ..self }
    }
}

const HEIGHTS: [Height; 13] = [
    Height::new("format", "rustfmt", format).fast(),
    Height::new("generated", "generated files are up to date", generated).fast(),
    Height::new("tidy", "sizes, banned calls, layers, licences", tidy::run).fast(),
    Height::new("lint", "clippy on everything", lint).fast(),
    Height::new("unit", "tests of each crate by itself", unit).fast(),
    Height {
        prepare: || need(&["c++"]),
        ..Height::new("shim", "CUDA kernels on the host: sanitizers, races, faults", shim::run)
    },
    Height {
        prepare: kernels::prepare,
        ..Height::new("kernels", "CUDA kernels compile for every chip, and take what they took", kernels_take)
    },
    Height {
        prepare: || need(&["python3"]),
        ..Height::new("python", "OpenAI's Python client, LiteLLM, schemathesis", python)
    },
    Height { prepare: || need(&["node", "npm"]), ..Height::new("node", "OpenAI's Node client", node) },
    Height::new("chart", "helm lint and template", chart::run),
    Height::new("api", "end to end on a real API server", api),
    Height::new("demo", "the demo, once", demo),
    // Last: what it alone can see is a fault in arm64's instructions.
    Height {
        prepare: arm64::prepare,
        ..Height::new("arm64", "the engine's tests as aarch64 in an emulator", arm64::test)
    },
];

/// Heights of the design that this project does not have yet. They are printed, so that nobody takes a green run
/// for more than it is.
const NOT_YET: [(&str, &str); 2] = [
    ("cluster", "no test on a real kubelet yet; needs the container image"),
    ("gpu", "no GPU in CI: `cargo xtask gpu` builds one program that proves them where there is one"),
];

enum Outcome {
    Passed(Duration),
    Failed(Duration),
    Skipped(String),
}

/// Runs all heights, the fast ones, or the one of this name.
pub fn run(fast: bool, only: Option<&str>) -> Result<()> {
    if let Some(name) = only {
        let names = HEIGHTS.map(|height| height.name);
        ensure!(names.contains(&name), "no height {name:?}; there are {}", names.join(", "));
    }
    let mut outcomes = Vec::new();
    let mut failure = None;
    for height in HEIGHTS {
        let outcome = if failure.is_some() {
            Outcome::Skipped("an earlier one failed".into())
        } else if only.is_some_and(|name| name != height.name) {
            Outcome::Skipped("not asked for".into())
        } else if fast && !height.is_fast {
            Outcome::Skipped("--fast".into())
        } else {
            println!("── {}: {}", height.name, height.what);
            climb(&height)
        };
        if matches!(outcome, Outcome::Failed(_)) {
            failure = Some(height.name);
        }
        outcomes.push((height.name, outcome));
    }
    outcomes.extend(NOT_YET.map(|(name, reason)| (name, Outcome::Skipped(reason.into()))));
    println!("{}", summary(&outcomes));
    match failure {
        Some(name) => bail!("{name} failed"),
        None => Ok(()),
    }
}

fn climb(height: &Height) -> Outcome {
    if let Err(reason) = (height.prepare)() {
        return Outcome::Skipped(format!("{reason:#}"));
    }
    let started = Instant::now();
    match (height.run)() {
        Ok(()) => Outcome::Passed(started.elapsed()),
        Err(error) => {
            println!("{error:#}");
            Outcome::Failed(started.elapsed())
        }
    }
}

fn summary(outcomes: &[(&str, Outcome)]) -> String {
    let mut text = String::from("── summary\n");
    for (name, outcome) in outcomes {
        let result = match outcome {
            Outcome::Passed(took) => format!("passed   {} min", minutes(*took)),
            Outcome::Failed(took) => format!("FAILED   {} min", minutes(*took)),
            Outcome::Skipped(reason) => format!("skipped  {reason}"),
        };
        let _ = writeln!(text, "{name:<10} {result}");
    }
    text
}

fn minutes(took: Duration) -> String {
    format!("{:.1}", took.as_secs_f64() / 60.0)
}

fn format() -> Result<()> {
    cargo::run(&["fmt", "--all", "--check"])
}

fn generated() -> Result<()> {
    generate::run(true)
}

fn kernels_take() -> Result<()> {
    kernels::run(true)
}

fn lint() -> Result<()> {
    cargo::run(&["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny=warnings"])
}

// Targets are chosen, never packages: a subset of the packages would have other features, and be built a second time.

fn unit() -> Result<()> {
    let tests = cargo::unit_test_targets()?;
    let mut arguments = vec!["test", "--locked", "--workspace", "--lib", "--bins"];
    arguments.extend(tests.iter().flat_map(|name| ["--test", name.as_str()]));
    cargo::run(&arguments)
}

fn python() -> Result<()> {
    clients("clients::python::")
}

fn node() -> Result<()> {
    clients("clients::node::")
}

/// Programs from package registries, which nobody's plain `cargo test` should need.
fn clients(filter: &str) -> Result<()> {
    cargo::run(&["test", "--locked", "--workspace", "--test", "engine", "--", "--ignored", filter])
}

/// Without them a height is skipped.
fn need(programs: &[&str]) -> Result<()> {
    for program in programs {
        let output = Command::new(program).arg("--version").output();
        ensure!(output.is_ok_and(|output| output.status.success()), "there is no {program}");
    }
    Ok(())
}

fn api() -> Result<()> {
    // One cluster at a time: two of them on two cores would only wait for each other.
    for name in cargo::test_targets("e2e")? {
        cargo::run(&["test", "--locked", "--workspace", "--test", &name])?;
    }
    Ok(())
}

/// From apply to the answer, as a new user sees it.
fn demo() -> Result<()> {
    demo::run(true, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_prepared_is_skipped_with_the_reason_and_not_run() {
        let height = Height {
            prepare: || bail!("no root"),
            ..Height::new("arm64", "", || unreachable!("not prepared"))
        };
        assert!(matches!(climb(&height), Outcome::Skipped(reason) if reason == "no root"));
    }

    #[test]
    fn the_summary_hides_nothing() {
        let outcomes = [
            ("format", Outcome::Passed(Duration::from_secs(6))),
            ("unit", Outcome::Failed(Duration::from_secs(90))),
            ("gpu", Outcome::Skipped("no GPU".into())),
        ];
        let text = summary(&outcomes);
        for line in
            ["format     passed   0.1 min", "unit       FAILED   1.5 min", "gpu        skipped  no GPU"]
        {
            assert!(text.contains(line), "{line} not in {text}");
        }
    }
}
