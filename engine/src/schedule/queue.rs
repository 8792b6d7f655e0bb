use std::collections::{BTreeMap, VecDeque};

use super::{
    sequence::{Sequence, SequenceId},
    turns::{PROMPT_TOKEN, Turns},
};
use crate::request::{ClientKey, Priority};

/// Sequences without blocks, by priority.
#[derive(Debug, Default)]
pub(super) struct WaitingQueue {
    classes: BTreeMap<Priority, Class>,
    len: usize,
}

#[derive(Debug, Default)]
struct Class {
    /// In order of rank; they have paid already.
    preempted: VecDeque<Sequence>,
    /// Each client's own, in order of arrival; none is empty.
    clients: BTreeMap<ClientKey, VecDeque<Sequence>>,
    turns: Turns,
}

impl WaitingQueue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, sequence: Sequence) {
        let class = self.classes.entry(sequence.priority).or_default();
        class.turns.wait(sequence.client);
        class.clients.entry(sequence.client).or_default().push_back(sequence);
        self.len += 1;
    }

    /// A sequence that ran; the ones preempted before it in this step rank after it.
    pub(super) fn push_preempted(&mut self, sequence: Sequence) {
        let preempted = &mut self.classes.entry(sequence.priority).or_default().preempted;
        let place = preempted.partition_point(|other| other.rank() < sequence.rank());
        preempted.insert(place, sequence);
        self.len += 1;
    }

    /// The sequence whose turn it is.
    pub(super) fn next(&mut self) -> Option<&mut Sequence> {
        self.classes.values_mut().find_map(Class::next)
    }

    /// Takes out the sequence whose turn it is. Its client pays for the tokens it has yet to compute.
    pub(super) fn take_next(&mut self) -> Option<Sequence> {
        let sequence = self.classes.values_mut().find_map(Class::take_next)?;
        self.len -= 1;
        Some(sequence)
    }

    /// A running sequence's client pays.
    pub(super) fn pay(&mut self, priority: Priority, client: ClientKey, units: i64) {
        if let Some(class) = self.classes.get_mut(&priority) {
            class.turns.pay(client, units);
        }
    }

    /// Takes a sequence out, wherever it is.
    pub(super) fn remove(&mut self, id: SequenceId) -> Option<Sequence> {
        let sequence = self.classes.values_mut().find_map(|class| class.remove(id))?;
        self.len -= 1;
        Some(sequence)
    }

    /// One of the client's sequences has left the schedule, and `runs` tells whether it has others that run.
    pub(super) fn left(&mut self, priority: Priority, client: ClientKey, runs: bool) {
        if let Some(class) = self.classes.get_mut(&priority) {
            class.left(client, runs);
        }
    }
}

impl Class {
    fn next(&mut self) -> Option<&mut Sequence> {
        if !self.preempted.is_empty() {
            return self.preempted.front_mut();
        }
        let client = self.turns.next()?;
        self.clients.get_mut(&client)?.front_mut()
    }

    fn take_next(&mut self) -> Option<Sequence> {
        if let Some(sequence) = self.preempted.pop_front() {
            return Some(sequence);
        }
        let client = self.turns.next()?;
        let sequence = self.clients.get_mut(&client)?.pop_front()?;
        let units = i64::try_from(sequence.pending()).unwrap_or(i64::MAX);
        self.turns.pay(client, units.saturating_mul(PROMPT_TOKEN));
        self.rest_if_empty(client);
        Some(sequence)
    }

    fn remove(&mut self, id: SequenceId) -> Option<Sequence> {
        if let Some(place) = self.preempted.iter().position(|sequence| sequence.id == id) {
            return self.preempted.remove(place);
        }
        let sequence = self.clients.values_mut().find_map(|waiting| {
            let place = waiting.iter().position(|sequence| sequence.id == id)?;
            waiting.remove(place)
        })?;
        self.rest_if_empty(sequence.client);
        Some(sequence)
    }

    fn rest_if_empty(&mut self, client: ClientKey) {
        if self.clients.get(&client).is_some_and(VecDeque::is_empty) {
            self.clients.remove(&client);
            self.turns.rest(client);
        }
    }

    fn left(&mut self, client: ClientKey, runs: bool) {
        let waits = self.clients.contains_key(&client)
            || self.preempted.iter().any(|sequence| sequence.client == client);
        if !waits && !runs {
            self.turns.forget(client);
        }
    }
}
