use std::time::{Duration, Instant};

use jiff::Timestamp;

/// One moment on both clocks: durations are measured on the first, statuses tell the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Since the agent began; never steps back.
    pub since_start: Duration,
    /// Wall clock.
    pub wall: Timestamp,
}

/// The system's clocks. Read in the loop only; everything below takes the [`Moment`].
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub fn now(&self) -> Moment {
        Moment { since_start: self.start.elapsed(), wall: Timestamp::now() }
    }
}
