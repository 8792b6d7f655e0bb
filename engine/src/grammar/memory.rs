use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Bytes that several may take, and no more together.
#[derive(Debug)]
pub(super) struct SharedBytes {
    bytes_max: u64,
    leases: Mutex<Leases>,
}

#[derive(Debug, Default)]
struct Leases {
    bytes: BTreeMap<u64, u64>,
    next_id: u64,
}

/// What one of them takes; dropping gives it back.
#[derive(Debug)]
pub(super) struct Lease {
    shared: Arc<SharedBytes>,
    id: u64,
}

impl SharedBytes {
    pub(super) fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { bytes_max, leases: Mutex::default() })
    }

    /// A lease of nothing yet.
    pub(super) fn lease(shared: &Arc<Self>) -> Lease {
        let mut leases = shared.leases();
        let id = leases.next_id;
        leases.next_id += 1;
        leases.bytes.insert(id, 0);
        drop(leases);
        Lease { shared: Arc::clone(shared), id }
    }

    /// Numbers are whole between any two calls, so a poisoned lock says nothing about them.
    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Takes so many bytes if there is room for them.
    pub(super) fn claim(&self, bytes: u64) -> bool {
        let mut leases = self.shared.leases();
        let others = leases.total() - leases.bytes.get(&self.id).copied().unwrap_or_default();
        let fits = others.saturating_add(bytes) <= self.shared.bytes_max;
        if fits {
            leases.bytes.insert(self.id, bytes);
        }
        fits
    }

    /// Says that so many bytes are taken now. False where all together are too many and nobody has more than this one: it has
    /// to go. So a small one is safe from a large one, whoever asks last.
    pub(super) fn grow(&self, bytes: u64) -> bool {
        let mut leases = self.shared.leases();
        leases.bytes.insert(self.id, bytes);
        leases.total() <= self.shared.bytes_max || leases.bytes.values().any(|other| *other > bytes)
    }
}

impl Leases {
    fn total(&self) -> u64 {
        self.bytes.values().fold(0, |total, bytes| total.saturating_add(*bytes))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.leases().bytes.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_claimed_is_there_or_refused_and_comes_back() {
        let shared = SharedBytes::new(100);
        let (one, two) = (SharedBytes::lease(&shared), SharedBytes::lease(&shared));
        assert!(one.claim(60) && !two.claim(41) && two.claim(40) && one.claim(10) && two.claim(90));
        assert!(!one.claim(11));
        drop(two);
        assert!(one.claim(100));
    }

    #[test]
    fn where_all_grow_too_much_the_largest_has_to_go() {
        let shared = SharedBytes::new(100);
        let (small, large) = (SharedBytes::lease(&shared), SharedBytes::lease(&shared));
        assert!(small.grow(30) && large.grow(70));
        assert!(small.grow(40), "a larger one pays");
        assert!(!large.grow(70));
        drop(large);
        assert!(small.grow(100) && !small.grow(101));
    }
}
