use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// One that takes at most this part of all is small: in usual settings half a megabyte, where the rules of 20 tools take 0.8.
const SMALL_SHARE: u64 = 16;

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

    /// As much room, of which nobody has taken any.
    pub(super) fn as_empty(&self) -> Arc<Self> {
        Self::new(self.bytes_max)
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

    #[cfg(test)]
    pub(super) fn leased(&self) -> usize {
        self.leases().bytes.len()
    }

    /// Whether so many bytes would fit if nobody else took any.
    pub(super) fn could_hold(&self, bytes: u64) -> bool {
        bytes <= self.room_for(bytes)
    }

    /// What all may take together after somebody has taken so many bytes. A quarter is for small ones, so that a few large ones
    /// cannot keep everybody else out.
    const fn room_for(&self, bytes: u64) -> u64 {
        if bytes > self.bytes_max / SMALL_SHARE { self.bytes_max / 4 * 3 } else { self.bytes_max }
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
        let fits = others.saturating_add(bytes) <= self.shared.room_for(bytes);
        if fits {
            leases.bytes.insert(self.id, bytes);
        }
        fits
    }

    /// Says that so many bytes are taken now. False for the largest of all where together they are too many: it has to go, and
    /// of several equal ones the latest. So a small one is safe from a large one, whoever asks last.
    pub(super) fn grow(&self, bytes: u64) -> bool {
        let mut leases = self.shared.leases();
        leases.bytes.insert(self.id, bytes);
        let is_largest = leases.bytes.iter().all(|(id, other)| (*other, *id) <= (bytes, self.id));
        leases.total() <= self.shared.bytes_max || !is_largest
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
        assert!(one.claim(60) && !two.claim(16) && two.claim(15) && one.claim(10) && two.claim(65));
        assert!(!one.claim(11));
        drop(two);
        assert!(one.claim(75) && !one.claim(76));
    }

    #[test]
    fn large_ones_leave_room_for_small_ones() {
        let shared = SharedBytes::new(160);
        let (large, other, small) =
            (SharedBytes::lease(&shared), SharedBytes::lease(&shared), SharedBytes::lease(&shared));
        assert!(shared.could_hold(120) && !shared.could_hold(121));
        assert!(large.claim(120) && !other.claim(11) && small.claim(10) && other.claim(10));
    }

    #[test]
    fn of_equal_ones_only_one_has_to_go() {
        let shared = SharedBytes::new(100);
        let leases: Vec<Lease> = (0..4).map(|_| SharedBytes::lease(&shared)).collect();
        assert!(leases.iter().all(|lease| lease.grow(25)));
        let kept: Vec<bool> = [3, 0, 1, 2].map(|index: usize| leases[index].grow(26)).into();
        assert_eq!(kept, [false, true, true, true]);
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
