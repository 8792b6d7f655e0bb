use std::time::Duration;

use super::random::Random;

/// When requests come in an open loop: independent of each other, `rate` a second on average (a Poisson process, whose
/// gaps are exponential).
#[derive(Clone, Debug)]
pub(super) struct Arrivals {
    random: Random,
    rate: f64,
    seconds: f64,
}

impl Arrivals {
    /// `rate` in requests a second, above 0.
    pub(super) const fn new(seed: u64, rate: f64) -> Self {
        Self { random: Random::new(seed), rate, seconds: 0.0 }
    }

    /// When the next request is due, counted from the start. A rate so low that no clock holds the time counts as never.
    pub(super) fn next(&mut self) -> Duration {
        self.seconds -= self.random.unit().ln() / self.rate;
        Duration::try_from_secs_f64(self.seconds).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_seeded_and_exponential() {
        const COUNT: u32 = 20_000;
        let times = |seed| {
            let mut arrivals = Arrivals::new(seed, 4.0);
            (0..COUNT).map(|_| arrivals.next().as_secs_f64()).collect::<Vec<_>>()
        };
        let seconds = times(1);
        assert!(seconds.is_sorted());
        assert!(seconds.iter().eq(&times(1)) && !seconds.iter().eq(&times(2)), "seeded");
        let gaps: Vec<f64> = seconds.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / f64::from(COUNT);
        // Of an exponential distribution e⁻¹ of the gaps are longer than their mean.
        let longer = gaps.iter().filter(|gap| **gap > mean).count() as f64 / f64::from(COUNT);
        assert!((mean - 0.25).abs() < 0.01, "mean gap {mean}");
        assert!((longer - (-1.0_f64).exp()).abs() < 0.02, "{longer} are longer than the mean");
    }
}
