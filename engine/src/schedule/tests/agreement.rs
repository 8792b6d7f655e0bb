use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    BLOCK, own_token, prompt,
    reference::{Entry, Reference, Share},
};
use crate::{
    kv::BlockPool,
    request::{ClientKey, Priority},
    schedule::{Arrival, Part, Purpose, ScheduleLimits, SequenceId, State, Step},
};

/// What a scheduler is asked to do.
#[derive(Clone, Debug)]
enum Event {
    /// A request that wants `answer` more tokens; prompt and answer are cut to what the pool holds.
    Arrive {
        client: u64,
        batch: bool,
        salt: u64,
        stem: u32,
        shared: usize,
        prompt: usize,
        answer: usize,
    },
    Step,
    /// The request at this place among all present, counted round, is cancelled.
    Cancel(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let arrive =
        (0..3_u64, prop::bool::weighted(0.2), 0..2_u64, 0..2_u32, 0..70_usize, 1..90_usize, 1..60_usize)
            .prop_map(|(client, batch, salt, stem, shared, prompt, answer)| Event::Arrive {
                client,
                batch,
                salt,
                stem,
                shared,
                prompt,
                answer,
            });
    prop_oneof![2 => arrive, 6 => Just(Event::Step), 1 => any::<usize>().prop_map(Event::Cancel)]
}

/// The scheduler, the reference, and a KV memory that remembers what was written to it.
struct Pair {
    state: State,
    reference: Reference,
    /// Salt and tokens up to each written cell, by (block, offset).
    memory: BTreeMap<(usize, usize), (u64, Vec<u32>)>,
    salts: BTreeMap<u64, u64>,
    next_id: u64,
    found: usize,
}

impl Pair {
    fn new(limits: ScheduleLimits, blocks: u32) -> Self {
        Self {
            state: State::new(limits, BlockPool::new(blocks)),
            reference: Reference::new(limits, blocks as usize),
            memory: BTreeMap::new(),
            salts: BTreeMap::new(),
            next_id: 0,
            found: 0,
        }
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Arrive { client, batch, salt, stem, shared, prompt: length, answer } => {
                let id = self.next_id;
                self.next_id += 1;
                let room = self.reference.slots.len() * BLOCK;
                let length = length.min(room - 1);
                let priority = if batch { Priority::Batch } else { Priority::Interactive };
                let arrival = Arrival {
                    id: SequenceId(id),
                    client: ClientKey(client),
                    priority,
                    cache_salt: salt,
                    purpose: Purpose::Generate,
                    tokens: prompt(id, stem, shared, length),
                };
                self.salts.insert(id, salt);
                self.reference.waiting.push(Entry::new(arrival.clone(), answer.min(room - length)));
                self.state.enqueue(arrival);
            }
            Event::Step => self.step(),
            Event::Cancel(place) => {
                let ids: Vec<u64> = self.reference.all().map(|entry| entry.id).collect();
                if !ids.is_empty() {
                    self.remove(ids[place % ids.len()]);
                }
            }
        }
        self.check_blocks();
    }

    fn remove(&mut self, id: u64) {
        self.state.remove(SequenceId(id));
        self.reference.remove(id);
    }

    fn step(&mut self) {
        let first = self.reference.running.first().cloned();
        let step = self.state.step();
        let mut shares = self.reference.step();
        let mut admitted = Vec::new();
        for part in step.parts.iter().skip(shares.len()) {
            let (share, found) =
                self.reference.admit(part.id.0).expect("there is room for what was admitted");
            shares.push(share);
            self.found += found;
            admitted.push((part.id, found));
        }
        // Whose turn it is after that finds no room, and nobody overtakes.
        if let Some(next) = self.state.waiting.next().map(|sequence| sequence.id.0) {
            assert!(self.reference.admit(next).is_none(), "{next} was left waiting");
        }
        for told in &step.admitted {
            assert!(admitted.contains(&(told.id, told.cached_tokens)), "{told:?} of {admitted:?}");
        }
        assert_eq!(shares_of(&step), shares);
        assert!(step.batch.tokens.len() <= self.reference.limits.tokens_per_step);
        assert!(step.batch.sequences.len() <= self.reference.limits.sequences);
        for share in &shares {
            self.write_and_read(share);
        }
        if let Some(first) = first {
            let now = self.reference.running.iter().find(|entry| entry.id == first.id);
            assert!(now.is_some_and(|now| now.computed > first.computed), "the first got nothing: {first:?}");
        }
        for Part { id, complete } in step.parts {
            if complete {
                self.answer(id);
            }
        }
    }

