use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::request::ClientKey;

/// One that takes at most this part of all is small: in usual settings half a megabyte, where the rules of 20 tools take 0.8.
const SMALL_SHARE: u64 = 16;

/// What the large ones of an account may take with all it has, in eighths of all. The largest rules that are compiled, 4 MiB and
/// an automaton for their words, fit this part of the smallest room, which is 8 MiB.
const LARGE_EIGHTHS: u64 = 5;

/// What an account may take in all: its small ones find room beside its large ones, and others beside both.
const ACCOUNT_EIGHTHS: u64 = 6;

/// Bytes that several may take, and no more together.
#[derive(Debug)]
pub(super) struct SharedBytes {
    bytes_max: u64,
    leases: Mutex<Leases>,
}

#[derive(Debug, Default)]
struct Leases {
    taken: BTreeMap<u64, Taken>,
    next_id: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    bytes: u64,
    /// Who claimed them, if that is told.
    account: Option<ClientKey>,
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
        leases.taken.insert(id, Taken::default());
        drop(leases);
        Lease { shared: Arc::clone(shared), id }
    }

    #[cfg(test)]
    pub(super) fn leased(&self) -> usize {
        self.leases().taken.len()
    }

    /// Whether so many bytes would fit if nobody took any.
    pub(super) const fn could_hold(&self, bytes: u64) -> bool {
        bytes <= self.part_of_account(bytes)
    }

    /// What an account may have after it has taken so many bytes at once.
    const fn part_of_account(&self, bytes: u64) -> u64 {
        let is_large = bytes > self.bytes_max / SMALL_SHARE;
        self.bytes_max / 8 * if is_large { LARGE_EIGHTHS } else { ACCOUNT_EIGHTHS }
    }

    /// Numbers are whole between any two calls, so a poisoned lock says nothing about them.
    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Takes so many bytes for an account if there is room for them in its part, and in all.
    pub(super) fn claim(&self, account: ClientKey, bytes: u64) -> bool {
        let mut leases = self.shared.leases();
        let (mut all, mut own) = (bytes, bytes);
        for (_, taken) in leases.taken.iter().filter(|(id, _)| **id != self.id) {
            all = all.saturating_add(taken.bytes);
            own = own.saturating_add(if taken.account == Some(account) { taken.bytes } else { 0 });
        }
        let fits = all <= self.shared.bytes_max && own <= self.shared.part_of_account(bytes);
        if fits {
            leases.taken.insert(self.id, Taken { bytes, account: Some(account) });
        }
        fits
    }

    /// Says that so many bytes are taken now. False for the largest of all where together they are too many: it has to go, and
    /// of several equal ones the latest. So a small one is safe from a large one, whoever asks last.
    pub(super) fn grow(&self, bytes: u64) -> bool {
        let mut leases = self.shared.leases();
        leases.taken.insert(self.id, Taken { bytes, account: None });
        let is_largest = leases.taken.iter().all(|(id, other)| (other.bytes, *id) <= (bytes, self.id));
        leases.total() <= self.shared.bytes_max || !is_largest
    }
}

impl Leases {
    fn total(&self) -> u64 {
        self.taken.values().fold(0, |total, taken| total.saturating_add(taken.bytes))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.leases().taken.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: ClientKey = ClientKey(1);
    const YOURS: ClientKey = ClientKey(2);

    #[test]
    fn what_is_claimed_is_there_or_refused_and_comes_back() {
        let shared = SharedBytes::new(80);
        assert!(shared.could_hold(50) && !shared.could_hold(51));
        let (one, two) = (SharedBytes::lease(&shared), SharedBytes::lease(&shared));
        assert!(one.claim(MINE, 50) && !two.claim(YOURS, 31) && two.claim(YOURS, 30));
        assert!(one.claim(MINE, 30) && two.claim(YOURS, 50) && !two.claim(YOURS, 51));
        drop(two);
        assert!(one.claim(MINE, 50) && !one.claim(MINE, 51));
    }

    #[test]
    fn an_account_leaves_room_for_its_small_ones_and_for_others() {
        let shared = SharedBytes::new(160);
        let lease = || SharedBytes::lease(&shared);
        let large = lease();
        assert!(large.claim(MINE, 100) && !lease().claim(MINE, 11));
        let small: Vec<Lease> = (0..2).map(|_| lease()).collect();
        assert!(small.iter().all(|lease| lease.claim(MINE, 10)) && !lease().claim(MINE, 1));
        assert!(lease().claim(YOURS, 40));
        // Small ones alone keep nobody out either.
        drop((large, small));
        let small: Vec<Lease> =
            std::iter::from_fn(|| Some(lease()).filter(|lease| lease.claim(MINE, 10))).collect();
        assert_eq!(small.len(), 12);
        assert!(lease().claim(YOURS, 40));
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
