//! The same rules over plain lists: every search is a scan, and what a block holds is written out in full.

use super::BLOCK;
use crate::{
    request::{ClientKey, Priority},
    schedule::{Arrival, ScheduleLimits},
};

/// The salt and all tokens up to the block's end.
type Content = (u64, Vec<u32>);

#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    pub(super) owners: usize,
    pub(super) content: Option<Content>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) client: ClientKey,
    pub(super) priority: Priority,
    salt: u64,
    pub(super) tokens: Vec<u32>,
    pub(super) computed: usize,
    pub(super) blocks: Vec<usize>,
    pub(super) answer_left: usize,
    pub(super) started: bool,
    pub(super) preempted: bool,
    /// Blocks that were found or published.
    settled: usize,
}

impl Entry {
    pub(super) fn new(arrival: Arrival, answer_left: usize) -> Self {
        let Arrival { id, client, priority, cache_salt: salt, purpose: _, tokens } = arrival;
        Self {
            id: id.0,
            client,
            priority,
            salt,
            tokens,
            computed: 0,
            blocks: vec![],
            answer_left,
            started: false,
            preempted: false,
            settled: 0,
        }
    }

    fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    fn rank(&self) -> (Priority, u64) {
        (self.priority, self.id)
    }

    fn content(&self, block: usize) -> Content {
        (self.salt, self.tokens[..(block + 1) * BLOCK].to_vec())
    }
}

/// One sequence's share of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) id: u64,
    pub(super) position: usize,
    pub(super) tokens: Vec<u32>,
    pub(super) blocks: Vec<usize>,
    pub(super) complete: bool,
}

#[derive(Debug)]
pub(super) struct Reference {
    pub(super) limits: ScheduleLimits,
    pub(super) slots: Vec<Slot>,
    /// In the order of their release.
    free: Vec<usize>,
    pub(super) running: Vec<Entry>,
    pub(super) waiting: Vec<Entry>,
    budget: usize,
}

impl Reference {
    pub(super) fn new(limits: ScheduleLimits, blocks: usize) -> Self {
        Self {
            limits,
            slots: vec![Slot::default(); blocks],
            free: (0..blocks).collect(),
            running: vec![],
            waiting: vec![],
            budget: 0,
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Entry> {
        self.running.iter().chain(&self.waiting)
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// The part of a step that those who run already get.
    pub(super) fn step(&mut self) -> Vec<Share> {
        for index in 0..self.running.len() {
            self.publish(index);
        }
        let mut index = 0;
        while index < self.running.len() {
            let wanted = self.running[index].tokens.len().div_ceil(BLOCK) - self.running[index].blocks.len();
            if wanted <= self.free.len() {
                let taken: Vec<usize> = (0..wanted).map(|_| self.take()).collect();
                self.running[index].blocks.extend(taken);
                index += 1;
            } else {
                let mut last = self.running.pop().unwrap();
                self.release(std::mem::take(&mut last.blocks));
                self.waiting.push(Entry { computed: 0, preempted: true, ..last });
            }
        }
        self.budget = self.limits.tokens_per_step;
        let decodes: Vec<usize> = self.indices(|entry| entry.pending() == 1);
        let prefills: Vec<usize> = self.indices(|entry| entry.pending() > 1);
        let mut shares: Vec<Share> = decodes.into_iter().filter_map(|index| self.share(index)).collect();
        if !shares.is_empty() {
            self.budget = self.budget.min((self.limits.tokens_per_step / 4).max(1));
        }
        shares.extend(prefills.into_iter().filter_map(|index| self.share(index)).collect::<Vec<_>>());
        shares
    }

    /// Admits a sequence that may be next, and gives its share and how many of its tokens were found; `None` if there is no
    /// room for it.
    pub(super) fn admit(&mut self, id: u64) -> Option<(Share, usize)> {
        let place = self.waiting.iter().position(|entry| entry.id == id).expect("it waits");
        assert!(self.may_be_next(place), "{:?} is not next", self.waiting[place]);
        if self.budget == 0 || self.running.len() >= self.limits.sequences {
            return None;
        }
        let mut entry = self.waiting[place].clone();
        let most = if self.limits.prefix_cache { (entry.tokens.len() - 1) / BLOCK } else { 0 };
        for block in 0..most {
            let content = Some(entry.content(block));
            let Some(found) = self.slots.iter().position(|slot| slot.content == content) else { break };
            self.slots[found].owners += 1;
            self.free.retain(|free| *free != found);
            entry.blocks.push(found);
        }
        let found = entry.blocks.len();
        let wanted = entry.tokens.len().div_ceil(BLOCK) - found;
        if wanted > self.free.len() {
            self.release(entry.blocks);
            return None;
        }
        entry.blocks.extend((0..wanted).map(|_| self.take()).collect::<Vec<_>>());
        entry.computed = found * BLOCK;
        entry.settled = found;
        let started = entry.started;
        (entry.started, entry.preempted) = (true, false);
        self.waiting.remove(place);
        let place = self.running.iter().filter(|other| other.rank() < entry.rank()).count();
        self.running.insert(place, entry);
        self.share(place).map(|share| (share, if started { 0 } else { found * BLOCK }))
    }

    pub(super) fn remove(&mut self, id: u64) {
        if let Some(place) = self.running.iter().position(|entry| entry.id == id) {
            self.publish(place);
            let entry = self.running.remove(place);
            self.release(entry.blocks);
        }
        self.waiting.retain(|entry| entry.id != id);
    }

    /// Of the highest priority that waits: the first in rank of those preempted, else any client's first.
    fn may_be_next(&self, place: usize) -> bool {
        let entry = &self.waiting[place];
        let highest = self.waiting.iter().map(|other| other.priority).min() == Some(entry.priority);
        let mut peers = self.waiting.iter().filter(|other| other.priority == entry.priority);
        let first = if peers.clone().any(|other| other.preempted) {
            entry.preempted && peers.all(|other| !other.preempted || other.id >= entry.id)
        } else {
            peers.all(|other| other.client != entry.client || other.id >= entry.id)
        };
        highest && first
    }

    fn indices(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<usize> {
        (0..self.running.len()).filter(|index| wanted(&self.running[*index])).collect()
    }

    fn share(&mut self, index: usize) -> Option<Share> {
        let entry = &mut self.running[index];
        let count = entry.pending().min(self.budget);
        self.budget -= count;
        let position = entry.computed;
        entry.computed += count;
        (count > 0).then(|| Share {
            id: entry.id,
            position,
            tokens: entry.tokens[position..position + count].to_vec(),
            blocks: entry.blocks.clone(),
            complete: entry.pending() == 0,
        })
    }

    fn publish(&mut self, index: usize) {
        let entry = &mut self.running[index];
        let full = if self.limits.prefix_cache { entry.computed / BLOCK } else { 0 };
        let settled = std::mem::replace(&mut entry.settled, full);
        let entry = &self.running[index];
        for block in settled..full {
            let content = Some(entry.content(block));
            let slot = entry.blocks[block];
            if self.slots[slot].content.is_none() && self.slots.iter().all(|other| other.content != content) {
                self.slots[slot].content = content;
            }
        }
    }

    fn take(&mut self) -> usize {
        let unknown = self.free.iter().position(|index| self.slots[*index].content.is_none());
        let index = self.free.remove(unknown.unwrap_or(0));
        self.slots[index] = Slot { owners: 1, content: None };
        index
    }

    fn release(&mut self, blocks: Vec<usize>) {
        for index in blocks.into_iter().rev() {
            self.slots[index].owners -= 1;
            if self.slots[index].owners == 0 {
                self.free.push(index);
            }
        }
    }
}
