//! Room that requests wait for, and that accounts share: one of them has half at most, and keeps nobody else out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use sparkherd_engine::ClientKey;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

#[derive(Clone, Debug)]
pub(crate) struct Room {
    all: Arc<Semaphore>,
    of_account: usize,
    /// Of accounts that have any.
    accounts: Arc<Mutex<BTreeMap<ClientKey, Weak<Semaphore>>>>,
}

/// What a request has of it; dropping gives it back.
#[derive(Debug)]
pub(crate) struct RoomShare {
    of_account: OwnedSemaphorePermit,
    of_all: OwnedSemaphorePermit,
}

impl Room {
    /// Nobody may wait for more than `of_account`: it would wait for ever.
    pub(crate) fn new(all: usize, of_account: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), of_account, accounts: Arc::default() }
    }

    /// A share of nothing yet.
    pub(crate) async fn no_share(&self, account: ClientKey) -> Result<RoomShare, AcquireError> {
        self.take(account, 0).await
    }

    /// Waits for so much.
    pub(crate) async fn take(&self, account: ClientKey, count: u32) -> Result<RoomShare, AcquireError> {
        both(self.account(account), Arc::clone(&self.all), count).await
    }

    /// What nobody has.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.all.available_permits()
    }

    /// The account's own bound. It is kept as long as the account has any share.
    fn account(&self, account: ClientKey) -> Arc<Semaphore> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = accounts.get(&account).and_then(Weak::upgrade) {
            return own;
        }
        let own = Arc::new(Semaphore::new(self.of_account));
        accounts.retain(|_, own| own.strong_count() > 0);
        accounts.insert(account, Arc::downgrade(&own));
        own
    }
}

impl RoomShare {
    pub(crate) fn count(&self) -> usize {
        self.of_all.num_permits()
    }

    /// Waits for so much more, and keeps what it has.
    pub(crate) async fn grow(&mut self, more: u32) -> Result<(), AcquireError> {
        let (of_account, of_all) = (self.of_account.semaphore(), self.of_all.semaphore());
        let Self { of_account, of_all } = both(Arc::clone(of_account), Arc::clone(of_all), more).await?;
        self.of_account.merge(of_account);
        self.of_all.merge(of_all);
        Ok(())
    }
}

/// An account waits for its own bound first: it takes nothing from others meanwhile.
async fn both(
    of_account: Arc<Semaphore>,
    of_all: Arc<Semaphore>,
    count: u32,
) -> Result<RoomShare, AcquireError> {
    let of_account = of_account.acquire_many_owned(count).await?;
    Ok(RoomShare { of_account, of_all: of_all.acquire_many_owned(count).await? })
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn an_account_that_has_its_part_waits_and_others_do_not() {
        let room = Room::new(20, 10);
        let first = room.take(ClientKey(1), 8).await.unwrap();
        let mut own = Box::pin(room.take(ClientKey(1), 3));
        assert!(poll!(&mut own).is_pending());
        let mut other = room.take(ClientKey(2), 8).await.unwrap();
        other.grow(2).await.unwrap();
        assert_eq!((other.count(), room.free()), (10, 2));
        assert!(poll!(&mut own).is_pending());
        drop(first);
        assert_eq!(own.await.unwrap().count(), 3);
        drop(other);
        assert_eq!(room.free(), 20);
        let _third = room.take(ClientKey(3), 0).await.unwrap();
        assert_eq!(room.accounts.lock().unwrap().len(), 1, "accounts that have nothing are forgotten");
    }
}