    /// What is written goes where nobody else reads, and what is read is what this sequence, or one like it, has written.
    fn write_and_read(&mut self, share: &Share) {
        let entry = self.reference.running.iter().find(|entry| entry.id == share.id).unwrap();
        let salt = self.salts[&share.id];
        let end = share.position + share.tokens.len();
        for position in share.position..end {
            let block = share.blocks[position / BLOCK];
            let slot = &self.reference.slots[block];
            assert!(slot.owners == 1 && slot.content.is_none(), "wrote to block {block}: {slot:?}");
            self.memory.insert((block, position % BLOCK), (salt, entry.tokens[..=position].to_vec()));
        }
        for position in 0..end {
            let cell = (share.blocks[position / BLOCK], position % BLOCK);
            let held = self.memory.get(&cell);
            assert_eq!(held, Some(&(salt, entry.tokens[..=position].to_vec())), "cell {cell:?}");
        }
    }

    fn answer(&mut self, id: SequenceId) {
        let entry = self.reference.running.iter_mut().find(|entry| SequenceId(entry.id) == id).unwrap();
        entry.answer_left -= 1;
        if entry.answer_left == 0 {
            self.remove(id.0);
        } else {
            let token = own_token(id.0, entry.tokens.len());
            entry.tokens.push(token);
            self.state.append(id, token);
        }
    }

    /// No block is lost, and each has as many owners as sequences that hold it.
    fn check_blocks(&self) {
        let Reference { slots, running, waiting, .. } = &self.reference;
        assert_eq!(self.state.pool().free_blocks(), self.reference.free());
        assert_eq!((self.state.running(), self.state.waiting()), (running.len(), waiting.len()));
        for (index, slot) in slots.iter().enumerate() {
            let holders = running.iter().filter(|entry| entry.blocks.contains(&index)).count();
            assert_eq!(holders, slot.owners, "block {index}");
        }
        assert_eq!(slots.iter().filter(|slot| slot.owners == 0).count(), self.reference.free());
    }
}

fn shares_of(step: &Step) -> Vec<Share> {
    let mut tokens = step.batch.tokens.iter().copied();
    let share = |(sequence, part): (&crate::BatchSequence, &Part)| Share {
        id: part.id.0,
        position: sequence.position as usize,
        tokens: tokens.by_ref().take(sequence.token_count as usize).collect(),
        blocks: sequence.block_table.iter().map(|block| *block as usize).collect(),
        complete: part.complete,
    };
    let shares = step.batch.sequences.iter().zip(&step.parts).map(share).collect();
    assert_eq!((tokens.next(), step.parts.len()), (None, step.batch.sequences.len()));
    shares
}

proptest! {
    /// The scheduler does what the lists do: it keeps its budgets, loses no block and shares only equal content, writes to
    /// nothing that can be found, never takes work from the first in rank, and ends everything.
    #[test]
    fn agrees_with_lists(
        tokens_per_step in 1..70_usize,
        sequences in 1..9_usize,
        blocks in 1..14_u32,
        prefix_cache in prop::bool::weighted(0.8),
        events in prop::collection::vec(event(), 1..160),
    ) {
        let mut pair = Pair::new(ScheduleLimits { tokens_per_step, sequences, logit_rows: sequences, prefix_cache }, blocks);
        for event in &events {
            pair.apply(event);
        }
        // Each step computes at least one token; preempted work is at most done again for every sequence that ends.
        let arrived = events.iter().filter(|event| matches!(event, Event::Arrive { .. })).count();
        let steps_max = (arrived + 1) * (arrived + 1) * blocks as usize * BLOCK;
        let mut steps = 0;
        while !pair.state.is_empty() {
            pair.apply(&Event::Step);
            steps += 1;
            prop_assert!(steps <= steps_max, "no end after {steps} steps");
        }
        prop_assert_eq!(pair.state.pool().free_blocks(), blocks as usize);
        prop_assert_eq!(pair.state.counts().cache_hits, pair.found as u64);
    }
}
