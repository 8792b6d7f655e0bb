use super::{
    queue::WaitingQueue,
    sequence::{Arrival, Sequence, SequenceId},
    turns::GENERATED_TOKEN,
};
use crate::{
    batch::{Batch, BatchSequence},
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
    /// Rows of logits; at least `sequences`.
    pub logit_rows: usize,
    /// Whether blocks are found by what they hold.
    pub prefix_cache: bool,
}

/// One forward pass and whom it is for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    pub batch: Batch,
    /// Whose the batch's sequences are, in order.
    pub parts: Vec<Part>,
    /// Who begins to run with this step, for the first time.
    pub admitted: Vec<Admitted>,
}

/// One sequence's share of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub id: SequenceId,
    /// Whether it includes the last token known: the next one is to be sampled.
    pub complete: bool,
}

/// A sequence that left the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    pub id: SequenceId,
    /// Tokens of its prompt that need not be computed.
    pub cached_tokens: usize,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScheduleCounts {
    /// Sequences sent back to wait.
    pub preemptions: u64,
    /// Prompt tokens looked for in the prefix cache, and those found; each prompt once.
    pub cache_queries: u64,
    pub cache_hits: u64,
}

/// All sequences and the pool they share.
#[derive(Debug)]
pub struct State {
    limits: ScheduleLimits,
    pool: BlockPool,
    /// Have blocks for all tokens they know, save the newest one; in order of rank.
    running: Vec<Sequence>,
    pub(super) waiting: WaitingQueue,
    counts: ScheduleCounts,
}

impl State {
    pub fn new(limits: ScheduleLimits, pool: BlockPool) -> Self {
        let (waiting, counts) = (WaitingQueue::default(), ScheduleCounts::default());
        Self { limits, pool, running: Vec::new(), waiting, counts }
    }

    /// Adds a sequence. The caller sees to it that it never grows past what the whole pool holds.
    pub fn enqueue(&mut self, arrival: Arrival) {
        self.waiting.push(Sequence::new(arrival));
    }

    /// The next step's work, after the last one's is done. Empty only if there are no sequences, or each waits for
    /// [`State::append`].
    pub fn step(&mut self) -> Step {
        if self.limits.prefix_cache {
            // Lets others find what the last step has computed.
            self.running.iter_mut().for_each(Sequence::publish);
        }
        self.grow_or_preempt();
        let mut step = Step::default();
        let mut budget = Budget { tokens: self.limits.tokens_per_step, rows: self.limits.logit_rows };
        for sequence in self.running.iter_mut().filter(|sequence| sequence.pending() == 1) {
            if step.add(sequence, &mut budget) > 0 {
                self.waiting.pay(sequence.priority, sequence.client, GENERATED_TOKEN);
            }
        }
        if !step.parts.is_empty() {
            let share = (self.limits.tokens_per_step / PREFILL_SHARE_BESIDE_DECODES).max(1);
            budget.tokens = budget.tokens.min(share);
        }
        for sequence in self.running.iter_mut().filter(|sequence| sequence.pending() > 1) {
            step.add(sequence, &mut budget);
        }
        while budget.tokens > 0 && budget.rows > 0 {
            let Some(mut sequence) = self.admit(&mut step) else { break };
            step.add(&mut sequence, &mut budget);
            let place = self.running.partition_point(|other| other.rank() < sequence.rank());
            self.running.insert(place, sequence);
        }
        step
    }

    /// A sampled token of a running sequence.
    pub fn append(&mut self, id: SequenceId, token: u32) {
        if let Some(sequence) = self.running.iter_mut().find(|sequence| sequence.id == id) {
            sequence.tokens.push(token);
        }
    }

    /// Forgets a sequence, wherever it is; its blocks are free when this returns. The last step is done.
    pub fn remove(&mut self, id: SequenceId) {
        let running = self.running.iter().position(|sequence| sequence.id == id);
        let removed = match running {
            Some(place) => Some(self.running.remove(place)),
            None => self.waiting.remove(id),
        };
        let Some(mut sequence) = removed else { return };
        if self.limits.prefix_cache {
            sequence.publish();
        }
        let (priority, client) = (sequence.priority, sequence.client);
        let runs = self.running.iter().any(|other| (other.priority, other.client) == (priority, client));
        self.waiting.left(priority, client, runs);
    }

    /// Whether there are no sequences.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty() && self.waiting.len() == 0
    }

    pub fn running(&self) -> usize {
        self.running.len()
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn counts(&self) -> ScheduleCounts {
        self.counts
    }

    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// Gives each running sequence a place for the token it sampled last, in order of rank. Where the pool has none left, the
    /// last in rank makes room, be it the very one that asks. None of those is in the step yet.
    fn grow_or_preempt(&mut self) {
        let mut index = 0;
        while let Some(sequence) = self.running.get_mut(index) {
            if sequence.table.grow_to(sequence.tokens.len(), &self.pool).is_ok() {
                index += 1;
            } else if let Some(mut last) = self.running.pop() {
                last.start_over();
                self.waiting.push_preempted(last);
                self.counts.preemptions += 1;
            }
        }
    }

    /// Takes the sequence whose turn it is out of the queue, with blocks for all tokens it knows. Nobody overtakes it.
    fn admit(&mut self, step: &mut Step) -> Option<Sequence> {
        if self.running.len() >= self.limits.sequences {
            return None;
        }
        let next = self.waiting.next()?;
        next.start(&self.pool, self.limits.prefix_cache).ok()?;
        let sequence = self.waiting.take_next()?;
        if sequence.is_new() {
            let cached_tokens = sequence.computed;
            self.counts.cache_queries += sequence.tokens.len() as u64;
            self.counts.cache_hits += cached_tokens as u64;
            step.admitted.push(Admitted { id: sequence.id, cached_tokens });
        }
        Some(sequence)
    }
}

impl Step {
    /// Adds as many of the sequence's pending tokens as there is room for; returns how many.
    fn add(&mut self, sequence: &mut Sequence, budget: &mut Budget) -> usize {
        let Some((tokens, wants)) = sequence.next_chunk(budget.tokens, budget.rows) else { return 0 };
        let token_count = narrow(tokens);
        budget.tokens -= tokens;
        budget.rows -= wants.logits(token_count).len();
        let first = sequence.computed;
        sequence.advance(tokens);
        let complete = sequence.pending() == 0;
        self.batch.sequences.push(BatchSequence {
            token_count,
            position: narrow(first),
            block_table: sequence.table.indices().to_vec(),
            wants,
        });
        self.batch.tokens.extend_from_slice(&sequence.tokens[first..sequence.computed]);
        self.parts.push(Part { id: sequence.id, complete });
        tokens
    }
}

/// What is left of a step.
struct Budget {
    tokens: usize,
    rows: usize,
}

/// Positions and counts are below the context, which is a `u32`.
fn narrow(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}
