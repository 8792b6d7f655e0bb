use sparkherd_footprint::BLOCK_TOKENS;

use super::StepLimits;
use crate::{
    backend::{SequenceRows, TokenRow},
    batch::{Batch, BatchSequence, ForwardError, Wants},
};

/// A checked batch as rows: which position and which slot of the pool each has. Its room is taken once, at load.
#[derive(Debug)]
pub struct Step {
    limits: StepLimits,
    positions: Vec<u32>,
    slots: Vec<u32>,
    sequences: Vec<SequenceRows>,
    block_tables: Vec<u32>,
    logit_rows: Vec<u32>,
    token_rows: Vec<TokenRow>,
    hidden_rows: Vec<u32>,
}

impl Step {
    pub fn new(limits: StepLimits) -> Self {
        let blocks_per_sequence = limits.context.div_ceil(BLOCK_TOKENS as usize);
        Self {
            limits,
            positions: Vec::with_capacity(limits.tokens),
            slots: Vec::with_capacity(limits.tokens),
            sequences: Vec::with_capacity(limits.sequences),
            block_tables: Vec::with_capacity(limits.sequences * blocks_per_sequence),
            logit_rows: Vec::with_capacity(limits.logit_rows),
            token_rows: Vec::with_capacity(limits.sequences),
            hidden_rows: Vec::with_capacity(limits.tokens),
        }
    }

    /// Takes in a batch, or says what is wrong with it.
    pub fn fill(&mut self, batch: &Batch) -> Result<(), ForwardError> {
        let (tokens, sequences) = (batch.tokens.len(), batch.sequences.len());
        if tokens > self.limits.tokens || sequences > self.limits.sequences {
            return Err(ForwardError::BatchTooLarge {
                tokens,
                sequences,
                tokens_max: self.limits.tokens,
                sequences_max: self.limits.sequences,
            });
        }
        self.positions.clear();
        self.slots.clear();
        self.sequences.clear();
        self.block_tables.clear();
        self.logit_rows.clear();
        self.token_rows.clear();
        self.hidden_rows.clear();
        let counted: u64 = batch.sequences.iter().map(|sequence| u64::from(sequence.token_count)).sum();
        if counted != tokens as u64 {
            return Err(inconsistent(format!("sequences count {counted} tokens, the batch has {tokens}")));
        }
        batch.sequences.iter().try_for_each(|sequence| self.push(sequence))?;
        let (rows, rows_max) = (self.logit_rows.len(), self.limits.logit_rows);
        if rows > rows_max { Err(ForwardError::TooManyLogits { rows, rows_max }) } else { Ok(()) }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "rows are counted by tokens, of which `fill` found few enough"
    )]
    fn push(&mut self, sequence: &BatchSequence) -> Result<(), ForwardError> {
        let (position, rows) = (sequence.position as usize, sequence.token_count as usize);
        let first_row = self.positions.len();
        if rows == 0 {
            return Err(inconsistent("a sequence has no tokens".to_owned()));
        }
        let end = position + rows;
        if end > self.limits.context {
            return Err(inconsistent(format!(
                "a sequence reaches position {end}, the context is {}",
                self.limits.context
            )));
        }
        let needed = end.div_ceil(BLOCK_TOKENS as usize);
        let blocks = sequence.block_table.get(..needed).ok_or_else(|| {
            inconsistent(format!("{end} tokens need {needed} blocks, got {}", sequence.block_table.len()))
        })?;
        if let Some(block) = blocks.iter().find(|block| **block as usize >= self.limits.blocks) {
            return Err(inconsistent(format!("block {block} is beyond the pool of {}", self.limits.blocks)));
        }
        if sequence.wants == Wants::LastLogits {
            self.token_rows.push(TokenRow { sequence: self.sequences.len(), row: self.logit_rows.len() });
        }
        self.sequences.push(SequenceRows { first_row, rows, position, first_block: self.block_tables.len() });
        self.block_tables.extend_from_slice(blocks);
        for position in sequence.position..sequence.position + sequence.token_count {
            self.positions.push(position);
            self.slots
                .push(blocks[(position / BLOCK_TOKENS) as usize] * BLOCK_TOKENS + position % BLOCK_TOKENS);
        }
        let (wants, count) = (sequence.wants, sequence.token_count);
        self.logit_rows.extend(wants.logits(count).map(|row| first_row as u32 + row));
        self.hidden_rows.extend(wants.hidden(count).map(|row| first_row as u32 + row));
        Ok(())
    }

    /// Whether every sequence has one token and wants its logits, as while they answer.
    pub fn is_decode(&self) -> bool {
        let rows = self.positions.len();
        self.hidden_rows.is_empty() && self.sequences.len() == rows && self.logit_rows.len() == rows
    }

    /// Position of each row.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Place of each row in the pool: block · 16 + place in the block.
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }

    pub fn sequences(&self) -> &[SequenceRows] {
        &self.sequences
    }

    /// The sequences' blocks one after the other.
    pub fn block_tables(&self) -> &[u32] {
        &self.block_tables
    }

    /// Rows whose logits are wanted.
    pub fn logit_rows(&self) -> &[u32] {
        &self.logit_rows
    }

    /// Sequences of which a token may be chosen, each with its row of logits.
    pub fn token_rows(&self) -> &[TokenRow] {
        &self.token_rows
    }

    /// Rows whose hidden states are wanted.
    pub fn hidden_rows(&self) -> &[u32] {
        &self.hidden_rows
    }
}

fn inconsistent(what: String) -> ForwardError {
    ForwardError::Inconsistent(what)
}
