//! What accounts have of one thing, as numbers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sparkherd_engine::ClientKey;

#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Of accounts that have any.
    by_account: Arc<Mutex<BTreeMap<ClientKey, usize>>>,
}

/// What one of them has; dropping gives it back.
#[derive(Debug)]
pub(crate) struct Tallied {
    tally: Tally,
    account: ClientKey,
    count: usize,
}

impl Tally {
    pub(crate) fn of(&self, account: ClientKey) -> usize {
        self.counts().get(&account).copied().unwrap_or_default()
    }

    pub(crate) fn add(&self, account: ClientKey, count: usize) -> Tallied {
        *self.counts().entry(account).or_default() += count;
        Tallied { tally: self.clone(), account, count }
    }

    /// One more, unless the account has `max`.
    pub(crate) fn add_one_below(&self, account: ClientKey, max: usize) -> Option<Tallied> {
        let mut counts = self.counts();
        let count = counts.entry(account).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Tallied { tally: self.clone(), account, count: 1 })
    }

    /// Numbers are whole between any two calls, so a poisoned lock says nothing about them.
    fn counts(&self) -> MutexGuard<'_, BTreeMap<ClientKey, usize>> {
        self.by_account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tallied {
    fn drop(&mut self) {
        let mut counts = self.tally.counts();
        if let Some(all) = counts.get_mut(&self.account) {
            *all -= self.count;
            if *all == 0 {
                counts.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_so_many_and_another_as_many() {
        let tally = Tally::default();
        let mine: Vec<_> = (0..16).map(|_| tally.add_one_below(ClientKey(1), 16).unwrap()).collect();
        assert!(tally.add_one_below(ClientKey(1), 16).is_none());
        let other = tally.add_one_below(ClientKey(2), 16).unwrap();
        drop(mine);
        assert!(tally.add_one_below(ClientKey(1), 16).is_some());
        drop(other);
        assert!(tally.counts().is_empty());
    }

    #[test]
    fn counts_of_one_account_add_up() {
        let tally = Tally::default();
        let (first, second) = (tally.add(ClientKey(1), 100), tally.add(ClientKey(1), 10));
        assert_eq!((tally.of(ClientKey(1)), tally.of(ClientKey(2))), (110, 0));
        drop(first);
        assert_eq!(tally.of(ClientKey(1)), 10);
        drop(second);
        assert!(tally.counts().is_empty());
    }
}
