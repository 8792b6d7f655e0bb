use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{ScheduleLimits, SequenceId, State, Step};
use crate::{batch::Wants, kv::BlockPool};

const BLOCK: usize = sparkherd_footprint::BLOCK_TOKENS as usize;

/// The token of a sequence at a position: no two are alike, so a batch shows whose tokens it holds.
fn token(id: u64, position: usize) -> u32 {
    u32::try_from(id * 10_000).unwrap() + u32::try_from(position).unwrap()
}

/// What a scheduler is asked to do.
#[derive(Clone, Debug)]
enum Event {
    /// A request of `prompt` tokens that wants `answer` more; both cut to what the pool holds.
    Arrive {
        prompt: usize,
        answer: usize,
    },
    Step,
    /// The request at this place among all present, counted round, is cancelled.
    Cancel(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (1..90_usize, 1..60_usize).prop_map(|(prompt, answer)| Event::Arrive { prompt, answer }),
        6 => Just(Event::Step),
        1 => any::<usize>().prop_map(Event::Cancel),
    ]
}

/// One request as the reference sees it: five numbers.
#[derive(Clone, Debug)]
struct Entry {
    id: u64,
    known: usize,
    computed: usize,
    blocks: usize,
    answer_left: usize,
}

impl Entry {
    fn pending(&self) -> usize {
        self.known - self.computed
    }
}

/// The same rules over two plain lists and a count of free blocks.
#[derive(Debug)]
struct Reference {
    limits: ScheduleLimits,
    blocks: usize,
    running: Vec<Entry>,
    waiting: Vec<Entry>,
}

/// (sequence, first position, tokens) of each part of a step.
type Parts = Vec<(u64, usize, usize)>;

impl Reference {
    fn free(&self) -> usize {
        self.blocks - self.running.iter().map(|entry| entry.blocks).sum::<usize>()
    }

    fn step(&mut self) -> Parts {
        let mut index = 0;
        while index < self.running.len() {
            let wanted = self.running[index].known.div_ceil(BLOCK);
            if wanted - self.running[index].blocks <= self.free() {
                self.running[index].blocks = wanted;
                index += 1;
            } else {
                let newest = self.running.pop().unwrap();
                self.waiting.insert(0, Entry { computed: 0, blocks: 0, ..newest });
            }
        }
        let mut parts = Parts::new();
        let mut budget = self.limits.tokens_per_step;
        for entry in self.running.iter_mut().filter(|entry| entry.pending() == 1) {
            take(entry, &mut budget, &mut parts);
        }
        if !parts.is_empty() {
            budget = budget.min((self.limits.tokens_per_step / 4).max(1));
        }
        for entry in self.running.iter_mut().filter(|entry| entry.pending() > 1) {
            take(entry, &mut budget, &mut parts);
        }
        while budget > 0 && self.running.len() < self.limits.sequences && !self.waiting.is_empty() {
            let wanted = self.waiting[0].known.div_ceil(BLOCK);
            if wanted > self.free() {
                break;
            }
            let mut entry = Entry { blocks: wanted, ..self.waiting.remove(0) };
            take(&mut entry, &mut budget, &mut parts);
            self.running.push(entry);
        }
        parts
    }

    fn all(&self) -> impl Iterator<Item = &Entry> {
        self.running.iter().chain(&self.waiting)
    }
}

fn take(entry: &mut Entry, budget: &mut usize, parts: &mut Parts) {
    let count = entry.pending().min(*budget);
    if count > 0 {
        parts.push((entry.id, entry.computed, count));
        entry.computed += count;
        *budget -= count;
    }
}

/// The scheduler, the reference, and a KV memory that remembers what was written to it.
struct Pair {
    state: State,
    reference: Reference,
    /// Token and owner of each written cell, by (block, offset).
    memory: BTreeMap<(u32, usize), u32>,
    next_id: u64,
}

