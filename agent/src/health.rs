use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A loop that has not gone round for this long hangs; it goes round twice a second.
const ALIVE_WITHIN: Duration = Duration::from_secs(10);

/// An engine that answers, for the scrape of its metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineTarget {
    pub namespace: String,
    pub deployment: String,
    pub replica: String,
    pub address: SocketAddr,
}

/// What the loop shows the outside: that it is alive, and which engines answer.
#[derive(Debug)]
pub struct Health {
    start: Instant,
    /// Milliseconds from `start` to the last pass.
    last_pass_ms: AtomicU64,
    targets: Mutex<Vec<EngineTarget>>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Alive from now, with no engines.
    pub fn new() -> Self {
        Self { start: Instant::now(), last_pass_ms: AtomicU64::new(0), targets: Mutex::default() }
    }

    /// The loop went round, and these engines answer.
    pub fn passed(&self, targets: Vec<EngineTarget>) {
        let now_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_pass_ms.store(now_ms, Ordering::Relaxed);
        *self.targets.lock().unwrap_or_else(PoisonError::into_inner) = targets;
    }

    /// The loop goes round.
    pub fn is_alive(&self) -> bool {
        let last_pass = Duration::from_millis(self.last_pass_ms.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(last_pass) < ALIVE_WITHIN
    }

    /// Engines that answer now.
    pub fn targets(&self) -> Vec<EngineTarget> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
