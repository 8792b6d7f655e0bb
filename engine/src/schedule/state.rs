use std::collections::VecDeque;

use super::sequence::{Sequence, SequenceId};
use crate::{
    batch::{Batch, BatchSequence, Wants},
    kv::BlockPool,
};

/// While anything decodes, prefill gets this share of the token budget: a stream then waits for about a quarter of a full
/// chunk between two tokens instead of a whole one, and a long prompt still gets a quarter of the prefill speed.
const PREFILL_SHARE_BESIDE_DECODES: usize = 4;

/// What one step may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduleLimits {
    /// At least 1.
    pub tokens_per_step: usize,
    /// At least 1.
    pub sequences: usize,
}

/// One forward pass and whom its logits are for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    pub batch: Batch,
    /// The sequence of each row of logits, in order.
    pub sampled: Vec<SequenceId>,
}

/// All sequences and the pool they share.
#[derive(Debug)]
pub struct State {
    limits: ScheduleLimits,
    pool: BlockPool,
    /// Have blocks for all tokens they know, save the newest one; in order of arrival.
    running: Vec<Sequence>,
    /// Have no blocks; arrived after all of `running`, in order of arrival.
    waiting: VecDeque<Sequence>,
    preemptions: u64,
}

impl State {
    pub fn new(limits: ScheduleLimits, pool: BlockPool) -> Self {
        Self { limits, pool, running: Vec::new(), waiting: VecDeque::new(), preemptions: 0 }
    }

    /// Adds a sequence behind all others. `tokens` is not empty, and the caller sees to it that the sequence never grows
    /// past what the whole pool holds.
    pub fn enqueue(&mut self, id: SequenceId, tokens: Vec<u32>) {
        self.waiting.push_back(Sequence::new(id, tokens));
    }

    /// The next step's work. Empty only if there are no sequences, or each waits for [`State::append`].
    pub fn step(&mut self) -> Step {
        self.grow_or_preempt();
        let mut step = Step::default();
        let mut budget = self.limits.tokens_per_step;
        for sequence in self.running.iter_mut().filter(|sequence| sequence.pending() == 1).take(budget) {
            step.add(sequence, 1);
        }
        budget -= step.batch.tokens.len();
        if !step.batch.tokens.is_empty() {
            budget = budget.min((self.limits.tokens_per_step / PREFILL_SHARE_BESIDE_DECODES).max(1));
        }
        for sequence in self.running.iter_mut().filter(|sequence| sequence.pending() > 1) {
            budget -= step.add(sequence, budget);
        }
        while budget > 0 && self.admit() {
            if let Some(sequence) = self.running.last_mut() {
                budget -= step.add(sequence, budget);
            }
        }
        step
    }

    /// A sampled token of a running sequence.
    pub fn append(&mut self, id: SequenceId, token: u32) {
        if let Some(sequence) = self.running.iter_mut().find(|sequence| sequence.id == id) {
            sequence.tokens.push(token);
        }
    }

    /// Forgets a sequence, wherever it is; its blocks are free when this returns.
    pub fn remove(&mut self, id: SequenceId) {
        self.running.retain(|sequence| sequence.id != id);
        self.waiting.retain(|sequence| sequence.id != id);
    }

    /// Whether there are no sequences.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    pub fn running(&self) -> usize {
        self.running.len()
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Sequences sent back to `waiting` so far.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// Gives each running sequence a place for the token it sampled last, oldest first. Where the pool has none left, the
    /// newest sequence makes room, be it the very one that asks. None of those is in the step yet.
    fn grow_or_preempt(&mut self) {
        let mut index = 0;
        while let Some(sequence) = self.running.get_mut(index) {
            if sequence.table.grow_to(sequence.tokens.len(), &self.pool).is_ok() {
                index += 1;
            } else if let Some(mut newest) = self.running.pop() {
                newest.start_over();
                self.waiting.push_front(newest);
                self.preemptions += 1;
            }
        }
    }

    /// Moves the sequence that has waited longest to `running`, with blocks for all tokens it knows. Nobody overtakes it.
    fn admit(&mut self) -> bool {
        if self.running.len() >= self.limits.sequences {
            return false;
        }
        let Some(mut sequence) = self.waiting.pop_front() else { return false };
        if sequence.table.grow_to(sequence.tokens.len(), &self.pool).is_err() {
            self.waiting.push_front(sequence);
            return false;
        }
        self.running.push(sequence);
        true
    }
}

impl Step {
    /// Adds at most `budget` of the sequence's pending tokens; returns how many.
    fn add(&mut self, sequence: &mut Sequence, budget: usize) -> usize {
        let count = sequence.pending().min(budget);
        if count == 0 {
            return 0;
        }
        let chunk = sequence.advance(count);
        let wants_logits = sequence.pending() == 0;
        self.batch.sequences.push(BatchSequence {
            token_count: narrow(count),
            position: narrow(chunk.start),
            block_table: sequence.table.indices().to_vec(),
            wants: if wants_logits { Wants::LastLogits } else { Wants::Nothing },
        });
        self.batch.tokens.extend_from_slice(&sequence.tokens[chunk]);
        if wants_logits {
            self.sampled.push(sequence.id);
        }
        count
    }
}

/// Positions and counts are below the context, which is a `u32`.
fn narrow(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}
