//! Whose turn it is: deficit round robin over clients, in units of tokens.
//!
//! Each client has a balance. It pays for what it gets: one unit a prompt token computed, two a token generated. Who is at
//! the front and in credit is served; who is not gets a quantum and goes to the back. A generation's length is not known
//! when it starts, so it is paid for as it goes, and the balance may fall below zero.
//!
//! So two clients that always have something waiting get the same number of units, give or take a quantum and what one
//! request of each costs; the sequences each has running are the credit it was given in advance.

use std::collections::{BTreeMap, VecDeque};

use crate::request::ClientKey;

/// Units a client gets when it comes round. About one request of a chat: smaller ones make no difference, as requests are
/// served whole, and larger ones let a client's requests come in bunches.
const QUANTUM: i64 = 512;

/// Price of a prompt token.
pub(super) const PROMPT_TOKEN: i64 = 1;

/// Price of a generated token: it takes a place in a step as long as a prompt token does, and rereads all before it.
pub(super) const GENERATED_TOKEN: i64 = 2;

/// Balances, and who waits.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Clients with anything waiting, the next one first.
    waiting: VecDeque<ClientKey>,
    /// Of clients with anything waiting or running.
    balances: BTreeMap<ClientKey, i64>,
}

impl Turns {
    /// The client has something waiting, for the first time or again.
    pub(super) fn wait(&mut self, client: ClientKey) {
        if !self.waiting.contains(&client) {
            self.waiting.push_back(client);
            self.balances.entry(client).or_default();
        }
    }

    /// Whose turn it is. It stays the same until that client pays or waits no more.
    pub(super) fn next(&mut self) -> Option<ClientKey> {
        loop {
            let client = *self.waiting.front()?;
            let balance = self.balances.entry(client).or_default();
            if *balance > 0 {
                return Some(client);
            }
            *balance += QUANTUM;
            self.waiting.rotate_left(1);
        }
    }

    pub(super) fn pay(&mut self, client: ClientKey, units: i64) {
        if let Some(balance) = self.balances.get_mut(&client) {
            *balance = balance.saturating_sub(units);
        }
    }

    /// The client has nothing waiting. Credit is not saved up; debt stays while it is being run into.
    pub(super) fn rest(&mut self, client: ClientKey) {
        self.waiting.retain(|waiting| *waiting != client);
        if let Some(balance) = self.balances.get_mut(&client) {
            *balance = (*balance).min(0);
        }
    }

    /// The client has nothing waiting and nothing running.
    pub(super) fn forget(&mut self, client: ClientKey) {
        self.rest(client);
        self.balances.remove(&client);
    }
}
