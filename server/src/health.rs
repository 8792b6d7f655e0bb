//! Health is tokens, not a port (I6): the last generation, asked by a client or by a probe, produced one, and no step
//! has been running for too long.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sparkherd_engine::EngineStats;
use tokio::time::Instant;

/// A step takes milliseconds on a GPU and a few seconds on the CPU backend with a large model; a minute is neither.
pub const STALL_LIMIT: Duration = Duration::from_mins(1);

/// What `/healthz` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Healthy,
    /// No generation has produced a token yet.
    Untried,
    /// The last generation failed.
    Failing,
    /// A step has been running for this long.
    Stalled {
        step_age: Duration,
    },
}

#[derive(Debug)]
pub struct Health {
    started: Instant,
    stall_limit: Duration,
    tried: AtomicBool,
    failing: AtomicBool,
    /// Milliseconds from `started` to the last token.
    last_token_ms: AtomicU64,
}

impl Health {
    pub fn new(stall_limit: Duration) -> Self {
        Self {
            started: Instant::now(),
            stall_limit,
            tried: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            last_token_ms: AtomicU64::new(0),
        }
    }

    pub(crate) fn note_token(&self) {
        let age_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_token_ms.store(age_ms, Ordering::Relaxed);
        self.failing.store(false, Ordering::Relaxed);
        self.tried.store(true, Ordering::Relaxed);
    }

    pub(crate) fn note_failure(&self) {
        self.failing.store(true, Ordering::Relaxed);
    }

    /// How long no token has come; a reason to probe.
    pub(crate) fn quiet_for(&self) -> Duration {
        self.started
            .elapsed()
            .saturating_sub(Duration::from_millis(self.last_token_ms.load(Ordering::Relaxed)))
    }

    pub fn verdict(&self, stats: &EngineStats) -> Verdict {
        let step_age = Duration::from_millis(stats.last_step_age_ms);
        if stats.stalled || step_age > self.stall_limit {
            Verdict::Stalled { step_age }
        } else if self.failing.load(Ordering::Relaxed) {
            Verdict::Failing
        } else if self.tried.load(Ordering::Relaxed) {
            Verdict::Healthy
        } else {
            Verdict::Untried
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_make_it_healthy_and_a_stall_ends_it() {
        let health = Health::new(Duration::from_secs(1));
        let idle = EngineStats::default();
        assert_eq!(health.verdict(&idle), Verdict::Untried);
        health.note_token();
        assert_eq!(health.verdict(&idle), Verdict::Healthy);
        let stalled = EngineStats { last_step_age_ms: 1001, ..idle };
        assert_eq!(health.verdict(&stalled), Verdict::Stalled { step_age: Duration::from_millis(1001) });
        let slow = EngineStats { stalled: true, ..idle };
        assert_eq!(health.verdict(&slow), Verdict::Stalled { step_age: Duration::ZERO });
        health.note_failure();
        assert_eq!(health.verdict(&idle), Verdict::Failing);
        health.note_token();
        assert_eq!(health.verdict(&idle), Verdict::Healthy);
    }
}
