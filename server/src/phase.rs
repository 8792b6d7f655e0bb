//! The end of an engine's life, as its HTTP surface sees it.
//!
//! ```text
//! Serving ─► Lingering (answers all, closes connections) ─► Refusing (503; what runs goes on) ─► Aborting (it is ended)
//! ```

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    Lingering,
    Refusing,
    Aborting,
}

/// The phase, and how many requests are unfinished.
#[derive(Debug)]
pub struct Lifecycle {
    phase: watch::Sender<Phase>,
    active: watch::Sender<u32>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { phase: watch::Sender::new(Phase::Serving), active: watch::Sender::new(0) }
    }
}

impl Lifecycle {
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Phases only go forward: a second `drain` cannot bring a refusing engine back.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let forward = phase > *current;
            if forward {
                *current = phase;
            }
            forward
        });
    }

    /// Counts a request until the guard is dropped.
    pub(crate) fn enter(&self) -> ActiveRequest {
        self.active.send_modify(|count| *count += 1);
        ActiveRequest { active: self.active.clone() }
    }

    /// Requests that are unfinished.
    pub fn active(&self) -> u32 {
        *self.active.borrow()
    }

    /// Returns when no request is unfinished.
    pub async fn idle(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.active.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Returns when requests that still run are to be ended.
    pub(crate) fn aborting(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let mut phase = self.phase.subscribe();
        async move {
            let _ = phase.wait_for(|phase| *phase == Phase::Aborting).await;
        }
    }
}

#[derive(Debug)]
pub(crate) struct ActiveRequest {
    active: watch::Sender<u32>,
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.active.send_modify(|count| *count -= 1);
    }
}
