use super::Purpose;
use crate::{
    batch::Wants,
    kv::{BlockPool, BlockTable, OutOfBlocks, PrefixHashes},
    request::{ClientKey, Priority},
};

/// Order of arrival; the engine never uses one twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

/// A sequence as it arrives.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub id: SequenceId,
    pub client: ClientKey,
    pub priority: Priority,
    pub cache_salt: u64,
    pub purpose: Purpose,
    /// The prompt; not empty.
    pub tokens: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) id: SequenceId,
    pub(super) client: ClientKey,
    pub(super) priority: Priority,
    purpose: Purpose,
    /// Prompt and answer so far.
    pub(super) tokens: Vec<u32>,
    /// How many of `tokens` are the prompt.
    prompt: usize,
    /// How many of `tokens` have their keys and values in the blocks.
    pub(super) computed: usize,
    /// How many of `tokens` were ever computed: what they were computed for is not wanted a second time.
    told: usize,
    pub(super) table: BlockTable,
    hashes: PrefixHashes,
}

impl Sequence {
    pub(super) fn new(arrival: Arrival) -> Self {
        let Arrival { id, client, priority, cache_salt, purpose, tokens } = arrival;
        Self {
            id,
            client,
            priority,
            purpose,
            prompt: tokens.len(),
            tokens,
            computed: 0,
            told: 0,
            table: BlockTable::default(),
            hashes: PrefixHashes::new(cache_salt),
        }
    }

    /// Who goes first: the lower.
    pub(super) fn rank(&self) -> (Priority, SequenceId) {
        (self.priority, self.id)
    }

    /// Tokens known and not computed.
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Whether it never was in a step.
    pub(super) fn is_new(&self) -> bool {
        self.told == 0
    }

    /// Gets blocks for all tokens known: those of its beginning that the pool still holds, and free ones. At least one token
    /// is left to compute, as its logits are wanted.
    pub(super) fn start(&mut self, pool: &BlockPool, prefix_cache: bool) -> Result<(), OutOfBlocks> {
        let needed = if self.every_token_wants().is_some() {
            self.told.min(self.prompt)
        } else {
            self.tokens.len() - 1
        };
        let blocks = if prefix_cache { needed / BLOCK } else { 0 };
        let mut table = BlockTable::found(self.hashes.of(&self.tokens, blocks), pool);
        let found = table.indices().len();
        table.grow_to(self.tokens.len(), pool)?;
        self.computed = found * BLOCK;
        self.table = table;
        Ok(())
    }

    /// Lets others find the blocks that are full and computed.
    pub(super) fn publish(&mut self) {
        self.table.publish(self.hashes.of(&self.tokens, self.computed / BLOCK));
    }

    /// What is wanted of each token of the prompt, if anything.
    fn every_token_wants(&self) -> Option<Wants> {
        match self.purpose {
            Purpose::ScoreAndGenerate => Some(Wants::EveryLogits),
            Purpose::EmbedMean => Some(Wants::EveryHidden),
            Purpose::Generate | Purpose::EmbedLast => None,
        }
    }

    /// How many tokens to compute next and what is wanted of them, within `tokens` tokens and `rows` rows of logits; `None` if
    /// there is no room or nothing to do.
    pub(super) fn next_chunk(&self, tokens: usize, rows: usize) -> Option<(usize, Wants)> {
        let mut count = self.pending().min(tokens);
        let mut wants = Wants::Nothing;
        if let Some(every) = self.every_token_wants().filter(|_| self.computed < self.prompt) {
            // What was told before a preemption is not told again, so no chunk crosses that border.
            let is_new = self.computed >= self.told;
            count = count.min(if is_new { self.prompt } else { self.told } - self.computed);
            wants = if is_new { every } else { wants };
        }
        if wants == Wants::EveryLogits {
            count = count.min(rows);
        } else if wants == Wants::Nothing && count == self.pending() {
            match self.purpose {
                Purpose::EmbedLast => wants = Wants::LastHidden,
                _ if rows > 0 => wants = Wants::LastLogits,
                // The last token waits for a row.
                _ => count = count.saturating_sub(1),
            }
        }
        (count > 0).then_some((count, wants))
    }

    /// Takes the next `count` pending tokens into a step. They count as computed from here on: a step that fails ends the
    /// engine.
    pub(super) fn advance(&mut self, count: usize) {
        self.computed += count;
        self.told = self.told.max(self.computed);
    }

    /// Gives up the blocks, and with them everything computed that is not found again.
    pub(super) fn start_over(&mut self) {
        self.computed = 0;
        self.table = BlockTable::default();
    }
}

const BLOCK: usize = sparkherd_footprint::BLOCK_TOKENS as usize;
