use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::request::ClientKey;

/// One that takes at most this part of all is small: in usual settings half a megabyte, where the rules of 20 tools take 0.8.
const SMALL_SHARE: u64 = 16;

/// What all large ones may take together, in quarters of all: the rest is for small ones.
const LARGE_QUARTERS: u64 = 3;

/// What the large ones of one account may take of them: another account finds room for one of its own.
const ACCOUNT_QUARTERS: u64 = 2;

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

    /// Whether so many bytes would fit if nobody else took any.
    pub(super) fn could_hold(&self, bytes: u64) -> bool {
        bytes <= if self.is_large(bytes) { self.quarters(ACCOUNT_QUARTERS) } else { self.bytes_max }
    }

    const fn is_large(&self, bytes: u64) -> bool {
        bytes > self.bytes_max / SMALL_SHARE
    }

    const fn quarters(&self, count: u64) -> u64 {
        self.bytes_max / 4 * count
    }

    /// Numbers are whole between any two calls, so a poisoned lock says nothing about them.
    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Takes so many bytes for an account if there is room for them. Large ones leave some to small ones, and those of one
    /// account to others', so that nobody can keep everybody else out.
    pub(super) fn claim(&self, account: ClientKey, bytes: u64) -> bool {
        let mut leases = self.shared.leases();
        let (mut others, mut own) = (0_u64, 0_u64);
        for (id, taken) in &leases.taken {
            let Taken { bytes, account: of } = *taken;
            let counts = *id != self.id;
            others = others.saturating_add(if counts { bytes } else { 0 });
            own = own.saturating_add(if counts && of == Some(account) { bytes } else { 0 });
        }
        let shared = &self.shared;
        let (all, own) = (others.saturating_add(bytes), own.saturating_add(bytes));
        let fits = if shared.is_large(bytes) {
            all <= shared.quarters(LARGE_QUARTERS) && own <= shared.quarters(ACCOUNT_QUARTERS)
        } else {
            all <= shared.bytes_max
        };
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
        let shared = SharedBytes::new(100);
        let (one, two) = (SharedBytes::lease(&shared), SharedBytes::lease(&shared));
        assert!(one.claim(MINE, 50) && !two.claim(YOURS, 26) && two.claim(YOURS, 25));
        assert!(one.claim(MINE, 30) && two.claim(YOURS, 45) && !two.claim(YOURS, 46));
        drop(two);
        assert!(one.claim(MINE, 50) && !one.claim(MINE, 51));
    }

    #[test]
    fn large_ones_leave_room_for_small_ones_and_for_those_of_others() {
        let shared = SharedBytes::new(160);
        assert!(shared.could_hold(80) && !shared.could_hold(81));
        let leases: Vec<Lease> = (0..5).map(|_| SharedBytes::lease(&shared)).collect();
        let claim = |lease: usize, account, bytes| leases[lease].claim(account, bytes);
        assert!(claim(0, MINE, 50) && !claim(1, MINE, 31) && claim(1, MINE, 30));
        assert!(claim(2, YOURS, 40) && !claim(3, YOURS, 11));
        assert!(claim(3, MINE, 10) && claim(4, YOURS, 10), "small ones");
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
