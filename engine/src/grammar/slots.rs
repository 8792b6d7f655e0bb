use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

/// A fixed number of places, waited for.
#[derive(Debug)]
pub(super) struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

/// One of them; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Slot(Arc<Slots>);

impl Slots {
    pub(super) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::new(count), freed: Condvar::new() })
    }

    /// Takes a place, or `None` if none is free within `limit`.
    pub(super) fn take(slots: &Arc<Self>, limit: Duration) -> Option<Slot> {
        let free = slots.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = slots.freed.wait_timeout_while(free, limit, |free| *free == 0);
        let (mut free, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *free = free.checked_sub(1)?;
        Some(Slot(Arc::clone(slots)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}
