//! Which instructions to compute with: those that this processor has and that are the fastest on it, measured. On some
//! processors wide registers are no faster than narrow ones, or slow the core down.

use std::{str::FromStr, time::Duration};

use thiserror::Error;

use super::{linear::Benchmark, simd::Path};
use crate::clock::Clock;

/// Work of one look at a path, half of it with BF16 weights and half with Q8_0: about a millisecond of a core.
const PRODUCTS: usize = 64 << 20;
/// The fastest counts: a neighbour can only make a look slower.
const LOOKS: usize = 3;

/// A path, and how fast it was on work of which half are products of BF16 weights and half are of Q8_0 weights: one path
/// serves all formats, and some paths differ in only one of them.
#[derive(Clone, Copy, Debug)]
pub struct PathSpeed {
    pub path: Path,
    pub gflop_per_second: f64,
}

/// A name that is none of this processor's paths.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("this processor has no {name}, only {available}")]
pub struct UnknownPath {
    name: String,
    available: String,
}

impl FromStr for Path {
    type Err = UnknownPath;

    fn from_str(name: &str) -> Result<Self, UnknownPath> {
        let available = Self::available();
        available.iter().copied().find(|path| path.name() == name).ok_or_else(|| {
            let names: Vec<_> = available.iter().map(|path| path.name()).collect();
            UnknownPath { name: name.to_owned(), available: names.join(", ") }
        })
    }
}

/// Measures the paths of this processor, the fastest first. The portable path is the last resort and not measured where
/// there is another.
pub fn measure_paths(clock: &Clock) -> Vec<PathSpeed> {
    let mut paths = Path::available();
    if paths.len() > 1 {
        paths.pop();
    }
    let mut speeds: Vec<_> = paths.into_iter().map(|path| measure(path, clock)).collect();
    speeds.sort_by(|a, b| b.gflop_per_second.total_cmp(&a.gflop_per_second));
    speeds
}

fn measure(path: Path, clock: &Clock) -> PathSpeed {
    let mut benchmark = Benchmark::new();
    let times = PRODUCTS / Benchmark::PRODUCTS;
    let mut fastest = Duration::MAX;
    for _ in 0..LOOKS {
        let begin = clock.now();
        (0..times).for_each(|_| benchmark.run(path));
        fastest = fastest.min(clock.now().saturating_sub(begin));
    }
    let products = times * Benchmark::PRODUCTS;
    PathSpeed { path, gflop_per_second: 2.0 * products as f64 / fastest.as_secs_f64() / 1e9 }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        time::Duration,
    };

    use super::measure_paths;
    use crate::{backend::cpu::Path, clock::Clock};

    #[test]
    fn each_path_of_this_processor_is_found_by_its_name() {
        for path in Path::available() {
            assert_eq!(path.name().parse::<Path>().unwrap().name(), path.name());
        }
        let error = "abacus".parse::<Path>().unwrap_err().to_string();
        assert!(
            error.starts_with("this processor has no abacus, only ") && error.ends_with("portable"),
            "{error}"
        );
    }

    #[test]
    fn the_path_that_took_least_is_first() {
        // Every look takes half as long as the one before, so the last path measured is the fastest.
        let looks = AtomicU64::new(0);
        let clock = Clock::new(move || {
            let look = looks.fetch_add(1, Ordering::Relaxed) / 2;
            let ticks = looks.load(Ordering::Relaxed) % 2;
            Duration::from_secs(1000) + Duration::from_millis((1 << 20 >> look) * (1 - ticks))
        });
        let speeds = measure_paths(&clock);
        let available: Vec<_> = Path::available().iter().map(|path| path.name()).collect();
        let measured = available.len().saturating_sub(1).max(1);
        assert_eq!(speeds.len(), measured);
        assert_eq!(speeds[0].path.name(), available[measured - 1]);
    }
}