impl Pair {
    fn new(limits: ScheduleLimits, blocks: u32) -> Self {
        Self {
            state: State::new(limits, BlockPool::new(blocks)),
            reference: Reference { limits, blocks: blocks as usize, running: vec![], waiting: vec![] },
            memory: BTreeMap::new(),
            next_id: 0,
        }
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Arrive { prompt, answer } => self.arrive(prompt, answer),
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

    fn arrive(&mut self, prompt: usize, answer: usize) {
        let id = self.next_id;
        self.next_id += 1;
        let known = prompt.min(self.reference.blocks * BLOCK - 1);
        let answer_left = answer.min(self.reference.blocks * BLOCK - known);
        self.reference.waiting.push(Entry { id, known, computed: 0, blocks: 0, answer_left });
        self.state.enqueue(SequenceId(id), (0..known).map(|position| token(id, position)).collect());
    }

    fn remove(&mut self, id: u64) {
        self.state.remove(SequenceId(id));
        self.reference.running.retain(|entry| entry.id != id);
        self.reference.waiting.retain(|entry| entry.id != id);
    }

    fn step(&mut self) {
        let oldest = self.reference.all().next().cloned();
        let step = self.state.step();
        let parts = self.reference.step();
        self.check_step(&step, &parts);
        if let Some(oldest) = oldest {
            let now = self.reference.running.first().expect("the oldest sequence runs");
            assert!(
                now.id == oldest.id && now.computed >= oldest.computed,
                "the oldest lost work: {oldest:?} {now:?}"
            );
        }
        for id in step.sampled {
            let entry = self.reference.running.iter_mut().find(|entry| SequenceId(entry.id) == id).unwrap();
            entry.answer_left -= 1;
            if entry.answer_left == 0 {
                self.remove(id.0);
            } else {
                self.state.append(id, token(id.0, entry.known));
                entry.known += 1;
            }
        }
    }

    fn check_step(&mut self, step: &Step, parts: &Parts) {
        assert!(step.batch.tokens.len() <= self.reference.limits.tokens_per_step);
        assert!(step.batch.sequences.len() <= self.reference.limits.sequences);
        assert_eq!(step.batch.sequences.len(), parts.len());
        let mut tokens = step.batch.tokens.iter();
        let mut sampled = step.sampled.iter();
        for (sequence, &(id, position, count)) in step.batch.sequences.iter().zip(parts) {
            assert_eq!((sequence.position as usize, sequence.token_count as usize), (position, count));
            let cell = |position: usize| (sequence.block_table[position / BLOCK], position % BLOCK);
            for position in position..position + count {
                assert_eq!(tokens.next(), Some(&token(id, position)));
                self.memory.insert(cell(position), token(id, position));
            }
            for position in 0..position + count {
                assert_eq!(
                    self.memory.get(&cell(position)),
                    Some(&token(id, position)),
                    "cell lost: {id}@{position}"
                );
            }
            let entry = self.reference.running.iter().find(|entry| entry.id == id).unwrap();
            assert_eq!(sequence.wants == Wants::LastLogits, entry.pending() == 0);
            if sequence.wants == Wants::LastLogits {
                assert_eq!(sampled.next(), Some(&SequenceId(id)));
            }
        }
        assert_eq!((tokens.next(), sampled.next()), (None, None));
    }

    /// No block is lost and none has two owners.
    fn check_blocks(&self) {
        assert_eq!(self.state.pool().free_blocks(), self.reference.free());
        assert_eq!(self.state.running(), self.reference.running.len());
        assert_eq!(self.state.waiting(), self.reference.waiting.len());
        let order: Vec<u64> = self.reference.all().map(|entry| entry.id).collect();
        assert!(order.is_sorted(), "order of arrival: {order:?}");
    }
}

proptest! {
    /// The scheduler does what the list-based reference does, keeps its budget, loses and shares no block, never takes work
    /// from the oldest, and ends everything.
    #[test]
    fn agrees_with_a_list_of_numbers(
        tokens_per_step in 1..70_usize,
        sequences in 1..9_usize,
        blocks in 1..14_u32,
        events in prop::collection::vec(event(), 1..160),
    ) {
        let mut pair = Pair::new(ScheduleLimits { tokens_per_step, sequences }, blocks);
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
    }
}

#[test]
fn decodes_come_first_and_prefill_gets_a_quarter_beside_them() {
    let limits = ScheduleLimits { tokens_per_step: 40, sequences: 4 };
    let mut pair = Pair::new(limits, 64);
    pair.arrive(3, 10);
    pair.step();
    pair.arrive(100, 1);
    let step = pair.state.step();
    let counts: Vec<u32> = step.batch.sequences.iter().map(|sequence| sequence.token_count).collect();
    assert_eq!(counts, [1, 10]);
    assert_eq!(step.sampled, [SequenceId(0)]);
}

#[test]
fn the_newest_makes_room_and_starts_over() {
    let mut pair = Pair::new(ScheduleLimits { tokens_per_step: 64, sequences: 4 }, 3);
    pair.arrive(16, 20);
    pair.arrive(16, 20);
    pair.step();
    assert_eq!((pair.state.running(), pair.state.pool().free_blocks()), (2, 1));
    // Both need a second block for their 17th token, and there is one.
    pair.step();
    assert_eq!((pair.state.running(), pair.state.waiting(), pair.state.preemptions()), (1, 1, 1));
    while !pair.state.is_empty() {
        pair.apply(&Event::Step);
    }
}
