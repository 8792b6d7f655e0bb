//! Requests that take no place of the engine, counted by account: tokenising for one may not keep all others from it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use sparkherd_engine::ClientKey;

/// Requests of one client at once. They are worked on one after the other, so that more would only wait; programs that count
/// tokens ask for a few texts together.
pub(crate) const CLIENT_PASSES: u32 = 16;

#[derive(Clone, Debug, Default)]
pub(crate) struct ClientGate {
    /// Of accounts that have any.
    passes: Arc<Mutex<BTreeMap<ClientKey, u32>>>,
}

/// One request under way, until dropped.
#[derive(Debug)]
pub(crate) struct ClientPass {
    gate: ClientGate,
    account: ClientKey,
}

impl ClientGate {
    pub(crate) fn pass(&self, account: ClientKey) -> Option<ClientPass> {
        let mut all = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        let passes = all.entry(account).or_default();
        if *passes >= CLIENT_PASSES {
            return None;
        }
        *passes += 1;
        Some(ClientPass { gate: self.clone(), account })
    }
}

impl Drop for ClientPass {
    fn drop(&mut self) {
        let mut all = self.gate.passes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(passes) = all.get_mut(&self.account) {
            *passes -= 1;
            if *passes == 0 {
                all.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_so_many_and_another_as_many() {
        let gate = ClientGate::default();
        let passes: Vec<_> = (0..CLIENT_PASSES).map(|_| gate.pass(ClientKey(1)).unwrap()).collect();
        assert!(gate.pass(ClientKey(1)).is_none());
        let other = gate.pass(ClientKey(2)).unwrap();
        drop(passes);
        assert!(gate.pass(ClientKey(1)).is_some());
        drop(other);
        assert!(gate.passes.lock().unwrap().is_empty());
    }
}
