use std::{fmt, sync::Arc, time::Duration};

/// Tells the time since some moment of the past; it never goes back. An argument of the engine, so that tests own time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Clock {
    /// The machine's own, from now on.
    pub fn monotonic() -> Self {
        let start = std::time::Instant::now();
        Self::new(move || start.elapsed())
    }

    /// A clock that says what `now` says.
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub fn now(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Clock").field(&self.now()).finish()
    }
}
