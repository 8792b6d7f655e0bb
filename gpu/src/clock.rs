use std::time::Duration;

use crate::Gpu;

/// A GB10 that computes runs at 2.3 to 2.5 GHz; after a fault of its power supply it stays at 0.7 to 0.85 GHz until it is
/// unplugged. Half of the usual clock is far from both.
pub const SLOW_CLOCK_MHZ: u32 = 1200;

/// Below this the clock may be low because there is little to do.
const BUSY_ABOVE_PERCENT: u32 = 90;

/// Shorter dips pass by themselves.
const SLOW_FOR: Duration = Duration::from_mins(1);

/// Sees whether the clock of a GB10 is stuck low: slow in every look of a minute, all of them busy. Other GPUs may have
/// a lower clock by design and are not judged.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockJudge {
    slow_since: Option<Duration>,
    degraded: bool,
}

impl ClockJudge {
    /// Whether the clock counts as stuck after this look. Idleness ends a minute that has begun, but it does not heal:
    /// only a busy GPU at a good clock shows that the fault is gone.
    pub fn look(&mut self, gpu: &Gpu, now: Duration) -> bool {
        let busy = gpu.utilization_percent.is_some_and(|percent| percent > BUSY_ABOVE_PERCENT);
        let Some(clock_mhz) = gpu.sm_clock_mhz.filter(|_| busy && gpu.is_gb10()) else {
            self.slow_since = None;
            return self.degraded;
        };
        if clock_mhz >= SLOW_CLOCK_MHZ {
            *self = Self::default();
            return false;
        }
        let since = *self.slow_since.get_or_insert(now);
        self.degraded |= now.saturating_sub(since) >= SLOW_FOR;
        self.degraded
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::ClockJudge;
    use crate::Gpu;

    fn gpu(name: &str, clock_mhz: u32, busy_percent: u32) -> Gpu {
        Gpu {
            name: Some(name.to_owned()),
            sm_clock_mhz: Some(clock_mhz),
            utilization_percent: Some(busy_percent),
            ..Gpu::default()
        }
    }

    fn judged(looks: &[(u64, u32, u32)]) -> Vec<bool> {
        let mut judge = ClockJudge::default();
        looks
            .iter()
            .map(|(seconds, clock_mhz, percent)| {
                judge.look(&gpu("NVIDIA GB10", *clock_mhz, *percent), Duration::from_secs(*seconds))
            })
            .collect()
    }

    #[test]
    fn a_minute_of_slow_and_busy_is_a_fault() {
        assert_eq!(judged(&[(0, 1199, 91), (59, 850, 99), (60, 850, 99)]), [false, false, true]);
        assert_eq!(judged(&[(0, 1200, 99), (60, 1200, 99)]), [false, false], "a good clock");
        assert_eq!(judged(&[(0, 850, 90), (60, 850, 90)]), [false, false], "not busy");
        assert_eq!(judged(&[(0, 850, 99), (30, 850, 50), (60, 850, 99)]), [false, false, false], "a pause");
    }

    #[test]
    fn only_a_good_clock_under_load_ends_it() {
        let stuck = [(0, 850, 99), (60, 850, 99)];
        let idle = judged(&[stuck[0], stuck[1], (70, 200, 0)]);
        assert_eq!(idle, [false, true, true]);
        assert_eq!(judged(&[stuck[0], stuck[1], (70, 2400, 95), (71, 850, 95)]), [false, true, false, false]);
    }

    #[test]
    fn other_gpus_and_silent_drivers_are_not_judged() {
        let mut judge = ClockJudge::default();
        for seconds in [0, 60, 120] {
            assert!(!judge.look(&gpu("NVIDIA L4", 795, 100), Duration::from_secs(seconds)));
            let silent = Gpu { sm_clock_mhz: None, ..gpu("NVIDIA GB10", 0, 100) };
            assert!(!judge.look(&silent, Duration::from_secs(seconds)));
        }
    }
}
